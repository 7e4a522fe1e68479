"""Compares ways of training: would a contender win again if it were trained again?

The verdict is about the models at hand. A *way of training* gives another model with every seed. So
its difference varies by the examples (or clusters) and, for each trained contender, by the
between-seed variance divided by the number of its seeds: Student's t with Satterthwaite's degrees
of freedom. The between-seed variance is the contender's own if it has several seeds. If it has one,
the variance is pooled from contenders of the same way that have several. If there are none, it is
unknown.

Nothing is claimed where the models at hand cannot be told apart: no p-value is below the pair's,
and no interval is narrower.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tuneoff.results import Comparison, SeedSpread, WayOfTraining, WayOutcome
from tuneoff.scoring.holm import adjust_by_holm
from tuneoff.scoring.intervals import (
    SIGNIFICANCE_LEVEL,
    Bounds,
    align_with_p_value,
    clip_bounds,
    combine_variances,
    compute_t_quantile,
)
from tuneoff.scoring.paired import MIN_UNITS, KnownSeeds, MeasuredPair, SeedScores, Values

# What contenders with the same between-seed variance share, for instance base and method; empty if
# nothing is trained.
Way = tuple[str, ...]
VarianceEstimate = tuple[float, float]  # a variance and its degrees of freedom


def find_seeds(
    ways: Mapping[str, Way | None], seeds: Mapping[str, Sequence[Values]]
) -> dict[str, KnownSeeds]:
    """Return the seeds from which each contender's between-seed variance is estimated.

    Args:
        ways: contender → its way of training; None if unknown.
        seeds: contender → the scores of each of its seeds by example.
    """
    own = {
        name: SeedScores(name, tuple(math.fsum(of.values()) / len(of) for of in trainings))
        for name, trainings in seeds.items()
        if len(trainings) > 1 and all(trainings)
    }
    # The same trainings may occur twice: in a run and in its copy.
    pooled: dict[Way, dict[tuple[float, ...], SeedScores]] = defaultdict(dict)
    for name, scored in own.items():
        way = ways.get(name)
        if way:
            pooled[way].setdefault(scored.scores, scored)
    return {name: _select_seeds(own.get(name), way, pooled) for name, way in ways.items()}


def _select_seeds(
    own: SeedScores | None,
    way: Way | None,
    pooled: Mapping[Way, Mapping[tuple[float, ...], SeedScores]],
) -> KnownSeeds:
    if own is not None:
        return (own,)
    if not way:
        return None if way is None else ()
    return tuple(pooled[way].values()) if way in pooled else None


def add_ways(
    measured: Sequence[MeasuredPair], pairs: Sequence[Comparison]
) -> tuple[Comparison, ...]:
    """Return the pairs with their test of the way of training.

    p-values are adjusted over all of them by Holm's method.
    """
    testable = [
        (place, sides, _sum_variances(one, *sides))
        for place, one in enumerate(measured)
        if (sides := _find_sides(one)) is not None
    ]
    p_values = [
        max(pairs[place].p_value, _compute_t_p_value(measured[place].difference, *spread))
        for place, _, spread in testable
    ]
    judged = list(pairs)
    for (place, (a, b), spread), p_value, (by_holm, level) in zip(
        testable, p_values, adjust_by_holm(p_values), strict=True
    ):
        pair, one = pairs[place], measured[place]
        p_adjusted = max(pair.p_adjusted, by_holm)
        alone = _widen(_compute_bounds(one, *spread, SIGNIFICANCE_LEVEL), pair.low, pair.high)
        adjusted = _widen(
            _compute_bounds(one, *spread, level), pair.low_adjusted, pair.high_adjusted
        )
        low, high = align_with_p_value(alone, pair.difference, p_value)
        low_adjusted, high_adjusted = align_with_p_value(adjusted, pair.difference, p_adjusted)
        way = WayOfTraining(
            outcome=_decide(pair.difference, p_adjusted),
            low=low,
            high=high,
            p_value=p_value,
            low_adjusted=low_adjusted,
            high_adjusted=high_adjusted,
            p_adjusted=p_adjusted,
            freedom=spread[1],
            seeds_a=a.summarize(),
            seeds_b=b.summarize(),
        )
        judged[place] = replace(pair, training=way)
    return tuple(judged)


def _decide(difference: float, p_adjusted: float) -> WayOutcome:
    if p_adjusted >= SIGNIFICANCE_LEVEL or not difference:
        return "cannot be told"
    return "a better" if difference > 0 else "b better"


@dataclass(frozen=True, slots=True)
class _Side:
    """The seeds that estimate one contender's between-seed variance."""

    seeds: Sequence[SeedScores]
    trainings: int
    """The number of seeds that its own score is the mean of."""

    @property
    def freedom(self) -> float:
        return math.fsum(seeds.freedom for seeds in self.seeds)

    def summarize(self) -> SeedSpread | None:
        """Return the standard deviation between seeds; None if nothing is trained."""
        if not self.seeds:
            return None
        squares = math.fsum(seeds.freedom * seeds.variance for seeds in self.seeds)
        names = tuple(seeds.contender for seeds in self.seeds)
        return SeedSpread(math.sqrt(squares / self.freedom), self.freedom, names)


