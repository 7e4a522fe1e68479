"""How a batch is cut: trees or padded rows, within what fits, smaller when memory runs out."""

from __future__ import annotations

import pytest
import torch

from tuneoff.tokenization.examples import IGNORE_INDEX, EncodedExample
from tuneoff.training.batching import MicroBatcher

CPU = torch.device("cpu")
START = tuple(range(20))
EXAMPLES = [
    EncodedExample((*START, *range(30, 30 + n)), (*[IGNORE_INDEX] * 20, *range(30, 30 + n)))
    for n in (3, 9, 5, 12, 7, 4)
]
SUPERVISED = 3 + 9 + 5 + 12 + 7 + 4


@pytest.mark.parametrize("trees", [True, False])
@pytest.mark.parametrize("most", [32, 60, 10_000])
def test_every_supervised_token_is_in_one_pack(trees: bool, most: int) -> None:
    packs = list(MicroBatcher(CPU, trees, most).build_micro_batches(EXAMPLES))
    assert sum(float(pack.weights.sum()) for pack in packs) == SUPERVISED
    assert sum(pack.unshared for pack in packs) == sum(len(e.input_ids) for e in EXAMPLES)
    assert all(pack.tokens <= most for pack in packs)


def test_a_tree_computes_the_beginning_once() -> None:
    (tree,) = MicroBatcher(CPU, True, 10_000).build_micro_batches(EXAMPLES)
    (padded,) = MicroBatcher(CPU, False, 10_000).build_micro_batches(EXAMPLES)
    assert tree.tokens <= 20 + SUPERVISED
    assert padded.tokens == 6 * 32


def test_micro_batch_size_bounds_the_examples() -> None:
    assert (
        len(list(MicroBatcher(CPU, True, 10_000, max_examples=2).build_micro_batches(EXAMPLES)))
        == 3
    )
    assert (
        len(list(MicroBatcher(CPU, False, 10_000, max_examples=2).build_micro_batches(EXAMPLES)))
        == 3
    )


def test_halving_ends_at_single_examples() -> None:
    packer = MicroBatcher(CPU, True, 10_000)
    sizes = []
    while packer.halve(EXAMPLES):
        sizes.append(packer.most_tokens)
    assert sizes == [80, 40, 32]
    assert not packer.halve(EXAMPLES[:1])
