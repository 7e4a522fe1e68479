"""Finds the prefixes that prompts share, and selects those worth computing once.

Prompts of one task share a prefix: an instruction, shots, a schema. `group_prompts` turns them into
shared prefixes (a forest: a prefix may continue another) and rows (a prompt's own tokens). Every
shared prefix costs a forward pass of its own and some small operations a step. So only those that
save `MIN_SAVED_TOKENS` tokens are kept; shorter ones are computed for each prompt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tuneoff.prefix_sharing.tree import WeightedSequence, build_tree

MIN_SAVED_TOKENS = 512
MIN_PREFIX_TOKENS = 8


@dataclass(frozen=True, slots=True)
class SharedPrefix:
    """A token span that several prompts share."""

    tokens: list[int]
    position: int
    """Its position in each of these prompts."""
    path: tuple[int, ...]
    """The indices of the prefixes before it, and its own."""
    user_count: int
    """The number of prompts that share it."""
    adapter: str | None = None
    """The adapter that computes it; None: the base, or the only adapter."""


@dataclass(frozen=True, slots=True)
class SequenceSlot:
    """One prompt: the shared prefixes that it begins with, and its own tokens."""

    prompt: int
    """The index of the prompt."""
    path: tuple[int, ...]
    """The indices of its shared prefixes, in order."""
    position: int
    """The number of tokens in these prefixes."""
    own_tokens: list[int]
    """The tokens after them: at least the prompt's last token, for its logits start the answer."""
    adapter: str | None = None
    """The adapter that computes it; None: the base, or the only adapter."""


def group_prompts(
    prompts: Sequence[Sequence[int]], least_saved: int = MIN_SAVED_TOKENS
) -> tuple[list[SharedPrefix], list[SequenceSlot]]:
    """Return shared prefixes, parents first, and rows, sorted by their prefix.

    Among the rows of one prefix the longest come first: rows are padded to each other, and the
    longest should not start last.
    """
    prefixes, ends = _find_prefixes(prompts, least_saved)
    rows = []
    for index, prompt in enumerate(prompts):
        path = ends[index]
        position = prefixes[path[-1]].position + len(prefixes[path[-1]].tokens) if path else 0
        rows.append(SequenceSlot(index, path, position, list(prompt[position:])))
    rows.sort(key=lambda row: (row.path[-1] if row.path else -1, -len(row.own_tokens)))
    return prefixes, rows


def _find_prefixes(
    prompts: Sequence[Sequence[int]], least_saved: int
) -> tuple[list[SharedPrefix], list[tuple[int, ...]]]:
    """Return the prefixes worth sharing, and every prompt's path through them."""
    ends: list[tuple[int, ...]] = [()] * len(prompts)
    # Without the last token, which stays the prompt's own even if the whole prompt is shared.
    several = [index for index, prompt in enumerate(prompts) if len(prompt) > 1]
    if len(several) < 2:
        return [], ends
    heads = [tuple(prompts[index][:-1]) for index in several]
    tree = build_tree(
        [WeightedSequence(head, (0.0,) * len(head)) for head in heads], MIN_PREFIX_TOKENS
    )
    users: Counter[int] = Counter()
    for end in tree.end_nodes:
        users.update(tree.path(end))
    prefixes: list[SharedPrefix] = []
    # By node: the path of kept prefixes down to it, and their number of tokens.
    kept: list[tuple[tuple[int, ...], int]] = []
    for index, node in enumerate(tree.nodes):
        path, held = kept[node.parent] if node.parent >= 0 else ((), 0)
        end = node.position + node.end - node.start
        if (users[index] - 1) * (end - held) >= least_saved:
            # Include the tokens of parents that were not kept: this node's prompts have those too.
            tokens = _collect_last_tokens(tree.tokens, tree.previous, node.end - 1, end - held)
            path = (*path, len(prefixes))
            prefixes.append(SharedPrefix(tokens, held, path, users[index]))
            held = end
        kept.append((path, held))
    for index, end in zip(several, tree.end_nodes, strict=True):
        ends[index] = kept[end][0]
    return prefixes, ends


def _collect_last_tokens(
    tokens: Sequence[int], previous: Sequence[int], place: int, count: int
) -> list[int]:
    """Return the `count` tokens that end at `place`, following the tree upwards."""
    collected = []
    for _ in range(count):
        collected.append(tokens[place])
        place = previous[place]
    return collected[::-1]
