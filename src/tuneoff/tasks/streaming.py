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
from typing import TYPE_CHECKING

from tuneoff.config import TaskSettings
from tuneoff.errors import ConfigError
from tuneoff.records import SPLITS, Example, Split
from tuneoff.settings import Columns, Limit
from tuneoff.tasks import Place
from tuneoff.tasks.chat import examples_in, say_chosen_columns
from tuneoff.tasks.splits import carved_size, drawn_ranks, dropped_lines, input_key
from tuneoff.tasks.text_lines import Warn

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

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
    for file in files.values():
        say_chosen_columns(file, settings.columns, place.warn)
    # Two inputs with one hash would stay together: of 64 bits, no million has two.
    keys = {
        split: array(
            "q",
            (hash(input_key(each)) for each in examples_in(file, settings.columns, place.warn)),
        )
        for split, file in files.items()
    }
    missing = [split for split in SPLITS if split not in files]
    members = _carved(keys["train"], missing, settings.seed)
    for split in files:
        if split != "train":
            members[split] = range(len(keys[split]))
    if settings.drop_overlap and settings.splits != "seed":
        members = _without_overlap(members, keys, place.warn)
    codes = {split: bytearray([NOT_CHOSEN]) * len(keys[split]) for split in files}
    chosen = {s: _limited(members[s], settings.limit, s, settings.seed) for s in SPLITS}
    for code, split in enumerate(SPLITS):
        for row in chosen[split]:
            codes[split if split in files else "train"][row] = code
    sizes = {split: len(rows) for split, rows in chosen.items()}
    return Stream(sizes, files, codes, settings.columns)


def _without_overlap(
    members: Mapping[Split, Sequence[int]], keys: Mapping[Split, Sequence[int]], warn: Warn
) -> dict[Split, Sequence[int]]:
    """Return the rows that `splits.drop_overlap` keeps, and say how many it does not."""
    kept: dict[Split, Sequence[int]] = {}
    later: set[int] = set()
    for split in reversed(SPLITS):
        own = keys.get(split, keys["train"])
        kept[split] = [row for row in members[split] if own[row] not in later]
        if split != "train":
            later.update(own[row] for row in members[split])
    dropped = {split: len(members[split]) - len(kept[split]) for split in SPLITS}
    for line in dropped_lines(dropped):
        warn(line)
    return kept


def _carved(keys: Sequence[int], missing: Sequence[Split], seed: int) -> dict[Split, Sequence[int]]:
    """The rows of train, and of the splits that are carved out of it as `chat.load` does."""
    import numpy as np

    of, left, count = np.asarray(keys), np.arange(len(keys)), carved_size(len(keys))
    found: dict[Split, Sequence[int]] = {}
    seeds: dict[Split, int] = {"test": seed, "validation": seed + 1}
    for split in seeds:
        if split in missing:
            places = drawn_ranks(_ranks(of[left]), count, seeds[split])
            found[split] = left[places].tolist()
            left = np.delete(left, places)
    return found | {"train": array("L", left.astype("L").tobytes())}


def _ranks(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each key's number, in the order in which they first appear: arrays, for a dict of a
    million keys takes more memory than all else."""
    import numpy as np

    _, first, of = np.unique(keys, return_index=True, return_inverse=True)
    number = np.empty(len(first), dtype=np.int64)
    number[np.argsort(first)] = np.arange(len(first))
    return number[of]


def _limited(rows: Sequence[int], limit: Limit, split: Split, seed: int) -> Sequence[int]:
    """The sample that `splits.limited` draws."""
    most = getattr(limit, split)
    if most is None or most >= len(rows):
        return rows
    return random.Random(f"{seed} {split}").sample(rows, most)
