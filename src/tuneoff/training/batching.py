"""Splits a batch of examples into micro-batches that fit into memory.

A batch is one optimizer step, however it is split: the losses of its micro-batches add up to the
batch's. Micro-batches are prefix trees where the model supports them, else padded rows of similar
length. With several processes each takes a share of them (`balance`): the largest goes first, to
the process with the smallest load. The largest load is at most a third more than the optimum
(Graham 1969). A pure function, so every process gets the same result.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuneoff.prefix_sharing import tree
from tuneoff.prefix_sharing.tree import WeightedSequence
from tuneoff.tokenization.examples import IGNORE_INDEX, EncodedExample

if TYPE_CHECKING:
    import torch

    from tuneoff.prefix_sharing.micro_batch import MicroBatch


def balance(sizes: Sequence[int], ranks: int) -> list[list[int]]:
    """Return the indices of each rank's parts, largest first; a rank may have none."""
    shares: list[list[int]] = [[] for _ in range(ranks)]
    loads = [0] * ranks
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        least = loads.index(min(loads))
        shares[least].append(i)
        loads[least] += sizes[i]
    return shares


# Tokens. Keeping a shorter shared prefix as a node of its own costs more than computing it again.
MIN_SHARED_TOKENS = 8
# Low-precision kernels are compiled for each shape (oneDNN, FlexAttention). Trees are padded to a
# multiple of this number of tokens, so that there are few shapes.
SHAPE_MULTIPLE = 64


@dataclass
class MicroBatcher:
    """Splits batches into micro-batches."""

    device: torch.device
    """Where their tensors are created."""
    trees: bool
    """Whether micro-batches are prefix trees; else padded rows."""
    most_tokens: int
    """Maximum tokens computed in one forward pass."""
    max_examples: int | None = None
    """Maximum examples of one forward pass; None: no limit."""
    multiple: int = 1
    """Trees are padded to a multiple of this number of tokens."""

    def build_micro_batches(
        self, examples: Sequence[EncodedExample], rank: int = 0, ranks: int = 1
    ) -> Iterator[MicroBatch]:
        """Yield the batch's micro-batches, or one rank's share of them, each built on demand.

        All ranks get the same number: a sharded model is computed by all processes together. A rank
        with nothing left computes a micro-batch of weight zero.
        """
        rows = [build_weighted_sequence(example) for example in examples]
        if ranks == 1:
            groups = self._group_rows(rows, self.most_tokens)
            yield from (self._build_micro_batch([rows[i] for i in group]) for group in groups)
            return
        groups = self._group_for_ranks(rows, ranks)
        shares = balance(
            [self._count_computed([rows[i] for i in group]) for group in groups], ranks
        )
        own = shares[rank]
        for number in own:
            yield self._build_micro_batch([rows[i] for i in groups[number]])
        for _ in range(max(map(len, shares)) - len(own)):
            yield self._build_micro_batch([WeightedSequence(rows[0].ids[:1], [0.0])])

    def _build_micro_batch(self, rows: Sequence[WeightedSequence]) -> MicroBatch:
        """Return the micro-batch of these rows."""
        from tuneoff.prefix_sharing.micro_batch import build_padded_batch, build_tree_batch

        if self.trees:
            return build_tree_batch(
                rows, self.device, shortest=MIN_SHARED_TOKENS, multiple=self.multiple
            )
        return build_padded_batch(rows, self.device)

    def _group_rows(self, rows: Sequence[WeightedSequence], most: int) -> list[list[int]]:
        """Return groups of row indices with at most `most` computed tokens each."""
        if self.trees:
            return tree.pack_sequences(rows, most, self.max_examples, MIN_SHARED_TOKENS)
        groups: list[list[int]] = []
        for i in sorted(range(len(rows)), key=lambda i: -len(rows[i].ids)):
            longest = len(rows[groups[-1][0]].ids) if groups else 0
            full = not groups or (len(groups[-1]) + 1) * longest > most
            if full or len(groups[-1]) == self.max_examples:
                groups.append([])
            groups[-1].append(i)
        return groups

    def _group_for_ranks(self, rows: Sequence[WeightedSequence], ranks: int) -> list[list[int]]:
        """Return groups of similar size, at least one per rank if there are enough rows."""
        whole = self._count_computed(rows)
        rounds = math.ceil(whole / (self.most_tokens * ranks))
        most = min(self.most_tokens, math.ceil(whole / (rounds * ranks)))
        groups = self._group_rows(rows, most)
        while len(groups) < ranks and any(len(group) > 1 for group in groups):
            most = most * 3 // 4
            groups = self._group_rows(rows, most)
        return groups

    def _count_computed(self, rows: Sequence[WeightedSequence]) -> int:
        """Return the tokens that these rows compute together."""
        if self.trees:
            return tree.count_tree_tokens(rows, MIN_SHARED_TOKENS)
        return len(rows) * max(len(row.ids) for row in rows)

    def halve(self, examples: Sequence[EncodedExample]) -> bool:
        """Halve the token limit and return True; return False when one example is left."""
        longest = max(len(example.input_ids) for example in examples)
        if len(examples) == 1 or self.most_tokens <= longest:
            return False
        whole = sum(len(example.input_ids) for example in examples)
        self.most_tokens = max(longest, min(self.most_tokens, whole) // 2)
        return True


def build_weighted_sequence(example: EncodedExample) -> WeightedSequence:
    """Return an example with weight 1 for every supervised token, as the prefix tree takes it."""
    return WeightedSequence(
        example.input_ids, [float(label != IGNORE_INDEX) for label in example.labels]
    )
