"""A plan, as `tuneoff plan --json` prints it (schema 1). None: not known."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from tuneoff.errors import warn_renamed
from tuneoff.results import Hosting
from tuneoff.scoring.margins import MarginExamples


@dataclass(frozen=True, slots=True)
class PlannedTraining:
    """One contender's training."""

    examples: int
    epochs: float
    tokens_per_epoch: int | None
    """The examples' tokens as the provider bills them, or as the base sees them."""
    tokens_billed: int | None
    """Only for providers."""
    seconds: float | None
    """For all seeds and fractions together."""
    memory_bytes: int | None
    usd: float | None
    """For all seeds and fractions together."""
    basis: str
    """What the figures rest on."""


@dataclass(frozen=True, slots=True)
class PlannedContender:
    """One contender."""

    name: str
    id: str
    training: PlannedTraining | None = None
    """None where nothing is trained."""
    answering_usd: float | None = None
    """For the test set with all `samples`."""
    ends: datetime.date | None = None
    warnings: tuple[str, ...] = ()
    samples: int = 1
    place: Hosting | None = None


@dataclass(frozen=True, slots=True)
class MoreSeeds:
    """What several seeds would take and bring for contenders that are trained once."""

    contenders: tuple[str, ...]
    """The contenders that are trained once."""
    seeds: tuple[int, ...]
    trainings: int
    """Number of additional trainings."""
    seconds: float | None
    """Seconds of the additional trainings."""
    usd: float | None
    """Price of the additional trainings."""
    smallest_detectable_difference: float | None
    """Between two training methods, if 15% of answers differ. With one training each no difference
    is detectable, unless another contender of the same method has seeds."""
    smallest_detectable_difference_of_many: float | None
    """The same if 35% of answers differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A bake-off before anything is spent."""

    schema: int = 1
    task: str
    as_of: datetime.date
    total_usd: float
    """Sum of expected costs that are known, hours of own hardware included, at the prices of
    `as_of`."""
    most_usd: float | None
    """What a run that begins today reserves: the maximum that providers can bill."""
    budget_usd: float | None
    """Limit of what providers bill."""
    smallest_detectable_difference: float | None
    """Of the test set, if 15% of answers differ."""
    smallest_detectable_difference_of_many: float | None
    """The same if 35% of answers differ."""
    margin: MarginExamples
    """How many examples `requirements.margin_points` takes."""
    more_seeds: MoreSeeds | None
    """None where no contender could have any."""
    contenders: tuple[PlannedContender, ...]

    @property
    def is_over_budget(self) -> bool:
        """Return whether a run would be refused for its budget."""
        if self.budget_usd is None or self.most_usd is None:
            return False
        return self.most_usd > self.budget_usd

    @property
    def over_budget(self) -> bool:
        """Return `is_over_budget`, under the name that it had before."""
        warn_renamed("Plan.over_budget", "is_over_budget")
        return self.is_over_budget
