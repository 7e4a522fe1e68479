"""Shots: the training examples that a prompted contender sees before each question.

They are drawn by the contender's seed. Where system texts differ, an example first sees shots with
its own system text, as many as there are, then others, which bring their own instruction
(`prompts.py`). Where all system texts agree, one draw serves the whole test set.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tuneoff import prompts
from tuneoff.config.contenders import LocalConfig, PromptedConfig
from tuneoff.contenders.base import ContenderContext
from tuneoff.records import Example

AnsweringConfig = LocalConfig | PromptedConfig


@dataclass(frozen=True, slots=True)
class Shots:
    """The shots of a contender."""

    usual: tuple[Example, ...] = ()
    """Shots for every other example."""
    by_system: Mapping[str, tuple[Example, ...]] = field(default_factory=dict)
    """Shots for examples with these system texts."""

    def select_for(self, example: Example) -> Sequence[Example]:
        """Return the shots of this example's prompt."""
        if not self.by_system:
            return self.usual
        return self.by_system.get(prompts.join_system_texts(example), self.usual)


NO_SHOTS = Shots()


@dataclass(frozen=True, slots=True)
class ShotIndices:
    """The same shots as indices into the training split, for a split that is not held in memory."""

    usual: tuple[int, ...] = ()
    by_system: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def collect(self) -> set[int]:
        """Return every index that is shown to some example."""
        return {place for some in (self.usual, *self.by_system.values()) for place in some}

    def select_shots(self, train: Sequence[Example]) -> Shots:
        """Return the examples at these indices."""
        return Shots(
            tuple(train[place] for place in self.usual),
            {text: tuple(train[p] for p in some) for text, some in self.by_system.items()},
        )


def select_shots(settings: AnsweringConfig, work: ContenderContext) -> Shots:
    """Return the shots of a contender's prompts."""
    if isinstance(settings, LocalConfig) or settings.shots == 0:
        return NO_SHOTS
    return find_shot_indices(settings, work.train, work.test).select_shots(work.train)


def find_shot_indices(
    settings: PromptedConfig, train: Iterable[Example], test: Iterable[Example]
) -> ShotIndices:
    """Return where the shots for a test set lie in the training split.

    Of a large split only one index per example is held, and the test set's system texts.
    """
    wanted = {prompts.join_system_texts(example) for example in test}
    indices_by_text: dict[str, list[int]] = {text: [] for text in wanted}
    count = 0
    for count, example in enumerate(train, 1):
        text = prompts.join_system_texts(example)
        if text in indices_by_text:
            indices_by_text[text].append(count - 1)
    max_shots = min(settings.shots, count)
    usual = tuple(random.Random(settings.seed).sample(range(count), max_shots))
    # A system text that all have, or none, gets the usual shots.
    rare = {text: same for text, same in indices_by_text.items() if 0 < len(same) < count}
    return ShotIndices(
        usual, {text: _draw_shots(settings, same, usual) for text, same in rare.items()}
    )


def _draw_shots(
    settings: PromptedConfig, same: Sequence[int], usual: Sequence[int]
) -> tuple[int, ...]:
    """Return indices drawn from `same`, then usual ones where these are too few."""
    chosen = random.Random(settings.seed).sample(same, min(len(usual), len(same)))
    same_indices = set(same)
    others = [place for place in usual if place not in same_indices]
    return (*chosen, *others[: len(usual) - len(chosen)])
