"""The prefix cache: keeps shared prefixes that no row uses now, and matches new prompts.

Prefixes continue one another, so the prefixes of one adapter form a forest; `match` walks down it.
Idle prefixes are in LRU order, and the oldest are dropped when they hold more tokens than memory
allows. A prefix's keys and values belong to the adapter that computed them.

No tensors here: the engine holds those, by the same numbers.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuneoff.inference.prefix_groups import MIN_SAVED_TOKENS, SharedPrefix
from tuneoff.prefix_sharing.tree import count_common_prefix

# Minimum tokens of a cached prefix. It costs some small operations a step, and a shorter one saves
# less than that.
MIN_CACHED_TOKENS = 64
# Maximum number of earlier prompts that a new one is compared with, and of their tokens.
MAX_HISTORY_PROMPTS, MAX_HISTORY_TOKENS = 64, 2**18


@dataclass(frozen=True, slots=True)
class PrefixMatch:
    """The cached prefixes that a prompt begins with."""

    path: tuple[int, ...]
    """Their numbers, in order."""
    held: int
    """The number of their tokens."""
    part: tuple[int, int] | None = None
    """Another prefix that would continue them, and how many of its first tokens the prompt has."""


class PrefixCache:
    """The shared prefixes of an engine, with at most `most_tokens` in idle ones."""

    def __init__(self, prefixes: Mapping[int, SharedPrefix], most_tokens: int) -> None:
        self._prefixes, self.max_idle_tokens = prefixes, most_tokens
        self._below: dict[tuple[str | None, int], list[int]] = {}
        # LRU order, oldest first. A child prefix is always released before its parent, so children
        # precede parents.
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._idle_tokens = 0

    def add(self, number: int) -> None:
        """Add a prefix that is in use."""
        self._below.setdefault(self._key(number), []).append(number)

    def match(self, adapter: str | None, ids: Sequence[int]) -> PrefixMatch:
        """Return the cached prefixes that a prompt can use; its last token stays its own."""
        path: tuple[int, ...] = ()
        held, last = 0, len(ids) - 1
        while True:
            whole, part, longest = -1, None, 0
            for number in self._below.get((adapter, path[-1] if path else -1), ()):
                tokens = self._prefixes[number].tokens
                same = count_common_prefix(tokens, ids[held : min(last, held + len(tokens))])
                if same == len(tokens) and (whole < 0 or same > len(self._prefixes[whole].tokens)):
                    whole = number
                if same > longest:
                    part, longest = (number, same), same
            saved = len(self._prefixes[whole].tokens) if whole >= 0 else 0
            if part is not None and longest >= saved + MIN_CACHED_TOKENS:
                return PrefixMatch(path, held, part)
            if whole < 0:
                return PrefixMatch(path, held)
            path, held = (*path, whole), held + saved

    def mark_used(self, path: Sequence[int]) -> None:
        """Mark these prefixes as in use."""
        for number in path:
            if number in self._idle:
                del self._idle[number]
                self._idle_tokens -= len(self._prefixes[number].tokens)

    def mark_unused(self, number: int, kept: bool = True) -> list[int]:
        """Mark a prefix as idle; return the prefixes to drop for it.

        Args:
            kept: False: drop the prefix itself.
        """
        self._idle[number] = None
        self._idle_tokens += len(self._prefixes[number].tokens)
        dropped = [] if kept else [self._drop(number)]
        while self._idle_tokens > self.max_idle_tokens:
            dropped.append(self._drop(next(iter(self._idle))))
        return dropped

    def drop_adapter(self, adapter: str) -> list[int]:
        """Drop the idle prefixes of an adapter that is being removed; return them."""
        return [self._drop(n) for n in list(self._idle) if self._prefixes[n].adapter == adapter]

    def _drop(self, number: int) -> int:
        """Remove an idle prefix and return its number."""
        del self._idle[number]
        self._idle_tokens -= len(self._prefixes[number].tokens)
        siblings = self._below[self._key(number)]
        siblings.remove(number)
        if not siblings:
            del self._below[self._key(number)]
        return number

    def _key(self, number: int) -> tuple[str | None, int]:
        """Return a prefix's adapter and parent (-1: none)."""
        prefix = self._prefixes[number]
        return prefix.adapter, prefix.path[-2] if len(prefix.path) > 1 else -1


class PromptHistory:
    """The last prompts with their answers, to detect prefixes that recur."""

    def __init__(self) -> None:
        self._texts: deque[tuple[str | None, Sequence[int], Sequence[int]]] = deque()
        self._tokens = 0

    def add(self, adapter: str | None, prompt: Sequence[int], answer: Sequence[int]) -> None:
        """Add a prompt, with the list that its answer's tokens are appended to."""
        self._texts.append((adapter, prompt, answer))
        self._tokens += len(prompt)
        while len(self._texts) > MAX_HISTORY_PROMPTS or self._tokens > MAX_HISTORY_TOKENS:
            self._tokens -= len(self._texts.popleft()[1])

    def count_worth_caching(self, adapter: str | None, ids: Sequence[int], held: int) -> int:
        """Return how many of a prompt's first tokens are worth caching as a prefix.

        It is the longest prefix that would have saved `MIN_SAVED_TOKENS` tokens beyond the `held`
        ones, had the earlier prompts come together with it.
        """
        common = [self._count_common(ids, *text[1:]) for text in self._texts if text[0] == adapter]
        for count, same in enumerate(sorted(common, reverse=True), 1):
            more = same - held
            if more >= MIN_CACHED_TOKENS and count * more >= MIN_SAVED_TOKENS:
                return same
        return held

    @staticmethod
    def _count_common(ids: Sequence[int], prompt: Sequence[int], answer: Sequence[int]) -> int:
        """Return the common prefix length of a prompt and an earlier prompt with its answer."""
        same = count_common_prefix(prompt, ids)
        if same == len(prompt):
            same += count_common_prefix(answer, ids[same:])
        return min(same, len(ids) - 1)
