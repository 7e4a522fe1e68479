"""A batch of token sequences as a compressed prefix tree: every shared prefix once.

Examples of one task share a prefix (an instruction, a schema). Here a batch becomes a tree whose
nodes are spans of tokens. A token that several sequences share occurs once, at the position that it
has in each of them. Tokens are in depth-first order: a node's parent comes before it, and its
subtree is one contiguous range:

    sequences   A B C D      nodes   [A B]  positions 0 1
                A B C E                ├── [C] 2 ── [D] 3, [E] 3
                A B F                  └── [F] 2
                             tokens  A B C D E F

A language model's loss is a sum over tokens, each predicted from the one before it. A shared token
is predicted once here and weighs as much as all its copies together. So the loss over the tree is
the loss over the sequences, to rounding. The tree is exact because causal attention makes a token's
state depend on its prefix alone (Hydragen, Juravsky et al. 2024, uses the same for inference). Pure
Python: no model, no tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class WeightedSequence:
    """One sequence of token ids, with the weight of each prediction in the loss."""

    ids: Sequence[int]
    """The token ids."""
    weights: Sequence[float]
    """`weights[i]` is for predicting `ids[i]` from `ids[:i]`; the first weight is ignored."""


@dataclass(frozen=True, slots=True)
class Node:
    """A span of tokens, `tokens[start:end]`."""

    start: int
    end: int
    subtree_end: int
    """The end of the range of all tokens below this node."""
    parent: int
    """The index of the node that this one continues; -1: none."""
    position: int
    """The number of tokens before it in each of its sequences."""


@dataclass(frozen=True, slots=True)
class PrefixTree:
    """A tree of sequences. All lists but `nodes` and `end_nodes` have one entry per token."""

    tokens: list[int]
    positions: list[int]
    weights: list[float]
    """Weights, summed over the sequences that share the token."""
    previous: list[int]
    """The index of the token before it, which predicts it; -1 at a root."""
    nodes: list[Node]
    end_nodes: list[int]
    """The node in which each sequence ends."""

    def __len__(self) -> int:
        return len(self.tokens)

    def path(self, node: int) -> list[int]:
        """Return the nodes from a root down to this one."""
        nodes = []
        while node >= 0:
            nodes.append(node)
            node = self.nodes[node].parent
        return nodes[::-1]

    def sequence(self, index: int) -> list[int]:
        """Return the token ids of the i-th sequence."""
        nodes = (self.nodes[node] for node in self.path(self.end_nodes[index]))
        return [token for node in nodes for token in self.tokens[node.start : node.end]]

    def targets(self) -> tuple[list[int], list[int], list[float]]:
        """Return the targets of the loss in order: places that predict, token ids, weights."""
        chosen = [
            place
            for place, (weight, before) in enumerate(zip(self.weights, self.previous, strict=True))
            if weight != 0 and before >= 0
        ]
        return (
            [self.previous[place] for place in chosen],
            [self.tokens[place] for place in chosen],
            [self.weights[place] for place in chosen],
        )


def count_common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Return the length of the common prefix of two sequences."""
    shorter = min(len(a), len(b))
    low = 0
    # Slices are compared in C: in blocks that double, then token by token inside the last.
    step = 16
    while low < shorter:
        high = min(low + step, shorter)
        if a[low:high] != b[low:high]:
            return low + next(i for i in range(high - low) if a[low + i] != b[low + i])
        low, step = high, step * 2
    return shorter


def build_tree(sequences: Sequence[WeightedSequence], shortest: int = 1) -> PrefixTree:
    """Return the prefix tree of some sequences.

    Args:
        shortest: minimum tokens of a prefix shared by some but not all of a node's sequences.
            Shorter ones are computed for each sequence, which costs little and keeps the tree
            simple.

    Raises:
        ValueError: there is no sequence, an empty one, or one whose weights do not fit.
    """
    _check_sequences(sequences)
    order = sorted(range(len(sequences)), key=lambda i: tuple(sequences[i].ids))
    shared = [count_common_prefix(sequences[a].ids, sequences[b].ids) for a, b in pairwise(order)]
    builder = _TreeBuilder(sequences, shortest)
    return builder.grow(order, shared)


# Sorted sequences with a common continuation, their neighbours' common prefix lengths, the start
# position, the parent node.
_Branch = tuple[Sequence[int], Sequence[int], int, int]


