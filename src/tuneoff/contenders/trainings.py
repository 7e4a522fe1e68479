"""The trainings of one contender: a single one, or one a seed, and parts of the examples.

A training is the contender with settings of its own (another seed, fewer steps), a folder
of its own and its share of the training examples; otherwise it is tuned, answers and is
scored like any contender. Only `local` has several.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tuneoff.contender_settings import (
    HostedSettings,
    LocalSettings,
    PromptedSettings,
    TrainSettings,
)
from tuneoff.contenders import Work
from tuneoff.errors import TuneoffError
from tuneoff.records import Example
from tuneoff.rundir import ContenderDir

COUNTED_IN_STEPS = ("max_steps", "warmup_steps", "evaluate_every")


@dataclass(frozen=True, slots=True)
class Training:
    """One training of a contender.

    `settings` are the contender's with this training's seed, steps and name. `seed` is set
    where there are several; `fraction` is the share of the training examples.
    """

    settings: Any
    seed: int | None = None
    fraction: float = 1.0

    @property
    def name(self) -> str:
        """Which training it is, for instance `seed 1`; empty for a contender's only one."""
        if self.fraction < 1:
            return f"part {self.fraction}"
        return "" if self.seed is None else f"seed {self.seed}"

    def directory(self, contender: ContenderDir) -> ContenderDir:
        """Where this training and its answers are kept."""
        if self.fraction < 1:
            return contender.part(self.fraction)
        return contender if self.seed is None else contender.seed(self.seed)

    def work(self, work: Work) -> Work:
        """The contender's work, with this training's folder and examples."""
        train = work.train
        if self.fraction < 1:
            train = part(train, self.fraction, self.settings.seed)
        return replace(work, directory=self.directory(work.directory), train=train)


def trainings(settings: Any) -> tuple[Training, ...]:
    """A contender's trainings: on all examples first, then on parts, the smallest first."""
    if not isinstance(settings, LocalSettings):
        return (Training(settings),)
    if settings.seeds is None:
        whole = [Training(_own(settings, settings.seed))]
    else:
        whole = [Training(_own(settings, seed, f" (seed {seed})"), seed) for seed in settings.seeds]
    first = whole[0].settings.seed
    parts = [
        Training(_own(settings, first, f" (part {fraction})", fraction), None, fraction)
        for fraction in settings.learning_curve or ()
        if fraction < 1
    ]
    return (*whole, *parts)


def find_way(settings: Any, folder: Path) -> tuple[str, ...] | None:
    """Return what a contender shares with those whose scores vary alike between seeds: base and
    method, or the hosted model. Empty where nothing is trained; None for answers made elsewhere,
    of which nobody knows."""
    if isinstance(settings, LocalSettings):
        local = (folder / Path(settings.base).expanduser()).resolve()
        return ("local", str(local) if local.is_dir() else settings.base, settings.method)
    if isinstance(settings, HostedSettings):
        where = settings.base_url or settings.provider
        return ("hosted", where, settings.model, settings.method or "")
    return () if isinstance(settings, PromptedSettings) else None


def what_failed(training: Training, error: Exception) -> str:
    """One sentence, which says of several trainings which one it was."""
    if isinstance(error, TuneoffError):
        text = str(error)
    else:
        first = (str(error).strip() or "no message").splitlines()[0]
        text = f"{type(error).__name__}: {first}"
    named = not training.name or training.settings.name in text
    return text if named else f"{training.name}: {text}"


def part(train: Sequence[Example], fraction: float, seed: int) -> list[Example]:
    """A random part of the training examples, in their order, at least one; of the same
    seed, a smaller part lies inside a larger one."""
    places = list(range(len(train)))
    random.Random(seed).shuffle(places)
    return [train[place] for place in sorted(places[: max(1, round(fraction * len(train)))])]


def _own(
    settings: LocalSettings, seed: int, which: str = "", fraction: float = 1.0
) -> LocalSettings:
    """The settings of one training; its name says which one, wherever the name is told."""
    return settings.model_copy(
        update={
            "name": settings.name + which,
            "seed": seed,
            "seeds": None,
            "learning_curve": None,
            "train": _scaled(settings.train, fraction),
        }
    )


def _scaled(train: TrainSettings, fraction: float) -> TrainSettings:
    """The same epochs of fewer examples: what counts steps shrinks with them."""
    steps = {key: getattr(train, key) for key in COUNTED_IN_STEPS}
    scaled = {key: max(1, round(fraction * count)) for key, count in steps.items() if count}
    return train.model_copy(update=scaled)
