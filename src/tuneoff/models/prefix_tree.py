"""A batch of token sequences as a compressed prefix tree: every shared prefix once.

Examples of one task begin alike (an instruction, a schema). Here a batch becomes a tree
whose nodes are runs of tokens; a token that several sequences share stands in it once, at
the position it has in each of them. Tokens lie in depth-first order, so that a node's
parent comes before it and everything below a node is one contiguous range:

    sequences   A B C D      nodes   [A B]  positions 0 1
                A B C E                ├── [C] 2 ── [D] 3, [E] 3
                A B F                  └── [F] 2
                             tokens  A B C D E F

A language model's loss is a sum over tokens, each predicted from the one before it. A
shared token is predicted once here and weighs as much as all its copies together, so the
loss over the tree is the loss over the sequences, to rounding. Pure Python: no model, no
tensors. The batch is a tree because causal attention makes a token's state depend on its
prefix alone (Hydragen, Juravsky et al. 2024, uses the same for answering).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Weighted:
    """One sequence: token ids, and how much predicting each token weighs in the loss.

    `weights[i]` belongs to `ids[i]`, which is predicted from `ids[:i]`; the first token
    has nothing before it, so its weight counts for nothing.
    """

    ids: Sequence[int]
    weights: Sequence[float]


@dataclass(frozen=True, slots=True)
class Node:
    """A run of tokens, `tokens[start:end]`; `subtree_end` ends the range of all below it.

    `parent` is the index of the node that this one continues (-1: none), `position` how
    many tokens stand before it in each of its sequences.
    """

    start: int
    end: int
    subtree_end: int
    parent: int
    position: int


@dataclass(frozen=True, slots=True)
class PrefixTree:
    """A tree of sequences. Every list but `nodes` and `ends` has one entry a token.

    `weights` are summed over the sequences that share the token; `previous` is the place
    of the token before it (-1 at a root), which is where it is predicted. `ends[i]` is the
    node in which the i-th sequence ends.
    """

    tokens: list[int]
    positions: list[int]
    weights: list[float]
    previous: list[int]
    nodes: list[Node]
    ends: list[int]

    def __len__(self) -> int:
        return len(self.tokens)

    def path(self, node: int) -> list[int]:
        """Nodes from a root down to this one."""
        found = []
        while node >= 0:
            found.append(node)
            node = self.nodes[node].parent
        return found[::-1]

    def sequence(self, index: int) -> list[int]:
        """The token ids of the i-th sequence."""
        nodes = (self.nodes[node] for node in self.path(self.ends[index]))
        return [token for node in nodes for token in self.tokens[node.start : node.end]]

    def targets(self) -> tuple[list[int], list[int], list[float]]:
        """What the loss is taken over: (place that predicts, token id, weight), in order."""
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


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two sequences have in common from their start."""
    shorter = min(len(a), len(b))
    low = 0
    # Whole slices are compared in C: doubling blocks first, then halving inside the last.
    step = 16
    while low < shorter:
        high = min(low + step, shorter)
        if a[low:high] != b[low:high]:
            return low + next(i for i in range(high - low) if a[low + i] != b[low + i])
        low, step = high, step * 2
    return shorter


def build(sequences: Sequence[Weighted], shortest: int = 1) -> PrefixTree:
    """The prefix tree of some sequences.

    Args:
        shortest: a run shared by some but not all of a node's sequences is only shared when
            it has as many tokens; shorter ones are computed for each, which costs little and
            keeps the tree simple.

    Raises:
        ValueError: there is no sequence, an empty one, or one whose weights do not fit.
    """
    _check(sequences)
    order = sorted(range(len(sequences)), key=lambda i: tuple(sequences[i].ids))
    shared = [common_prefix(sequences[a].ids, sequences[b].ids) for a, b in pairwise(order)]
    builder = _Builder(sequences, shortest)
    return builder.grow(order, shared)


# Sorted sequences that go on alike, what neighbours have in common, from where, below whom.
_Branch = tuple[Sequence[int], Sequence[int], int, int]


