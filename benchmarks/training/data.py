"""The data sets of the training benchmark, as token ids.

Every example comes the way a run's examples come: a bake-off file is resolved, its task
loads the rows, the one renderer writes the prompt with its full instruction, and
`training.encoding.encode` makes ids and labels (completion only) with the shipped
tokenizer. Every arm is given these ids, so none tokenizes, and none sees other tokens.

ViGGO and Spider are read from TUNEOFF_DATA, else from `../shared/data` beside the checkout;
where neither is there, the generated samples stand in. Examples longer than the base's
positions are left out for all arms, and counted.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tuneoff.bakeoff import prepare
from tuneoff.config.contenders import SHIPPED_BASE, LocalConfig
from tuneoff.config.schema import BakeOff, TaskConfig
from tuneoff.models.loading import choose_rendering, count_positions, load_tokenizer, resolve_base
from tuneoff.tokenization.examples import EncodedExample, encode_example

UNLIMITED = 2**31
ROOT = Path(__file__).resolve().parents[2]
CHECKED_OUT_DATA = ROOT.parent / "shared" / "data"
REAL = {
    "viggo": TaskConfig(id="functional_representation", source="viggo"),
    "spider_create_context": TaskConfig(id="text_to_sql", source="spider-create-context"),
    "spider_schema": TaskConfig(id="text_to_sql", source="spider-create-context", context="schema"),
}
SAMPLES = {
    "functional_sample": TaskConfig(id="functional_representation", source="sample"),
    "sql_sample": TaskConfig(id="text_to_sql", source="sample"),
}


@dataclass(frozen=True, slots=True)
class DataSet:
    """The training split of one data set, encoded."""

    name: str
    examples: tuple[EncodedExample, ...]
    left_out: int = 0

    @property
    def lengths(self) -> list[int]:
        """Tokens of each example."""
        return [len(example.input_ids) for example in self.examples]


def data_dir() -> Path | None:
    """Where the real data sets lie, or None."""
    named = os.environ.get(prepare.DATA_VARIABLE)
    folder = Path(named).expanduser() if named else CHECKED_OUT_DATA
    return folder.resolve() if folder.is_dir() else None


def names() -> list[str]:
    """The data sets that can be had here: the real ones, or else the samples."""
    return list(REAL if data_dir() else SAMPLES)


def load(name: str, loss_on: Literal["completion", "text"] = "completion") -> DataSet:
    """A data set's training split, encoded with the shipped tokenizer."""
    bakeoff = BakeOff(
        name="benchmark",
        task={**REAL, **SAMPLES}[name],
        contenders=(LocalConfig(name="tuned", id="local"),),
        data_dir=str(data_dir()) if name in REAL else None,
    )
    parts = prepare.resolve(bakeoff)
    train = parts.task.load(parts.settings, parts.place)["train"]
    resolved = resolve_base(SHIPPED_BASE, ROOT)
    tokenizer = load_tokenizer(resolved)
    rendering, positions = choose_rendering(tokenizer, None), count_positions(resolved)
    encoded = [
        encode_example(tokenizer, example, parts.template, rendering, loss_on, UNLIMITED)
        for example in train
    ]
    fitting = tuple(example for example in encoded if len(example.input_ids) <= positions)
    return DataSet(name, fitting, len(encoded) - len(fitting))


def write(data: DataSet, path: Path) -> None:
    """Puts the ids where a child process finds them."""
    rows = [[example.input_ids, example.labels] for example in data.examples]
    path.write_text(json.dumps({"name": data.name, "rows": rows}))


def read(path: Path) -> DataSet:
    """What `write` wrote."""
    content = json.loads(path.read_text())
    rows = content["rows"]
    return DataSet(content["name"], tuple(EncodedExample(tuple(i), tuple(t)) for i, t in rows))