def _find_sides(measured: MeasuredPair) -> tuple[_Side, _Side] | None:
    """Return both sides of a pair, or None.

    None if nothing is trained, one side's variance is unknown, or there are too few units.
    """
    pair = measured.pair
    if pair.between_a is None or pair.between_b is None or measured.units < MIN_UNITS:
        return None
    if not pair.between_a and not pair.between_b:
        return None
    own = iter(measured.seeds)
    sides = []
    for trainings, between in ((pair.seeds_a, pair.between_a), (pair.seeds_b, pair.between_b)):
        if len(trainings) > 1:  # over the examples of this pair
            scores = tuple(next(own))
            if len(between) != 1:  # one of its seeds has no score
                return None
            between = (SeedScores(between[0].contender, scores),)
        if between and not any(seeds.variance for seeds in between):
            return None  # equal scores do not estimate a variance
        sides.append(_Side(between, max(1, len(trainings))))
    return sides[0], sides[1]


def _sum_variances(measured: MeasuredPair, a: _Side, b: _Side) -> VarianceEstimate:
    """Return the variance of the difference over units and new seeds, and its degrees of freedom.

    A contender's seeds may be used twice: for itself and for the other one, or pooled for both.
    That is one estimate, not two independent ones.
    """
    weights: dict[str, float] = defaultdict(float)
    for side in (a, b):
        for source in side.seeds:
            weights[source.contender] += source.freedom / (side.freedom * side.trainings)
    own = [side.seeds[0] for side in (a, b) if side.trainings > 1]
    named = {source.contender for source in own}
    pools = (
        tuple(source for source in side.seeds if source.contender not in named) for side in (a, b)
    )
    estimates = [*((source,) for source in own), *dict.fromkeys(pool for pool in pools if pool)]
    parts = [
        (
            math.fsum(weights[source.contender] * source.variance for source in seeds),
            math.fsum(source.freedom for source in seeds),
        )
        for seeds in estimates
    ]
    return combine_variances([measured.compute_unit_variance(), *parts])


def _compute_t_p_value(difference: float, variance: float, freedom: float) -> float:
    """Return the two-sided p-value of Student's t."""
    from scipy.special import stdtr

    return 2 * float(stdtr(freedom, -abs(difference) / math.sqrt(variance)))


def _compute_bounds(
    measured: MeasuredPair, variance: float, freedom: float, level: float
) -> Bounds:
    half = compute_t_quantile(level, freedom) * math.sqrt(variance)
    low, high = measured.difference - half, measured.difference + half
    return clip_bounds(low, high, least=-1.0) if measured.is_share else (low, high)


def _widen(bounds: Bounds, low: float | None, high: float | None) -> Bounds:
    """Return bounds widened to include those of the models at hand."""
    if low is None or high is None:
        return bounds
    return min(bounds[0], low), max(bounds[1], high)
