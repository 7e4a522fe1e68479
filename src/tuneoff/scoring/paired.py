"""One pair of contenders on the examples that both answered: its differences and its test.

- Independent examples, yes/no metric: exact McNemar with Tango's interval (`mcnemar.py`).
- Clustered examples, or a fraction: sign flips and their interval (`flips.py`).
- A contender with several seeds: Student's t. Its variance is that of the examples (or clusters)
  plus that of the seeds' scores; p is the larger of t's and the flips'.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from tuneoff.results import FlipCounts
from tuneoff.scoring.flips import JointFlips, flip_jointly
from tuneoff.scoring.intervals import (
    Bounds,
    clip_bounds,
    combine_variances,
    compute_mean_variance,
    compute_seed_variances,
    compute_t_quantile,
)
from tuneoff.scoring.mcnemar import (
    compute_mcnemar_p_value,
    compute_tango_interval,
    compute_tango_statistic,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

# Fewer units cannot reach 0.05: 2/2^5 is over it, 2/2^6 is not.
MIN_UNITS = 6
Values = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class SeedScores:
    """A contender's score by seed, of several seeds."""

    contender: str
    scores: tuple[float, ...]

    @property
    def freedom(self) -> float:
        """Return the degrees of freedom of the variance between seeds."""
        return len(self.scores) - 1.0

    @property
    def variance(self) -> float:
        """Return the variance between seeds."""
        return statistics.variance(self.scores)


# The seeds from which a contender's between-seed variance is estimated: empty if it is not trained,
# None if it is unknown.
KnownSeeds = Sequence[SeedScores] | None


@dataclass(frozen=True, slots=True)
class Pair:
    """Two contenders' scores by example id, and those of each seed if there are several."""

    a: str
    b: str
    scores_a: Values
    scores_b: Values
    seeds_a: Sequence[Values] = ()
    seeds_b: Sequence[Values] = ()
    between_a: KnownSeeds = None
    """For `training_variance.py` only."""
    between_b: KnownSeeds = None
    """For `training_variance.py` only."""

    def list_common_ids(self) -> list[str]:
        """Return the ids of the examples that both have."""
        return [id for id in self.scores_a if id in self.scores_b]


@dataclass(frozen=True, slots=True)
class MeasuredPair:
    """A pair's summed differences and sizes by unit (an example, or a cluster of them)."""

    pair: Pair
    metric: str
    cluster: str | None
    sums: Array
    sizes: Array
    spread: float
    """The variance of single examples' differences."""
    is_share: bool
    """Whether all scores lie in [0, 1]."""
    seeds: Sequence[Sequence[float]]
    """For each of the two that has several seeds: each seed's score over these examples."""
    counts: FlipCounts | None
    """The four counts of a yes/no metric; None for other metrics."""

    @property
    def units(self) -> int:
        """Return the number of units with an example of both."""
        return int((self.sizes > 0).sum())

    @property
    def difference(self) -> float:
        """Return the mean of a minus that of b."""
        return float(self.sums.sum() / self.sizes.sum())

    @property
    def is_mcnemar(self) -> bool:
        """Return whether the test is the exact binomial."""
        return self.counts is not None and self.cluster is None and not self.seeds

    @property
    def test(self) -> str:
        """Return the name of the test."""
        if self.seeds:
            return "t over seeds and " + ("examples" if self.cluster is None else "clusters")
        return "exact McNemar" if self.is_mcnemar else "cluster sign-flip"

    def p_value(self, by_flips: float) -> float:
        """Return the pair's own p-value.

        Args:
            by_flips: the p-value of its flips.
        """
        if self.is_mcnemar:
            return compute_mcnemar_p_value(cast("FlipCounts", self.counts))
        if not self.seeds:
            return by_flips
        variance, freedom = self.variance()
        if variance <= 0:
            return by_flips
        from scipy.special import stdtr

        t = abs(self.difference) / math.sqrt(variance)
        return max(by_flips, 2 * float(stdtr(freedom, -t)))

    def p_not_worse(self, flips: JointFlips | None, place: int, margin: float) -> float:
        """Return the one-sided p-value of "a is worse than b by `margin` or more"."""
        from scipy.special import ndtr, stdtr

        if self.is_mcnemar:
            counts = cast("FlipCounts", self.counts)
            return float(ndtr(-compute_tango_statistic(counts, -margin)))
        if self.units < MIN_UNITS or flips is None:
            return 1.0
        variance, freedom = self.variance() if self.seeds else (0.0, 1.0)
        if variance > 0:
            return float(stdtr(freedom, -(self.difference + margin) / math.sqrt(variance)))
        return flips.compute_p_above(place, -margin, self.difference)

    def variance(self) -> tuple[float, float]:
        """Return the variance of the difference over units and seeds, and its freedom."""
        if self.units < 2:  # one unit has no variance
            return math.inf, 1.0
        return combine_variances(
            [self.compute_unit_variance(), *compute_seed_variances(self.seeds)]
        )

    def compute_unit_variance(self) -> tuple[float, float]:
        """Return the variance of the difference over two or more units, and its freedom."""
        held = self.sizes > 0
        return compute_mean_variance(self.sums[held], self.sizes[held], self.spread)

    def compute_bounds(
        self, flips: JointFlips | None, place: int, level: float, inclusive: bool = False
    ) -> Bounds | None:
        """Return the interval at a level (0.05 for 95%), or None."""
        if self.is_mcnemar:
            counts = cast("FlipCounts", self.counts)
            return compute_tango_interval(counts, level)
        if self.units < MIN_UNITS or flips is None:
            return None
        variance, freedom = self.variance() if self.seeds else (0.0, 1.0)
        if variance > 0:
            half = compute_t_quantile(level, freedom) * math.sqrt(variance)
            bounds: Bounds | None = (self.difference - half, self.difference + half)
        else:
            bounds = flips.interval(place, level, inclusive)
        if bounds is not None and self.is_share:
            if bounds[1] - bounds[0] < 1e-12:
                bounds = self._bound_without_variation(level)
            return clip_bounds(*bounds, least=-1.0)
        return bounds

    def _bound_without_variation(self, level: float) -> Bounds:
        """Return the bounds of a pair whose units all differ alike.

        A resampled difference would not vary, and yet up to 3.7/n of all other units may (the rule
        of three, Hanley and Lippman-Hand, JAMA 1983).
        """
        unseen = 1 - (level / 2) ** (1 / self.units)
        difference = self.difference
        # Towards zero by less than the whole difference, like the test.
        inward = unseen * abs(difference) if difference else unseen
        low, high = (inward, unseen) if difference >= 0 else (unseen, inward)
        return difference - low, difference + high


