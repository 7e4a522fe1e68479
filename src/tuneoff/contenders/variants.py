"""The training variants of one contender: one per seed, and fractions of the examples.

A variant is the contender with settings of its own (another seed, fewer steps), a folder of its own
and its fraction of the training examples. It is tuned, answers and is scored like any contender.
Only `local` has several.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tuneoff.config.contenders import HostedConfig, LocalConfig, PromptedConfig, TrainConfig
from tuneoff.contenders.base import ContenderContext
from tuneoff.errors import TuneoffError
from tuneoff.records import Example
from tuneoff.storage.run_dir import ContenderDir

STEP_FIELDS = ("max_steps", "warmup_steps", "evaluate_every")


@dataclass(frozen=True, slots=True)
class TrainingVariant:
    """One training variant of a contender."""

    settings: Any
    """The contender's settings with this variant's seed, steps and name."""
    seed: int | None = None
    """Set where there are several seeds."""
    fraction: float = 1.0
    """Fraction of the training examples."""

    @property
    def get_name(self) -> str:
        """Return the variant's name, for instance `seed 1`; empty for a contender's only one."""
        if self.fraction < 1:
            return f"part {self.fraction}"
        return "" if self.seed is None else f"seed {self.seed}"

    def get_dir(self, contender: ContenderDir) -> ContenderDir:
        """Return the folder of this variant and its answers."""
        if self.fraction < 1:
            return contender.part(self.fraction)
        return contender if self.seed is None else contender.seed(self.seed)

    def build_context(self, work: ContenderContext) -> ContenderContext:
        """Return the contender's context with this variant's folder and examples."""
        train = work.train
        if self.fraction < 1:
            train = take_fraction(train, self.fraction, self.settings.seed)
        return replace(work, directory=self.get_dir(work.directory), train=train)


def list_variants(settings: Any) -> tuple[TrainingVariant, ...]:
    """Return a contender's variants: all examples first, then fractions, the smallest first."""
    if not isinstance(settings, LocalConfig):
        return (TrainingVariant(settings),)
    if settings.seeds is None:
        variants = [TrainingVariant(_build_variant_config(settings, settings.seed))]
    else:
        variants = [
            TrainingVariant(_build_variant_config(settings, seed, f" (seed {seed})"), seed)
            for seed in settings.seeds
        ]
    first = variants[0].settings.seed
    parts = [
        TrainingVariant(
            _build_variant_config(settings, first, f" (part {fraction})", fraction), None, fraction
        )
        for fraction in settings.learning_curve or ()
        if fraction < 1
    ]
    return (*variants, *parts)


def find_way(settings: Any, folder: Path) -> tuple[str, ...] | None:
    """Return the method that a contender shares with others whose scores vary alike between seeds.

    It is base and method, or the hosted model. Empty where nothing is trained; None for answers
    made elsewhere, whose method is unknown.
    """
    if isinstance(settings, LocalConfig):
        local = (folder / Path(settings.base).expanduser()).resolve()
        return ("local", str(local) if local.is_dir() else settings.base, settings.method)
    if isinstance(settings, HostedConfig):
        where = settings.base_url or settings.provider
        return ("hosted", where, settings.model, settings.method or "")
    return () if isinstance(settings, PromptedConfig) else None


def format_failure(training: TrainingVariant, error: Exception) -> str:
    """Return an error as one sentence that names the variant where there are several."""
    if isinstance(error, TuneoffError):
        text = str(error)
    else:
        first = (str(error).strip() or "no message").splitlines()[0]
        text = f"{type(error).__name__}: {first}"
    is_named = not training.get_name or training.settings.name in text
    return text if is_named else f"{training.get_name}: {text}"


def take_fraction(train: Sequence[Example], fraction: float, seed: int) -> list[Example]:
    """Return a random fraction of the training examples in their order, at least one.

    With the same seed, a smaller fraction is a subset of a larger one.
    """
    indices = list(range(len(train)))
    random.Random(seed).shuffle(indices)
    return [train[index] for index in sorted(indices[: max(1, round(fraction * len(train)))])]


def _build_variant_config(
    settings: LocalConfig, seed: int, which: str = "", fraction: float = 1.0
) -> LocalConfig:
    """Return the settings of one variant; its name says which one, wherever the name is shown."""
    return settings.model_copy(
        update={
            "name": settings.name + which,
            "seed": seed,
            "seeds": None,
            "learning_curve": None,
            "train": _scale_steps(settings.train, fraction),
        }
    )


def _scale_steps(train: TrainConfig, fraction: float) -> TrainConfig:
    """Return settings with steps scaled to fewer examples, so that the epochs stay the same."""
    steps = {key: getattr(train, key) for key in STEP_FIELDS}
    scaled = {key: max(1, round(fraction * count)) for key, count in steps.items() if count}
    return train.model_copy(update=scaled)
