"""Which prefixes prompts share, and which of them are worth keeping once.

Prompts of one task begin alike: an instruction, shots, a schema. `group` turns them into
shared runs (a forest: a run may continue another) and rows (what is a prompt's own). Every
run costs a forward pass of its own and some small operations a step, so only those that
save `LEAST_SAVED` tokens are kept; what is shared by less is computed for each prompt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tuneoff.models.prefix_tree import Weighted, build

LEAST_SAVED = 512
SHORTEST_RUN = 8


@dataclass(frozen=True, slots=True)
class Run:
    """Tokens that several prompts share, `position` tokens into each of them.

    `path` are the indices of the runs before it and its own; `users` counts the prompts;
    `adapter` is the one that they are computed with, where a batch has several.
    """

    tokens: list[int]
    position: int
    path: tuple[int, ...]
    users: int
    adapter: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One prompt: its index, the runs it begins with, and its own tokens after them.

    At least the last token is a prompt's own, for what follows it is computed per prompt.
    """

    prompt: int
    path: tuple[int, ...]
    position: int
    own: list[int]
    adapter: str | None = None


def group(
    prompts: Sequence[Sequence[int]], least_saved: int = LEAST_SAVED
) -> tuple[list[Run], list[Row]]:
    """Runs, parents first, and rows in an order that keeps a run's rows together.

    Among the rows of one run the longest come first: they are padded to one another, and
    what takes longest should not start last.
    """
    runs, ends = _runs(prompts, least_saved)
    rows = []
    for index, prompt in enumerate(prompts):
        path = ends[index]
        position = runs[path[-1]].position + len(runs[path[-1]].tokens) if path else 0
        rows.append(Row(index, path, position, list(prompt[position:])))
    rows.sort(key=lambda row: (row.path[-1] if row.path else -1, -len(row.own)))
    return runs, rows


def _runs(
    prompts: Sequence[Sequence[int]], least_saved: int
) -> tuple[list[Run], list[tuple[int, ...]]]:
    """The runs worth keeping, and every prompt's path through them."""
    ends: list[tuple[int, ...]] = [()] * len(prompts)
    # Without the last token, which stays the prompt's own even where all of it is shared.
    several = [index for index, prompt in enumerate(prompts) if len(prompt) > 1]
    if len(several) < 2:
        return [], ends
    heads = [tuple(prompts[index][:-1]) for index in several]
    tree = build([Weighted(head, (0.0,) * len(head)) for head in heads], SHORTEST_RUN)
    users: Counter[int] = Counter()
    for end in tree.ends:
        users.update(tree.path(end))
    runs: list[Run] = []
    # Of each node: the path of kept runs down to it, and how many tokens those hold.
    kept: list[tuple[tuple[int, ...], int]] = []
    for index, node in enumerate(tree.nodes):
        path, held = kept[node.parent] if node.parent >= 0 else ((), 0)
        end = node.position + node.end - node.start
        if (users[index] - 1) * (end - held) >= least_saved:
            # With the tokens of dissolved parents: this node's prompts have those too.
            tokens = _last_tokens(tree.tokens, tree.previous, node.end - 1, end - held)
            path = (*path, len(runs))
            runs.append(Run(tokens, held, path, users[index]))
            held = end
        kept.append((path, held))
    for index, end in zip(several, tree.ends, strict=True):
        ends[index] = kept[end][0]
    return runs, ends


def _last_tokens(
    tokens: Sequence[int], previous: Sequence[int], place: int, count: int
) -> list[int]:
    """The `count` tokens that end at `place`, following the tree upwards."""
    found = []
    for _ in range(count):
        found.append(tokens[place])
        place = previous[place]
    return found[::-1]