def measure_pairs(
    pairs: Sequence[Pair], metric: str, clusters: Mapping[str, str] | None, cluster: str
) -> list[MeasuredPair]:
    """Return every pair over the same units; a pair need not have all of them."""
    import numpy as np

    # A contender is in several pairs, but its scores are read once.
    rated = {id(scores): scores for pair in pairs for scores in (pair.scores_a, pair.scores_b)}
    ids = list(dict.fromkeys(id for scores in rated.values() for id in scores))
    names = ids if clusters is None else [clusters.get(id, f"id {id}") for id in ids]
    number = {name: place for place, name in enumerate(dict.fromkeys(names))}
    unit = np.array([number[name] for name in names])
    columns = {
        key: np.array([float(scores.get(each, math.nan)) for each in ids])
        for key, scores in rated.items()
    }
    named = None if clusters is None else cluster
    return [
        _measure_pair(
            pair, metric, named, unit, columns[id(pair.scores_a)], columns[id(pair.scores_b)]
        )
        for pair in pairs
    ]


def _measure_pair(
    pair: Pair, metric: str, cluster: str | None, unit: Array, a: Array, b: Array
) -> MeasuredPair:
    """Return the differences of a pair.

    Args:
        a: the scores of the first contender, NaN where it has none.
        b: those of the second.
    """
    import numpy as np

    both = ~(np.isnan(a) | np.isnan(b))
    if not both.any():
        raise ValueError(f"{pair.a} and {pair.b} have no example in common")
    units = int(unit.max()) + 1
    unit, a, b = unit[both], a[both], b[both]
    several = [seeds for seeds in (pair.seeds_a, pair.seeds_b) if len(seeds) > 1]
    ids = pair.list_common_ids() if several else []
    return MeasuredPair(
        pair=pair,
        metric=metric,
        cluster=cluster,
        sums=np.bincount(unit, weights=a - b, minlength=units).astype(np.float64),
        sizes=np.bincount(unit, minlength=units).astype(np.float64),
        spread=float(np.var(a - b)),
        is_share=bool(min(a.min(), b.min()) >= 0 and max(a.max(), b.max()) <= 1),
        seeds=[
            [math.fsum(float(scores[id]) for id in ids) / len(ids) for scores in trainings]
            for trainings in several
        ],
        counts=_count_outcomes(a, b),
    )


def _count_outcomes(a: Array, b: Array) -> FlipCounts | None:
    """Return how often only a, only b, both and neither were right; None unless all is yes/no."""
    import numpy as np

    if not (np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all()):
        return None
    return FlipCounts(
        only_a=int((a > b).sum()),
        only_b=int((b > a).sum()),
        both=int((a * b).sum()),
        none=int(((1 - a) * (1 - b)).sum()),
    )


def flip_pairs(measured: Sequence[MeasuredPair]) -> JointFlips | None:
    """Return the joint flips of pairs over the same units; None if no pair needs them."""
    import numpy as np

    if len(measured) == 1 and measured[0].is_mcnemar:
        return None
    sums = np.stack([pair.sums for pair in measured], axis=1)
    return flip_jointly(sums, np.stack([pair.sizes for pair in measured], axis=1))
