"""Compares pairs of contenders on the same examples: is the difference real, and how large may it
be?

`paired.py` tests each pair. p-values are adjusted over all pairs by the step-down of the joint
flips. Pairs with several seeds are also adjusted by Holm's method (1979) over these pairs; the
larger p counts. A pair has three intervals:

- at 95%; it excludes 0 exactly when `p_value` is under 0.05
- at the level that the adjustment leaves to it; it excludes 0 exactly when `p_adjusted` is under
  0.05
- at 90%, for two one-sided tests at 5% that a difference is smaller than a margin
  (`equivalence.py`)

Flips over fewer than `MIN_UNITS` clusters can show no difference, so there is no interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Literal

from tuneoff.results import Comparison
from tuneoff.scoring.equivalence import DEFAULT_MARGIN, add_outcome
from tuneoff.scoring.flips import JointFlips
from tuneoff.scoring.holm import adjust_by_holm
from tuneoff.scoring.intervals import SIGNIFICANCE_LEVEL, align_with_p_value
from tuneoff.scoring.paired import MeasuredPair, Pair, Values, flip_pairs, measure_pairs
from tuneoff.scoring.training_variance import Way, add_ways, find_seeds

# The version of intervals and tests (docs/scoring.md); 1 before the joint flips.
TESTS_VERSION = 2
EQUIVALENCE_LEVEL = 0.10
PairVerdict = Literal["a better", "b better", "tie"]


def compare_all(
    scores_by_contender: Mapping[str, Values],
    metric: str,
    clusters: Mapping[str, str] | None = None,
    cluster: str = "cluster",
    seeds: Mapping[str, Sequence[Values]] | None = None,
    margin: float = DEFAULT_MARGIN,
    ways: Mapping[str, Way | None] | None = None,
) -> tuple[Comparison, ...]:
    """Return the comparison of every pair of contenders, on their common examples.

    A pair without a common example is left out, because nothing was measured.

    Args:
        clusters: example id → cluster; a missing example is a cluster of its own. None: examples
            are independent.
        cluster: the name of the clusters, for instance `db_id`.
        seeds: contender → the scores of each seed, if there are several; `scores_by_contender`
            holds their means.
        margin: a smaller difference of shares does not matter.
        ways: contender → its way of training (`training_variance.py`), if known.
    """
    trainings, between = seeds or {}, find_seeds(ways or {}, seeds or {})
    pairs = [
        Pair(
            a,
            b,
            scores_a,
            scores_b,
            trainings.get(a, ()),
            trainings.get(b, ()),
            between.get(a),
            between.get(b),
        )
        for (a, scores_a), (b, scores_b) in combinations(scores_by_contender.items(), 2)
        if any(id in scores_b for id in scores_a)
    ]
    return compare_pairs(pairs, metric, clusters, cluster, margin)


def compare_pairs(
    pairs: Sequence[Pair],
    metric: str,
    clusters: Mapping[str, str] | None = None,
    cluster: str = "cluster",
    margin: float = DEFAULT_MARGIN,
) -> tuple[Comparison, ...]:
    """Return the comparisons of these pairs, with p-values adjusted over all of them.

    Raises:
        ValueError: a pair has no example in common.
    """
    if not pairs:
        return ()
    measured = measure_pairs(pairs, metric, clusters, cluster)
    flips = flip_pairs(measured)
    own, by_flips, levels = [0.0], [0.0], [SIGNIFICANCE_LEVEL]
    if flips is not None:
        own, (by_flips, levels) = flips.p_values(), flips.adjust()
    p_values = [tested.p_value(p) for tested, p in zip(measured, own, strict=True)]
    # An exact p-value may exceed the one of random flips.
    adjusted = [max(pair) for pair in zip(by_flips, p_values, strict=True)]
    seeded = [place for place, tested in enumerate(measured) if tested.seeds]
    by_holm = adjust_by_holm([p_values[place] for place in seeded])
    for place, (p, level) in zip(seeded, by_holm, strict=True):
        adjusted[place], levels[place] = max(adjusted[place], p), level
    judged = (
        _build_comparison(tested, flips, place, p_values[place], adjusted[place], levels[place])
        for place, tested in enumerate(measured)
    )
    outcomes = [
        add_outcome(pair, margin if tested.is_share else None)
        for tested, pair in zip(measured, judged, strict=True)
    ]
    return add_ways(measured, outcomes)


def _build_comparison(
    measured: MeasuredPair,
    flips: JointFlips | None,
    place: int,
    p_value: float,
    p_adjusted: float,
    level: float,
) -> Comparison:
    difference = measured.difference
    low = high = low_adjusted = high_adjusted = None
    if bounds := measured.compute_bounds(flips, place, SIGNIFICANCE_LEVEL):
        low, high = align_with_p_value(bounds, difference, p_value)
    if bounds := measured.compute_bounds(flips, place, level, inclusive=True):
        low_adjusted, high_adjusted = align_with_p_value(bounds, difference, p_adjusted)
    low_90, high_90 = measured.compute_bounds(flips, place, EQUIVALENCE_LEVEL) or (None, None)
    verdict: PairVerdict = "tie"
    if p_adjusted < SIGNIFICANCE_LEVEL and difference:
        verdict = "a better" if difference > 0 else "b better"
    return Comparison(
        a=measured.pair.a,
        b=measured.pair.b,
        metric=measured.metric,
        difference=difference,
        low=low,
        high=high,
        p_value=p_value,
        p_adjusted=p_adjusted,
        test=measured.test,
        cluster=measured.cluster,
        verdict=verdict,
        low_adjusted=low_adjusted,
        high_adjusted=high_adjusted,
        low_90=low_90,
        high_90=high_90,
        units=measured.units,
        flips=measured.counts,
    )
