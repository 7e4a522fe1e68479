"""Streams chat files that are larger than memory.

The splits are the same as those of `chat.load` and `task.limit`. While rows are assigned to splits,
memory holds only a hash of each input and one byte per row.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tuneoff.config.base import Columns, Limit
from tuneoff.config.schema import TaskConfig
from tuneoff.errors import ConfigError
from tuneoff.records import SPLITS, Example, Split
from tuneoff.tasks.base import DataPaths
from tuneoff.tasks.chat import iterate_examples, warn_chosen_columns
from tuneoff.tasks.splits import (
    build_input_key,
    compute_carved_size,
    describe_dropped,
    draw_ranked_indices,
)
from tuneoff.tasks.text_lines import Warn

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NOT_CHOSEN = 255


@dataclass(frozen=True, slots=True)
class ExampleStream:
    """Examples with their split, in the order of the files. It can be iterated again."""

    sizes: Mapping[Split, int]
    """The number of examples of each split."""
    files: Mapping[Split, Path]
    """The file of each split that has one."""
    codes: Mapping[Split, bytearray]
    """One byte per row of each file: the index of its split in `SPLITS`, or `NOT_CHOSEN`."""
    columns: Columns | None
    """The columns of the files, if they are named."""

    def __iter__(self) -> Iterator[tuple[Split, Example]]:
        for split, file in self.files.items():
            for code, example in zip(
                self.codes[split], iterate_examples(file, self.columns), strict=True
            ):
                if code != NOT_CHOSEN:
                    yield SPLITS[code], example


def open_stream(settings: TaskConfig, place: DataPaths) -> ExampleStream:
    """Return a stream over the examples of a chat task's files.

    Raises:
        ConfigError: no `train` file is named.
        DataError: a file or one of its rows cannot be used.
    """
    named = {split: getattr(settings, split) for split in SPLITS}
    if named["train"] is None:
        raise ConfigError("task: chat needs train: FILE (and, if you have them, validation, test).")
    files = {split: place.path(file) for split, file in named.items() if file is not None}
    for file in files.values():
        warn_chosen_columns(file, settings.columns, place.warn)
    # Inputs with equal hashes stay together. In a million 64-bit hashes a collision is unlikely.
    keys = {
        split: array(
            "q",
            (
                hash(build_input_key(example))
                for example in iterate_examples(file, settings.columns, place.warn)
            ),
        )
        for split, file in files.items()
    }
    missing = [split for split in SPLITS if split not in files]
    members = _carve_rows(keys["train"], missing, settings.seed)
    for split in files:
        if split != "train":
            members[split] = range(len(keys[split]))
    if settings.drop_overlap and settings.splits != "seed":
        members = _drop_overlap(members, keys, place.warn)
    codes = {split: bytearray([NOT_CHOSEN]) * len(keys[split]) for split in files}
    chosen = {s: _sample_rows(members[s], settings.limit, s, settings.seed) for s in SPLITS}
    for code, split in enumerate(SPLITS):
        for row in chosen[split]:
            codes[split if split in files else "train"][row] = code
    sizes = {split: len(rows) for split, rows in chosen.items()}
    return ExampleStream(sizes, files, codes, settings.columns)


def _drop_overlap(
    members: Mapping[Split, Sequence[int]], keys: Mapping[Split, Sequence[int]], warn: Warn
) -> dict[Split, Sequence[int]]:
    """Return the rows that `splits.drop_overlap` keeps, and warn how many it drops."""
    kept: dict[Split, Sequence[int]] = {}
    later: set[int] = set()
    for split in reversed(SPLITS):
        own = keys.get(split, keys["train"])
        kept[split] = [row for row in members[split] if own[row] not in later]
        if split != "train":
            later.update(own[row] for row in members[split])
    dropped = {split: len(members[split]) - len(kept[split]) for split in SPLITS}
    for line in describe_dropped(dropped):
        warn(line)
    return kept


def _carve_rows(
    keys: Sequence[int], missing: Sequence[Split], seed: int
) -> dict[Split, Sequence[int]]:
    """Return the rows of train and of the splits carved out of it.

    They are carved as `chat.load` does.
    """
    import numpy as np

    of, left, count = np.asarray(keys), np.arange(len(keys)), compute_carved_size(len(keys))
    carved: dict[Split, Sequence[int]] = {}
    seeds: dict[Split, int] = {"test": seed, "validation": seed + 1}
    for split in seeds:
        if split in missing:
            places = draw_ranked_indices(_rank_keys(of[left]), count, seeds[split])
            carved[split] = left[places].tolist()
            left = np.delete(left, places)
    return carved | {"train": array("L", left.astype("L").tobytes())}


def _rank_keys(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return each key's number, in order of first appearance.

    Uses arrays: a dict of a million keys would need more memory than everything else.
    """
    import numpy as np

    _, first, of = np.unique(keys, return_index=True, return_inverse=True)
    number = np.empty(len(first), dtype=np.int64)
    number[np.argsort(first)] = np.arange(len(first))
    return number[of]


def _sample_rows(rows: Sequence[int], limit: Limit, split: Split, seed: int) -> Sequence[int]:
    """Return the sample that `splits.apply_limits` draws."""
    most = getattr(limit, split)
    if most is None or most >= len(rows):
        return rows
    return random.Random(f"{seed} {split}").sample(rows, most)