class _Builder:
    def __init__(self, sequences: Sequence[Weighted], shortest: int) -> None:
        self.sequences, self.shortest = sequences, shortest
        self.tokens: list[int] = []
        self.positions: list[int] = []
        self.weights: list[float] = []
        self.previous: list[int] = []
        self.nodes: list[Node] = []
        self.ends = [-1] * len(sequences)

    def grow(self, order: Sequence[int], shared: Sequence[int]) -> PrefixTree:
        """The tree of the sorted sequences `order`; `shared[i]` is what the i-th and the next
        one have in common. A stack instead of recursion, for a tree may be deep."""
        waiting = self._below(order, shared, 0, -1)
        while waiting:
            group, inside, position, parent = waiting.pop()
            end = min(inside, default=len(self.sequences[group[0]].ids))
            node = self._add(group, position, end, parent)
            # Sorted, so those that end here come first.
            done = sum(len(self.sequences[i].ids) == end for i in group)
            for i in group[:done]:
                self.ends[i] = node
            waiting += self._below(group[done:], inside[done:], end, node)
        return self._closed()

    def _below(
        self, group: Sequence[int], shared: Sequence[int], position: int, parent: int
    ) -> list[_Branch]:
        """The branches of a group, last one first: the first is taken off the stack next."""
        branches = [
            (group[first:last], shared[first : last - 1], position, parent)
            for first, last in _groups(shared, len(group), position, self.shortest)
        ]
        return branches[::-1]

    def _add(self, group: Sequence[int], position: int, end: int, parent: int) -> int:
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
        """Notes where everything below a node ends: its own end, or its last child's."""
        ends = [node.end for node in self.nodes]
        for index in range(len(self.nodes) - 1, -1, -1):
            parent = self.nodes[index].parent
            if parent >= 0:
                ends[parent] = max(ends[parent], ends[index])
        nodes = [replace(node, subtree_end=end) for node, end in zip(self.nodes, ends, strict=True)]
        return PrefixTree(
            self.tokens, self.positions, self.weights, self.previous, nodes, self.ends
        )


def _groups(
    shared: Sequence[int], count: int, position: int, shortest: int
) -> Iterator[tuple[int, int]]:
    """Ranges of sorted sequences that go on alike for at least `shortest` tokens."""
    first = 0
    for i in range(count):
        if i == count - 1 or shared[i] < position + shortest:
            yield first, i + 1
            first = i + 1


def _check(sequences: Sequence[Weighted]) -> None:
    if not sequences:
        raise ValueError("a prefix tree needs at least one sequence")
    for sequence in sequences:
        if not sequence.ids or len(sequence.ids) != len(sequence.weights):
            raise ValueError(
                f"a sequence of {len(sequence.ids)} tokens has {len(sequence.weights)} weights; "
                "it needs at least one token, and a weight for each"
            )


def filled(tree: PrefixTree, multiple: int) -> PrefixTree:
    """The tree with tokens added, in a tree of their own, up to a multiple of `multiple`."""
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
        tree.ends,
    )


def packs(
    sequences: Sequence[Weighted],
    most_tokens: int,
    most_sequences: int | None = None,
    shortest: int = 1,
) -> list[list[int]]:
    """Cuts a batch into groups whose trees (`build` with the same `shortest`) have at most
    `most_tokens` tokens each.

    Neighbours in sorted order go together, so that little is shared between groups and
    computed twice. A sequence longer than `most_tokens` is alone in its group.

    Returns:
        indices of the sequences of each group.
    """
    _check(sequences)
    order = sorted(range(len(sequences)), key=lambda i: tuple(sequences[i].ids))
    found: list[list[int]] = []
    tokens = 0
    for place, i in enumerate(order):
        ids = sequences[i].ids
        new = len(ids)
        if place:
            # What is left of a shared beginning that `build` does not keep apart.
            shared = common_prefix(sequences[order[place - 1]].ids, ids)
            new -= max(0, shared - shortest + 1)
        full = most_sequences is not None and found and len(found[-1]) == most_sequences
        if not found or full or tokens + new > most_tokens:
            found.append([])
            tokens, new = 0, len(ids)
        found[-1].append(i)
        tokens += new
    return found


def computed_tokens(sequences: Sequence[Weighted], shortest: int = 1) -> int:
    """Tokens of the tree that `build` would make, or a few more, without making it."""
    ids = sorted(tuple(sequence.ids) for sequence in sequences)
    shared = sum(max(0, common_prefix(a, b) - shortest + 1) for a, b in pairwise(ids))
    return sum(map(len, ids)) - shared


def tokens_of(sequences: Iterable[Weighted]) -> int:
    """Tokens of the sequences one by one, without any sharing."""
    return sum(len(sequence.ids) for sequence in sequences)
