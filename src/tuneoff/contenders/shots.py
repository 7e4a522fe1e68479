"""Shots: which training examples a prompted contender is shown before each question.

They are drawn by the contender's seed. Where system texts differ, an example is shown those that
were instructed as it is, as many as there are, and others after them, which then bring their own
instruction (`prompts.py`). Where all agree it is one draw for the whole test set.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tuneoff import prompts
from tuneoff.contender_settings import LocalSettings, PromptedSettings
from tuneoff.contenders import Work
from tuneoff.records import Example

Settings = LocalSettings | PromptedSettings


@dataclass(frozen=True, slots=True)
class Shots:
    """The shots of a contender: those for the system texts of `by_system`, and the `usual` ones."""

    usual: tuple[Example, ...] = ()
    by_system: Mapping[str, tuple[Example, ...]] = field(default_factory=dict)

    def of(self, example: Example) -> Sequence[Example]:
        """Return what this example's prompt shows."""
        if not self.by_system:
            return self.usual
        return self.by_system.get(prompts.join_system_texts(example), self.usual)


NO_SHOTS = Shots()


@dataclass(frozen=True, slots=True)
class Places:
    """The same as places in the training split, for one that is not held."""

    usual: tuple[int, ...] = ()
    by_system: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def all(self) -> set[int]:
        """Return every place that is shown to some example."""
        return {place for some in (self.usual, *self.by_system.values()) for place in some}

    def of(self, train: Sequence[Example]) -> Shots:
        """Return the examples at these places."""
        return Shots(
            tuple(train[place] for place in self.usual),
            {text: tuple(train[p] for p in some) for text, some in self.by_system.items()},
        )


def shots_of(settings: Settings, work: Work) -> Shots:
    """Return the examples that a contender's prompts show."""
    if isinstance(settings, LocalSettings) or settings.shots == 0:
        return NO_SHOTS
    return shot_places(settings, work.train, work.test).of(work.train)


def shot_places(
    settings: PromptedSettings, train: Iterable[Example], test: Iterable[Example]
) -> Places:
    """Return where the shots for a test set lie in the training split. Of large splits no more is
    held than a place an example, and the test set's system texts."""
    wanted = {prompts.join_system_texts(example) for example in test}
    having: dict[str, list[int]] = {text: [] for text in wanted}
    count = 0
    for count, example in enumerate(train, 1):
        text = prompts.join_system_texts(example)
        if text in having:
            having[text].append(count - 1)
    most = min(settings.shots, count)
    usual = tuple(random.Random(settings.seed).sample(range(count), most))
    # A text that all have, or none, gets the usual ones.
    differ = {text: same for text, same in having.items() if 0 < len(same) < count}
    return Places(usual, {text: _drawn(settings, same, usual) for text, same in differ.items()})


def _drawn(
    settings: PromptedSettings, same: Sequence[int], usual: Sequence[int]
) -> tuple[int, ...]:
    """Return places of `same`, then usual ones where these are too few."""
    chosen = random.Random(settings.seed).sample(same, min(len(usual), len(same)))
    known = set(same)
    others = [place for place in usual if place not in known]
    return (*chosen, *others[: len(usual) - len(chosen)])
