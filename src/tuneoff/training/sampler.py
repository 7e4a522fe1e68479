"""The order of training examples: a pure function of seed and epoch.

So a resumed training sees exactly the examples that an uninterrupted one would. Every grouping uses
each example once per epoch:

- random: shuffled.
- by_length: batches of examples of similar length (transformers' own grouping: sorted
  inside random blocks of 50 batches), the batches in random order.
- by_prefix: batches with few shared prefixes (few databases): chunks of examples with one
  prefix, a quarter of a batch long, in random order. Fewer tokens are computed, and batches
  are less mixed; `docs/LOG.md` has the effect on validation loss.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Literal

from torch.utils.data import Sampler

from tuneoff.prefix_sharing.tree import count_common_prefix

Grouping = Literal["random", "by_length", "by_prefix"]
BLOCK_BATCHES = 50
CHUNKS_PER_BATCH = 4


class ExampleSampler(Sampler[int]):
    """Yields the example indices of one epoch; accelerate's data loader calls `set_epoch`."""

    def __init__(
        self, ids: Sequence[Sequence[int]], batch_size: int, grouping: Grouping, seed: int
    ) -> None:
        self.ids, self.batch_size, self.grouping, self.seed = ids, batch_size, grouping, seed
        self.epoch = 0
        self._groups = group_by_prefix(ids) if grouping == "by_prefix" else []

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[int]:
        # A text seed is hashed the same in every process and Python.
        rng = random.Random(f"{self.seed}/{self.epoch}")
        if self.grouping == "by_prefix":
            return iter(
                _shuffle_chunks(self._groups, max(1, self.batch_size // CHUNKS_PER_BATCH), rng)
            )
        order = list(range(len(self.ids)))
        rng.shuffle(order)
        if self.grouping == "by_length":
            order = _sort_by_length(order, self.ids, self.batch_size, rng)
        return iter(order)


def group_by_prefix(ids: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return groups of examples that share a long prefix.

    In sorted order, neighbours in a group share more than half of the shorter one's tokens:
    questions on one database, whose schema is most of each.
    """
    order = sorted(range(len(ids)), key=lambda i: tuple(ids[i]))
    groups: list[list[int]] = []
    for place, i in enumerate(order):
        before = ids[order[place - 1]] if place else ()
        if not place or 2 * count_common_prefix(before, ids[i]) < min(len(before), len(ids[i])):
            groups.append([])
        groups[-1].append(i)
    return groups


def _shuffle_chunks(groups: Sequence[Sequence[int]], length: int, rng: random.Random) -> list[int]:
    """Return all indices: each group shuffled and cut into chunks, the chunks in random order."""
    chunks = []
    for group in groups:
        mixed = rng.sample(group, len(group))
        chunks += [mixed[start : start + length] for start in range(0, len(mixed), length)]
    rng.shuffle(chunks)
    return [index for chunk in chunks for index in chunk]


def _sort_by_length(
    order: Sequence[int], ids: Sequence[Sequence[int]], batch_size: int, rng: random.Random
) -> list[int]:
    """Return the order with examples of similar length in one batch."""
    block = BLOCK_BATCHES * batch_size
    ordered: list[int] = []
    for start in range(0, len(order), block):
        ordered += sorted(order[start : start + block], key=lambda i: -len(ids[i]))
    whole = len(ordered) // batch_size * batch_size
    batches = [ordered[start : start + batch_size] for start in range(0, whole, batch_size)]
    rng.shuffle(batches)
    # An incomplete batch must stay last: the training loop makes the last batch the smaller one.
    return [index for batch in batches for index in batch] + ordered[whole:]
