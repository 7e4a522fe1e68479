"""Before a run: the number of test examples that show a difference to be below a margin.

Two contenders are assumed to be equally good. *Not worse* is parity (one-sided, 5%); *the same* is
two such tests. Independent examples use the normal approximation of Tango's score test, whose
variance is that at the margin. Clusters use Student's t with the design effect of clusters like the
given ones; more examples then need more clusters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tuneoff.scoring.intervals import SIGNIFICANCE_LEVEL, compute_t_quantile
from tuneoff.scoring.paired import MIN_UNITS
from tuneoff.scoring.power import DISCORDANCE, POWER, compute_design_effect

_MAX_ROUNDS = 50


@dataclass(frozen=True, slots=True)
class MarginExamples:
    """The number of test examples that a margin needs.

    Pairs are for 15% and for 35% of answers that differ.
    """

    points: float
    """The margin in points."""
    examples: int
    """The number of test examples there are."""
    not_worse: tuple[int, int]
    """The examples that show parity."""
    same: tuple[int, int]
    """The examples that show equivalence."""
    clusters: tuple[int, int] | None = None
    """The clusters that hold the `not_worse` examples; None if examples are independent."""


def find_margin_examples(
    n: int, margin: float, cluster_sizes: Sequence[int] | None = None
) -> MarginExamples:
    """Return the number of test examples that show equal contenders to be within a margin.

    The power is 80%.

    Args:
        n: the number of test examples there are.
        margin: as a fraction of 1.
        cluster_sizes: the examples of each cluster; None if they are independent.
    """
    few, many = DISCORDANCE
    # Each of two tests may miss half as often as a single one.
    one, both = 2 * (1 - POWER), 1 - POWER
    points = round(100 * margin, 10)
    sizes = [size for size in cluster_sizes or () if size]
    if not sizes:
        return MarginExamples(
            points,
            n,
            not_worse=(_count_examples(margin, few, one), _count_examples(margin, many, one)),
            same=(_count_examples(margin, few, both), _count_examples(margin, many, both)),
        )
    needed = [_count_clusters(margin, share, one, sizes) for share in DISCORDANCE]
    needed_of_same = [_count_clusters(margin, share, both, sizes) for share in DISCORDANCE]
    mean = sum(sizes) / len(sizes)
    return MarginExamples(
        points,
        n,
        not_worse=(math.ceil(needed[0] * mean), math.ceil(needed[1] * mean)),
        same=(math.ceil(needed_of_same[0] * mean), math.ceil(needed_of_same[1] * mean)),
        clusters=(needed[0], needed[1]),
    )


def count_needed(
    margin: float, discordance: float, cluster_sizes: Sequence[int] | None = None
) -> int:
    """Return the number of test examples that show an equal contender to be not worse.

    The power is 80%.

    Args:
        discordance: the share of answers that differ.
    """
    sizes = [size for size in cluster_sizes or () if size]
    if not sizes:
        return _count_examples(margin, discordance, 2 * (1 - POWER))
    clusters = _count_clusters(margin, discordance, 2 * (1 - POWER), sizes)
    return math.ceil(clusters * sum(sizes) / len(sizes))


def _count_examples(margin: float, discordance: float, missed: float) -> int:
    """Return the number of examples with which a 5% test misses at most half of `missed`."""
    # The share of each side under Tango's null hypothesis, where the difference is the margin.
    linear = discordance + 2 * margin
    root = max(0.0, linear**2 - 4 * discordance * margin * (1 + margin))
    at_margin = (linear + math.sqrt(root)) / 2 - margin * (1 + margin)
    rejects = compute_t_quantile(2 * SIGNIFICANCE_LEVEL, math.inf) * math.sqrt(
        max(at_margin, discordance)
    )
    finds = compute_t_quantile(missed, math.inf) * math.sqrt(discordance)
    return max(MIN_UNITS, math.ceil(((rejects + finds) / margin) ** 2))


def _count_clusters(margin: float, discordance: float, missed: float, sizes: Sequence[int]) -> int:
    """Return the number of clusters of these sizes that are needed."""
    cluster_variance = discordance * compute_design_effect(sizes) * len(sizes) / sum(sizes)
    units = MIN_UNITS
    for _ in range(_MAX_ROUNDS):  # t is wider for fewer clusters
        quantiles = compute_t_quantile(2 * SIGNIFICANCE_LEVEL, units - 1) + compute_t_quantile(
            missed, units - 1
        )
        needed = max(MIN_UNITS, math.ceil((quantiles / margin) ** 2 * cluster_variance))
        if abs(needed - units) <= 1:
            return max(needed, units)
        units = needed
    return units
