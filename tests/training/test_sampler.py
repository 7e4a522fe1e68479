"""The order of examples: a function of seed and epoch, each example once, grouped as asked."""

from __future__ import annotations

import random

import pytest

from tuneoff.prefix_sharing.tree import count_common_prefix
from tuneoff.training.sampler import ExampleSampler, Grouping, group_by_prefix

RNG = random.Random(0)
SCHEMAS = [[RNG.randrange(50) for _ in range(40)] for _ in range(12)]
IDS = [
    [*SCHEMAS[i % 12], *(RNG.randrange(50) for _ in range(RNG.randint(3, 15)))] for i in range(100)
]
GROUPINGS: tuple[Grouping, ...] = ("random", "by_length", "by_prefix")


def epoch(grouping: Grouping, number: int, seed: int = 0) -> list[int]:
    order = ExampleSampler(IDS, 8, grouping, seed)
    order.set_epoch(number)
    return list(order)


@pytest.mark.parametrize("grouping", GROUPINGS)
def test_each_example_once_and_always_the_same(grouping: Grouping) -> None:
    first = epoch(grouping, 0)
    assert sorted(first) == list(range(100))
    assert first == epoch(grouping, 0)
    assert first != epoch(grouping, 1)
    assert first != epoch(grouping, 0, seed=1)


def batches(order: list[int]) -> list[list[int]]:
    return [order[start : start + 8] for start in range(0, len(order), 8)]


def test_by_length_batches_are_of_similar_length() -> None:
    def spread(order: list[int]) -> float:
        lengths = [[len(IDS[i]) for i in batch] for batch in batches(order)]
        return sum(max(batch) - min(batch) for batch in lengths)

    assert spread(epoch("by_length", 0)) < spread(epoch("random", 0)) / 3


def test_by_prefix_batches_hold_few_schemas() -> None:
    def schemas(order: list[int]) -> float:
        counts = [len({i % 12 for i in batch}) for batch in batches(order)]
        return sum(counts) / len(counts)

    assert schemas(epoch("by_prefix", 0)) <= 5
    assert schemas(epoch("random", 0)) > 5


def test_beginnings_are_the_schemas() -> None:
    groups = group_by_prefix(IDS)
    assert sorted(map(sorted, groups)) == [list(range(i, 100, 12)) for i in range(12)]
    shared = [count_common_prefix(IDS[group[0]], IDS[group[1]]) for group in groups]
    assert min(shared) >= 40
