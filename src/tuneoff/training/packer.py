"""Splits a batch of examples into micro-batches that fit into memory.

A batch is one optimizer step, however it is split: the losses of its micro-batches add up to the
batch's. Micro-batches are prefix trees where the model supports them, else padded rows of similar
length. With several processes each takes a share of them (`dividing.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuneoff.models import prefix_tree
from tuneoff.models.prefix_tree import Weighted
from tuneoff.training.dividing import divided
from tuneoff.training.encoding import IGNORED, Encoded

if TYPE_CHECKING:
    import torch

    from tuneoff.models.packing import Pack

# Tokens. Keeping a shorter shared prefix as a node of its own costs more than computing it again.
SHORTEST_SHARED = 8
# Low-precision kernels are compiled for each shape (oneDNN, FlexAttention). Trees are padded to a
# multiple of this number of tokens, so that there are few shapes.
FEW_SHAPES = 64


@dataclass
class Packer:
    """Splits batches into micro-batches."""

    device: torch.device
    """Where their tensors are created."""
    trees: bool
    """Whether micro-batches are prefix trees; else padded rows."""
    most_tokens: int
    """Maximum tokens computed in one forward pass."""
    most_examples: int | None = None
    """Maximum examples of one forward pass; None: no limit."""
    multiple: int = 1
    """Trees are padded to a multiple of this number of tokens."""

    def packs(self, examples: Sequence[Encoded], rank: int = 0, ranks: int = 1) -> Iterator[Pack]:
        """Yield the batch's micro-batches, or one rank's share of them, each built on demand.

        All ranks get the same number: a sharded model is computed by all processes together. A rank
        with nothing left computes a micro-batch of weight zero.
        """
        rows = [weighted(example) for example in examples]
        if ranks == 1:
            groups = self._cut(rows, self.most_tokens)
            yield from (self._pack([rows[i] for i in group]) for group in groups)
            return
        groups = self._cut_finely(rows, ranks)
        shares = divided([self._computed([rows[i] for i in group]) for group in groups], ranks)
        own = shares[rank]
        for number in own:
            yield self._pack([rows[i] for i in groups[number]])
        for _ in range(max(map(len, shares)) - len(own)):
            yield self._pack([Weighted(rows[0].ids[:1], [0.0])])

    def _pack(self, rows: Sequence[Weighted]) -> Pack:
        """Return the micro-batch of these rows."""
        from tuneoff.models.packing import padded_pack, tree_pack

        if self.trees:
            return tree_pack(rows, self.device, shortest=SHORTEST_SHARED, multiple=self.multiple)
        return padded_pack(rows, self.device)

    def _cut(self, rows: Sequence[Weighted], most: int) -> list[list[int]]:
        """Return groups of row indices with at most `most` computed tokens each."""
        if self.trees:
            return prefix_tree.packs(rows, most, self.most_examples, SHORTEST_SHARED)
        groups: list[list[int]] = []
        for i in sorted(range(len(rows)), key=lambda i: -len(rows[i].ids)):
            longest = len(rows[groups[-1][0]].ids) if groups else 0
            full = not groups or (len(groups[-1]) + 1) * longest > most
            if full or len(groups[-1]) == self.most_examples:
                groups.append([])
            groups[-1].append(i)
        return groups

    def _cut_finely(self, rows: Sequence[Weighted], ranks: int) -> list[list[int]]:
        """Return groups of similar size, at least one per rank if there are enough rows."""
        whole = self._computed(rows)
        rounds = math.ceil(whole / (self.most_tokens * ranks))
        most = min(self.most_tokens, math.ceil(whole / (rounds * ranks)))
        groups = self._cut(rows, most)
        while len(groups) < ranks and any(len(group) > 1 for group in groups):
            most = most * 3 // 4
            groups = self._cut(rows, most)
        return groups

    def _computed(self, rows: Sequence[Weighted]) -> int:
        """Return the tokens that these rows compute together."""
        if self.trees:
            return prefix_tree.computed_tokens(rows, SHORTEST_SHARED)
        return len(rows) * max(len(row.ids) for row in rows)

    def halve(self, examples: Sequence[Encoded]) -> bool:
        """Halve the token limit and return True; return False when one example is left."""
        longest = max(len(example.input_ids) for example in examples)
        if len(examples) == 1 or self.most_tokens <= longest:
            return False
        whole = sum(len(example.input_ids) for example in examples)
        self.most_tokens = max(longest, min(self.most_tokens, whole) // 2)
        return True


def weighted(example: Encoded) -> Weighted:
    """Return an example with weight 1 for every supervised token, as the prefix tree takes it."""
    return Weighted(example.input_ids, [float(label != IGNORED) for label in example.labels])
