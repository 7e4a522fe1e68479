"""A plan, as `tuneoff plan --json` prints it (schema 1). None: not known."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from tuneoff.results import Place
from tuneoff.scoring.margins import MarginExamples


@dataclass(frozen=True, slots=True)
class PlannedTraining:
    """One contender's training. `tokens_per_epoch` are the examples' tokens as the provider bills
    them or as the base sees them; `tokens_billed` is for providers alone. `usd` is for all its
    seeds and parts together, `seconds` too. `basis` says what the figures rest on."""

    examples: int
    epochs: float
    tokens_per_epoch: int | None
    tokens_billed: int | None
    seconds: float | None
    memory_bytes: int | None
    usd: float | None
    basis: str


@dataclass(frozen=True, slots=True)
class PlannedContender:
    """One contender; `training` is None where nothing is trained. `answering_usd` is for the test
    set as often as it is asked, `samples` times."""

    name: str
    id: str
    training: PlannedTraining | None = None
    answering_usd: float | None = None
    ends: datetime.date | None = None
    warnings: tuple[str, ...] = ()
    samples: int = 1
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class MoreSeeds:
    """What `seeds` would take and bring for the `contenders` that are trained once: the number of
    further `trainings`, their seconds and price (None: not known), and the smallest difference
    between two ways of training that shows then, for 15% and for 35% of answers that differ. With
    one training each none shows, unless another contender of the same way has seeds."""

    contenders: tuple[str, ...]
    seeds: tuple[int, ...]
    trainings: int
    seconds: float | None
    usd: float | None
    smallest_detectable_difference: float | None
    smallest_detectable_difference_of_many: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A bake-off before anything is spent. `total_usd` sums what is expected and known, hours of
    own hardware included, at the prices of `as_of`; `most_usd` is what a run that begins today asks
    leave for: the most that providers can bill. `budget_usd` bounds what they bill. The smallest
    differences that the test set shows are for 15% and for 35% of answers that differ. `margin`
    says how many examples `requirements.margin_points` takes; `more_seeds` is None where no
    contender could have any."""

    schema: int = 1
    task: str
    as_of: datetime.date
    total_usd: float
    most_usd: float | None
    budget_usd: float | None
    smallest_detectable_difference: float | None
    smallest_detectable_difference_of_many: float | None
    margin: MarginExamples
    more_seeds: MoreSeeds | None
    contenders: tuple[PlannedContender, ...]

    @property
    def over_budget(self) -> bool:
        """Whether a run would be refused for its budget."""
        if self.budget_usd is None or self.most_usd is None:
            return False
        return self.most_usd > self.budget_usd
