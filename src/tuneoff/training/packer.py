"""From a batch of examples to forward passes that fit into memory.

A batch is one optimizer step, however it is cut: each pack gives a part of the batch's
summed loss. Packs are prefix trees where the model can be computed over trees, else padded
rows of similar length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuneoff.models import prefix_tree
from tuneoff.models.prefix_tree import Weighted
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

    def packs(self, examples: Sequence[Encoded]) -> Iterator[Pack]:
        """The batch's packs, each made when it is asked for."""
        from tuneoff.models.packing import padded_pack, tree_pack

        rows = [weighted(example) for example in examples]
        if self.trees:
            groups = prefix_tree.packs(rows, self.most_tokens, self.most_examples, SHORTEST_SHARED)
            for group in groups:
                yield tree_pack(
                    [rows[i] for i in group], self.device,
                    shortest=SHORTEST_SHARED, multiple=self.multiple,
                )  # fmt: skip
            return
        for padded in self._padded(rows):
            yield padded_pack(padded, self.device)

    def _padded(self, rows: Sequence[Weighted]) -> list[list[Weighted]]:
        groups: list[list[Weighted]] = []
        for row in sorted(rows, key=lambda row: -len(row.ids)):
            full = not groups or (len(groups[-1]) + 1) * len(groups[-1][0].ids) > self.most_tokens
            if full or len(groups[-1]) == self.most_examples:
                groups.append([])
            groups[-1].append(row)
        return groups

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