class _TreeBuilder:
    """Builds a prefix tree from sorted sequences."""

    def __init__(self, sequences: Sequence[WeightedSequence], shortest: int) -> None:
        self.sequences, self.shortest = sequences, shortest
        self.tokens: list[int] = []
        self.positions: list[int] = []
        self.weights: list[float] = []
        self.previous: list[int] = []
        self.nodes: list[Node] = []
        self.ends = [-1] * len(sequences)

    def grow(self, order: Sequence[int], shared: Sequence[int]) -> PrefixTree:
        """Return the tree of the sorted sequences `order`.

        `shared[i]` is the common prefix length of the i-th and the next one. It uses a stack
        instead of recursion, for a tree may be deep.
        """
        waiting = self._below(order, shared, 0, -1)
        while waiting:
            group, inside, position, parent = waiting.pop()
            end = min(inside, default=len(self.sequences[group[0]].ids))
            node = self._add(group, position, end, parent)
            # Sequences are sorted, so those that end here come first.
            done = sum(len(self.sequences[i].ids) == end for i in group)
            for i in group[:done]:
                self.ends[i] = node
            waiting += self._below(group[done:], inside[done:], end, node)
        return self._closed()

    def _below(
        self, group: Sequence[int], shared: Sequence[int], position: int, parent: int
    ) -> list[_Branch]:
        """Return the branches of a group, last one first: the first is popped next."""
        branches = [
            (group[first:last], shared[first : last - 1], position, parent)
            for first, last in _split_groups(shared, len(group), position, self.shortest)
        ]
        return branches[::-1]

    def _add(self, group: Sequence[int], position: int, end: int, parent: int) -> int:
        """Append a node with its tokens and return its index."""
        start = len(self.tokens)
        before = self.nodes[parent].end - 1 if parent >= 0 else -1
        self.tokens += self.sequences[group[0]].ids[position:end]
        self.positions += range(position, end)
        self.previous += [before, *range(start, start + end - position - 1)][: end - position]
        summed = zip(*(self.sequences[i].weights[position:end] for i in group), strict=True)
        self.weights += map(sum, summed)
        self.nodes.append(Node(start, start + end - position, -1, parent, position))
        return len(self.nodes) - 1

    def _closed(self) -> PrefixTree:
        """Return the tree, with each node's subtree end: its own end, or its last child's."""
        ends = [node.end for node in self.nodes]
        for index in range(len(self.nodes) - 1, -1, -1):
            parent = self.nodes[index].parent
            if parent >= 0:
                ends[parent] = max(ends[parent], ends[index])
        nodes = [replace(node, subtree_end=end) for node, end in zip(self.nodes, ends, strict=True)]
        return PrefixTree(
            self.tokens, self.positions, self.weights, self.previous, nodes, self.ends
        )


def _split_groups(
    shared: Sequence[int], count: int, position: int, shortest: int
) -> Iterator[tuple[int, int]]:
    """Yield ranges of sorted sequences that continue alike for at least `shortest` tokens."""
    first = 0
    for i in range(count):
        if i == count - 1 or shared[i] < position + shortest:
            yield first, i + 1
            first = i + 1


def _check_sequences(sequences: Sequence[WeightedSequence]) -> None:
    """Raise ValueError if there is no sequence, an empty one, or one with wrong weights."""
    if not sequences:
        raise ValueError("a prefix tree needs at least one sequence")
    for sequence in sequences:
        if not sequence.ids or len(sequence.ids) != len(sequence.weights):
            raise ValueError(
                f"a sequence of {len(sequence.ids)} tokens has {len(sequence.weights)} weights; "
                "it needs at least one token, and a weight for each"
            )


def pad_to_multiple(tree: PrefixTree, multiple: int) -> PrefixTree:
    """Return the tree padded to a multiple of `multiple` tokens, by a separate tree."""
    size = len(tree)
    rest = -size % multiple
    if not rest:
        return tree
    return PrefixTree(
        tree.tokens + [0] * rest,
        tree.positions + list(range(rest)),
        tree.weights + [0.0] * rest,
        [*tree.previous, -1, *range(size, size + rest - 1)],
        [*tree.nodes, Node(size, size + rest, size + rest, -1, 0)],
        tree.end_nodes,
    )


def pack_sequences(
    sequences: Sequence[WeightedSequence],
    most_tokens: int,
    most_sequences: int | None = None,
    shortest: int = 1,
) -> list[list[int]]:
    """Split a batch into groups whose trees have at most `most_tokens` tokens each.

    The trees are built with the same `shortest`. Neighbours in sorted order go together, so that
    little is shared between groups and computed twice. A sequence longer than `most_tokens` is
    alone in its group.

    Returns:
        indices of the sequences of each group.
    """
    _check_sequences(sequences)
    order = sorted(range(len(sequences)), key=lambda i: tuple(sequences[i].ids))
    groups: list[list[int]] = []
    tokens = 0
    for place, i in enumerate(order):
        ids = sequences[i].ids
        new = len(ids)
        if place:
            # `build_tree` keeps a shared prefix only from `shortest` tokens on.
            shared = count_common_prefix(sequences[order[place - 1]].ids, ids)
            new -= max(0, shared - shortest + 1)
        full = most_sequences is not None and groups and len(groups[-1]) == most_sequences
        if not groups or full or tokens + new > most_tokens:
            groups.append([])
            tokens, new = 0, len(ids)
        groups[-1].append(i)
        tokens += new
    return groups


def count_tree_tokens(sequences: Sequence[WeightedSequence], shortest: int = 1) -> int:
    """Return the tokens of the tree of these sequences, or a few more, without building it."""
    ids = sorted(tuple(sequence.ids) for sequence in sequences)
    shared = sum(max(0, count_common_prefix(a, b) - shortest + 1) for a, b in pairwise(ids))
    return sum(map(len, ids)) - shared


def count_tokens(sequences: Iterable[WeightedSequence]) -> int:
    """Return the tokens of the sequences without sharing."""
    return sum(len(sequence.ids) for sequence in sequences)
