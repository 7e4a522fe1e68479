"""`tuneoff init DATA`: looks at a file of examples and writes a starter bake-off file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from tuneoff.bakeoff_file import parse
from tuneoff.config import Columns
from tuneoff.errors import ConfigError, DataError
from tuneoff.rundir import write_text
from tuneoff.tasks import chat
from tuneoff.tasks.rows import Row, read

# Names that people give to the two columns, the likeliest first.
PROMPT_NAMES = ("prompt", "input", "question", "instruction", "text", "query", "source")
COMPLETION_NAMES = ("completion", "output", "answer", "response", "label", "target", "reference")
SYSTEM_NAMES = ("system", "system_prompt")

STARTER = """\
# Written by `tuneoff init`. Which model should I use for this task?
name: {name}
task:
{task}
contenders:
  # The base as it is, shown five examples: what tuning has to beat.
  - {{name: prompted, id: prompted, base: tiny, shots: 5}}
  # LoRA on all linear layers: the usual first choice.
  - name: lora
    id: local
    base: tiny          # a model of 5 M parameters that ships with tuneoff, to try things out;
                        # for real work: a folder, or a hub id such as Qwen/Qwen3-0.6B
    method: lora
    lora: {{r: 16, alpha: 32, target_modules: all-linear}}
    train: {{epochs: 3, batch_size: 16, learning_rate: 2.0e-3}}
  # All parameters.
  - name: full
    id: local
    base: tiny
    method: full
    train: {{epochs: 3, batch_size: 16, learning_rate: 1.0e-3}}
"""


def write_starter(data: Path | str, out: Path | str) -> dict[str, Any]:
    """Writes `out` and says what was found: `{"examples", "form", "file"}`.

    Raises:
        ConfigError: `out` is there already.
        DataError: the data cannot be read.
    """
    data, out = Path(data), Path(out)
    if out.exists():
        raise ConfigError(f"{out}: the file is there already; give another name with --out.")
    form = form_of(data)
    columns = None if form == "chat messages" else columns_of(data)
    examples = chat.read_examples(data, columns)
    task: dict[str, Any] = {"id": "chat", "train": _relative(data, out.parent)}
    if columns is not None:
        task["columns"] = columns.model_dump(exclude_none=True)
    longest = max(len(example.completion.encode()) for example in examples)
    # A byte-level tokenizer needs at most a token a byte, mostly a third; a limit only bounds.
    task["max_new_tokens"] = max(16, min(1024, -(-longest // 2) + 16))
    indented = "".join(
        f"  {line}\n" for line in yaml.safe_dump(task, sort_keys=False).splitlines()
    ).rstrip("\n")
    text = STARTER.format(name=_name(data), task=indented)
    parse(text, out)
    write_text(out, text)
    return {"examples": len(examples), "form": form, "file": str(out)}


def form_of(data: Path) -> str:
    """`chat messages`, or `columns: …` naming what the first row has."""
    row = _first(data)
    return "chat messages" if "messages" in row else "columns: " + ", ".join(map(str, row))


def columns_of(data: Path) -> Columns:
    """Which columns hold prompt and completion, by their names.

    Raises:
        DataError: no name is known; says which there are.
    """
    row = _first(data)
    lower = {str(key).lower(): str(key) for key in row}
    prompt = next((lower[name] for name in PROMPT_NAMES if name in lower), None)
    completion = next((lower[name] for name in COMPLETION_NAMES if name in lower), None)
    if prompt is None or completion is None:
        missing = "a prompt" if prompt is None else "an answer"
        raise DataError(
            f"{data}: no column looks like {missing} (there are: {', '.join(map(str, row))}); "
            "name them in the bake-off file under task.columns, or rename them to prompt and "
            "completion."
        )
    system = next((lower[name] for name in SYSTEM_NAMES if name in lower), None)
    return Columns(prompt=prompt, completion=completion, system=system)


def _first(data: Path) -> Row:
    return next(row for _, row in read(data))


def _relative(data: Path, folder: Path) -> str:
    return os.path.relpath(data.resolve(), folder.resolve())


def _name(data: Path) -> str:
    """The file's stem with what a run's name may hold."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in data.stem)
    return kept.strip("._-")[:60] or "my-data"
