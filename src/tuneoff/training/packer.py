"""From a batch of examples to forward passes that fit into memory.

A batch is one optimizer step, however it is cut: each pack gives a part of the batch's
summed loss. Packs are prefix trees where the model can be computed over trees, else padded
rows of similar length. Of several processes each takes a share of the packs (`dividing.py`).
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

# A run shared by a few of a batch's examples costs more to keep apart than to compute again
# when it is shorter than this (tokens).
SHORTEST_SHARED = 8
# Kernels in lower precision are prepared for each shape anew (oneDNN, FlexAttention): trees
# are filled up to a multiple of this many tokens, so that there are few.
FEW_SHAPES = 64


@dataclass
class Packer:
    """How batches are cut. `most_tokens` counts computed tokens of one forward pass,
    `most_examples` its examples (None: no limit). `multiple`: trees are filled up to one."""

    device: torch.device
    trees: bool
    most_tokens: int
    most_examples: int | None = None
    multiple: int = 1

    def packs(self, examples: Sequence[Encoded], rank: int = 0, ranks: int = 1) -> Iterator[Pack]:
        """The batch's packs, each made when it is asked for; of several `ranks` the share of one.

        All shares have as many packs: where there is nothing left to do, one that weighs nothing,
        for a model that is divided over processes is computed by all of them at once.
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
        from tuneoff.models.packing import padded_pack, tree_pack

        if self.trees:
            return tree_pack(rows, self.device, shortest=SHORTEST_SHARED, multiple=self.multiple)
        return padded_pack(rows, self.device)

    def _cut(self, rows: Sequence[Weighted], most: int) -> list[list[int]]:
        """Groups of at most `most` computed tokens each, as indices of rows."""
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
        """Groups of about equal size, at least one for each of `ranks` if there are enough rows."""
        whole = self._computed(rows)
        rounds = math.ceil(whole / (self.most_tokens * ranks))
        most = min(self.most_tokens, math.ceil(whole / (rounds * ranks)))
        groups = self._cut(rows, most)
        while len(groups) < ranks and any(len(group) > 1 for group in groups):
            most = most * 3 // 4
            groups = self._cut(rows, most)
        return groups

    def _computed(self, rows: Sequence[Weighted]) -> int:
        if self.trees:
            return prefix_tree.computed_tokens(rows, SHORTEST_SHARED)
        return len(rows) * max(len(row.ids) for row in rows)

    def halve(self, examples: Sequence[Encoded]) -> bool:
        """Lowers how much is computed at once; False when one example alone is left."""
        longest = max(len(example.input_ids) for example in examples)
        if len(examples) == 1 or self.most_tokens <= longest:
            return False
        whole = sum(len(example.input_ids) for example in examples)
        self.most_tokens = max(longest, min(self.most_tokens, whole) // 2)
        return True


def weighted(example: Encoded) -> Weighted:
    """An example as the tree takes it: weight 1 for every token that is learned."""
    return Weighted(example.input_ids, [float(label != IGNORED) for label in example.labels])
