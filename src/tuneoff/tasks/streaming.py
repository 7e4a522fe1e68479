"""Chat files larger than memory, gone through row by row.

The splits are those that `chat.load` and `task.limit` make: only hashes of the inputs and a
byte a row are held while it is decided which row belongs to which.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tuneoff.config import Columns, Limit, TaskSettings
from tuneoff.errors import ConfigError
from tuneoff.records import SPLITS, Example, Split
from tuneoff.tasks import Place
from tuneoff.tasks.chat import examples_in
from tuneoff.tasks.rows import read
from tuneoff.tasks.splits import carved_size, drawn, input_key

NOT_CHOSEN = 255


@dataclass(frozen=True, slots=True)
class Stream:
    """Examples with their split, in the order of the files; it can be gone through again.
    `codes` has a byte a row of each file: which of `SPLITS` it is in."""

    sizes: Mapping[Split, int]
    files: Mapping[Split, Path]
    codes: Mapping[Split, bytearray]
    columns: Columns | None

    def __iter__(self) -> Iterator[tuple[Split, Example]]:
        for split, file in self.files.items():
            for code, example in zip(
                self.codes[split], examples_in(file, self.columns), strict=True
            ):
                if code != NOT_CHOSEN:
                    yield SPLITS[code], example


def stream(settings: TaskSettings, place: Place) -> Stream:
    """The examples of a chat task's files.

    Raises:
        ConfigError: no `train` file is named.
        DataError: a file or a row of it cannot be used.
    """
    named = {split: getattr(settings, split) for split in SPLITS}
    if named["train"] is None:
        raise ConfigError("task: chat needs train: FILE (and, if you have them, validation, test).")
    files = {split: place.path(file) for split, file in named.items() if file is not None}
    # Two inputs with one hash would stay together: of 64 bits, no million has two.
    keys = array(
        "q", (hash(input_key(each)) for each in examples_in(files["train"], settings.columns))
    )
    members = _carved(keys, [split for split in SPLITS if split not in files], settings.seed)
    for split in files:
        if split != "train":
            members[split] = range(sum(1 for _ in read(files[split])))
    lengths = {split: len(keys if split == "train" else members[split]) for split in files}
    codes = {split: bytearray([NOT_CHOSEN]) * lengths[split] for split in files}
    chosen = {s: _limited(members[s], settings.limit, s, settings.seed) for s in SPLITS}
    for code, split in enumerate(SPLITS):
        for row in chosen[split]:
            codes[split if split in files else "train"][row] = code
    sizes = {split: len(rows) for split, rows in chosen.items()}
    return Stream(sizes, files, codes, settings.columns)


def _carved(keys: Sequence[int], missing: Sequence[Split], seed: int) -> dict[Split, Sequence[int]]:
    """The rows of train, and of the splits that are carved out of it as `chat.load` does."""
    left, count = array("L", range(len(keys))), carved_size(len(keys))
    found: dict[Split, Sequence[int]] = {}
    seeds: dict[Split, int] = {"test": seed, "validation": seed + 1}
    for split in seeds:
        if split not in missing:
            continue
        places = drawn(array("q", (keys[row] for row in left)), count, seeds[split])
        found[split] = [left[place] for place in places]
        inside = set(found[split])
        left = array("L", (row for row in left if row not in inside))
    return found | {"train": left}


def _limited(rows: Sequence[int], limit: Limit, split: Split, seed: int) -> Sequence[int]:
    """The sample that `splits.limited` draws."""
    most = getattr(limit, split)
    if most is None or most >= len(rows):
        return rows
    return random.Random(f"{seed} {split}").sample(rows, most)
