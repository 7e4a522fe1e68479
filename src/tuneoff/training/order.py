"""In which order examples are trained on: a pure function of seed and epoch.

So a resumed training sees exactly the rows that the uninterrupted one would have seen.
Every grouping keeps each example once an epoch:

- random: shuffled.
- by_length: batches of examples of similar length (as transformers' own grouping: sorted
  inside random blocks of 50 batches), the batches in random order.
- by_prefix: batches over few shared beginnings (few databases): runs of examples with one
  beginning, a quarter of a batch long, in random order. Fewer tokens are computed, and
  batches are less mixed; `docs/LOG.md` has what that does to validation loss.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Literal

from torch.utils.data import Sampler

from tuneoff.models.prefix_tree import common_prefix

Grouping = Literal["random", "by_length", "by_prefix"]
BLOCK_BATCHES = 50
RUNS_PER_BATCH = 4


class ExampleOrder(Sampler[int]):
    """Indices of one epoch; `set_epoch` is what accelerate's data loader calls."""

    def __init__(
        self, ids: Sequence[Sequence[int]], batch_size: int, grouping: Grouping, seed: int
    ) -> None:
        self.ids, self.batch_size, self.grouping, self.seed = ids, batch_size, grouping, seed
        self.epoch = 0
        self._groups = beginnings(ids) if grouping == "by_prefix" else []

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[int]:
        # A text seed is hashed the same in every process and Python.
        rng = random.Random(f"{self.seed}/{self.epoch}")
        if self.grouping == "by_prefix":
            return iter(_runs(self._groups, max(1, self.batch_size // RUNS_PER_BATCH), rng))
        order = list(range(len(self.ids)))
        rng.shuffle(order)
        if self.grouping == "by_length":
            order = _similar_lengths(order, self.ids, self.batch_size, rng)
        return iter(order)


def beginnings(ids: Sequence[Sequence[int]]) -> list[list[int]]:
    """Groups of examples that share more than half of their tokens with a neighbour, when
    sorted: questions on one database, whose schema is most of each."""
    order = sorted(range(len(ids)), key=lambda i: tuple(ids[i]))
    groups: list[list[int]] = []
    for place, i in enumerate(order):
        before = ids[order[place - 1]] if place else ()
        if not place or 2 * common_prefix(before, ids[i]) < min(len(before), len(ids[i])):
            groups.append([])
        groups[-1].append(i)
    return groups


def _runs(groups: Sequence[Sequence[int]], length: int, rng: random.Random) -> list[int]:
    """Each group shuffled and cut into runs, the runs in random order."""
    runs = []
    for group in groups:
        mixed = rng.sample(group, len(group))
        runs += [mixed[start : start + length] for start in range(0, len(mixed), length)]
    rng.shuffle(runs)
    return [index for run in runs for index in run]


def _similar_lengths(
    order: Sequence[int], ids: Sequence[Sequence[int]], batch_size: int, rng: random.Random
) -> list[int]:
    block = BLOCK_BATCHES * batch_size
    ordered: list[int] = []
    for start in range(0, len(order), block):
        ordered += sorted(order[start : start + block], key=lambda i: -len(ids[i]))
    whole = len(ordered) // batch_size * batch_size
    batches = [ordered[start : start + batch_size] for start in range(0, whole, batch_size)]
    rng.shuffle(batches)
    # The last, smaller batch stays last: there it is the one that the loop makes smaller.
    return [index for batch in batches for index in batch] + ordered[whole:]
