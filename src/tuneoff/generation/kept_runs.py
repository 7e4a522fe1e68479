"""Which runs are kept when no row needs them any more, and what of them a new prompt can use.

Runs continue one another, so those of one adapter are a forest; `match` walks down it. The ones
that nobody uses lie in the order of their last use, and the oldest go when they hold more tokens
than there is memory for. A run's keys and values belong to the adapter that computed them.

No tensors here: the engine has those, by the same numbers.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuneoff.generation.grouping import LEAST_SAVED, Run
from tuneoff.models.prefix_tree import common_prefix

# A run costs some small operations a step; with fewer tokens it does not save as much.
SHORTEST_KEPT = 64
# How many earlier prompts a new one is compared with, and their tokens, at most.
REMEMBERED, REMEMBERED_TOKENS = 64, 2**18


@dataclass(frozen=True, slots=True)
class Match:
    """The runs that a prompt begins with, and how many tokens they hold; `part` is another that
    would continue them, with how many of its first tokens the prompt has."""

    path: tuple[int, ...]
    held: int
    part: tuple[int, int] | None = None


class KeptRuns:
    """The runs of an engine, by what they continue; at most `most_tokens` in idle ones."""

    def __init__(self, runs: Mapping[int, Run], most_tokens: int) -> None:
        self._runs, self.most_tokens = runs, most_tokens
        self._below: dict[tuple[str | None, int], list[int]] = {}
        # The longest unused first. A run's rows use those before it too, and let go of it first,
        # so whatever continues a run lies before it here.
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._idle_tokens = 0

    def add(self, number: int) -> None:
        """Makes a run known, which somebody uses."""
        self._below.setdefault(self._key(number), []).append(number)

    def match(self, adapter: str | None, ids: Sequence[int]) -> Match:
        """What a prompt can use. Its last token is left to it."""
        path: tuple[int, ...] = ()
        held, last = 0, len(ids) - 1
        while True:
            whole, part, longest = -1, None, 0
            for number in self._below.get((adapter, path[-1] if path else -1), ()):
                tokens = self._runs[number].tokens
                same = common_prefix(tokens, ids[held : min(last, held + len(tokens))])
                if same == len(tokens) and (whole < 0 or same > len(self._runs[whole].tokens)):
                    whole = number
                if same > longest:
                    part, longest = (number, same), same
            saved = len(self._runs[whole].tokens) if whole >= 0 else 0
            if part is not None and longest >= saved + SHORTEST_KEPT:
                return Match(path, held, part)
            if whole < 0:
                return Match(path, held)
            path, held = (*path, whole), held + saved

    def used(self, path: Sequence[int]) -> None:
        """Somebody uses these runs."""
        for number in path:
            if number in self._idle:
                del self._idle[number]
                self._idle_tokens -= len(self._runs[number].tokens)

    def unused(self, number: int, kept: bool = True) -> list[int]:
        """Nobody uses a run any more; gives those that have to go for it, or itself if it is not
        to be kept."""
        self._idle[number] = None
        self._idle_tokens += len(self._runs[number].tokens)
        gone = [] if kept else [self._drop(number)]
        while self._idle_tokens > self.most_tokens:
            gone.append(self._drop(next(iter(self._idle))))
        return gone

    def forget(self, adapter: str) -> list[int]:
        """Those of an adapter that is going, of which nobody uses any."""
        return [self._drop(n) for n in list(self._idle) if self._runs[n].adapter == adapter]

    def _drop(self, number: int) -> int:
        del self._idle[number]
        self._idle_tokens -= len(self._runs[number].tokens)
        siblings = self._below[self._key(number)]
        siblings.remove(number)
        if not siblings:
            del self._below[self._key(number)]
        return number

    def _key(self, number: int) -> tuple[str | None, int]:
        run = self._runs[number]
        return run.adapter, run.path[-2] if len(run.path) > 1 else -1


class Remembered:
    """The last prompts with what was answered, to see which prefixes come again."""

    def __init__(self) -> None:
        self._texts: deque[tuple[str | None, Sequence[int], Sequence[int]]] = deque()
        self._tokens = 0

    def add(self, adapter: str | None, prompt: Sequence[int], answer: Sequence[int]) -> None:
        """Remembers a prompt, and the list that its answer's tokens are appended to."""
        self._texts.append((adapter, prompt, answer))
        self._tokens += len(prompt)
        while len(self._texts) > REMEMBERED or self._tokens > REMEMBERED_TOKENS:
            self._tokens -= len(self._texts.popleft()[1])

    def worth_keeping(self, adapter: str | None, ids: Sequence[int], held: int) -> int:
        """How many of a prompt's first tokens are worth being a run: as many as would have saved
        `LEAST_SAVED` beyond the `held` ones, had the earlier prompts come together with it."""
        found = [self._common(ids, *text[1:]) for text in self._texts if text[0] == adapter]
        for count, same in enumerate(sorted(found, reverse=True), 1):
            more = same - held
            if more >= SHORTEST_KEPT and count * more >= LEAST_SAVED:
                return same
        return held

    @staticmethod
    def _common(ids: Sequence[int], prompt: Sequence[int], answer: Sequence[int]) -> int:
        same = common_prefix(prompt, ids)
        if same == len(prompt):
            same += common_prefix(answer, ids[same:])
        return min(same, len(ids) - 1)
