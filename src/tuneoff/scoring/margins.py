"""Before a run: how many test examples it takes to show that a difference is smaller than a margin.

Two contenders are taken to be equally good. *Not worse* is parity (one-sided, 5%); *the same* are
two such tests. Independent examples: the normal approximation of Tango's score test, whose variance
is that of the margin itself. Clusters: Student's t with the design effect of clusters like those at
hand, of which more examples need more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tuneoff.scoring.intervals import SIGNIFICANT, quantile
from tuneoff.scoring.paired import LEAST_UNITS
from tuneoff.scoring.power import DISCORDANCE, POWER, design_effect

_MOST_ROUNDS = 50


@dataclass(frozen=True, slots=True)
class MarginExamples:
    """How many test examples a margin takes, for 15% and for 35% of answers that differ, and how
    many `examples` there are. Where examples share clusters, `clusters` like those at hand hold the
    `not_worse` ones."""

    points: float
    examples: int
    not_worse: tuple[int, int]
    same: tuple[int, int]
    clusters: tuple[int, int] | None = None


def find_margin_examples(
    n: int, margin: float, cluster_sizes: Sequence[int] | None = None
) -> MarginExamples:
    """Return how many test examples show equal contenders to be within a margin, with a power of
    80%.

    Args:
        n: how many there are.
        margin: a share of 1.
        cluster_sizes: examples of each cluster there is; None when they are independent.
    """
    few, many = DISCORDANCE
    # Of two tests each may miss half of what one may.
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
    """Return how many test examples show an equal contender to be not worse by a margin, with a
    power of 80%, where so large a share of the answers differs."""
    sizes = [size for size in cluster_sizes or () if size]
    if not sizes:
        return _count_examples(margin, discordance, 2 * (1 - POWER))
    clusters = _count_clusters(margin, discordance, 2 * (1 - POWER), sizes)
    return math.ceil(clusters * sum(sizes) / len(sizes))


def _count_examples(margin: float, discordance: float, missed: float) -> int:
    """Return the examples with which a test at 5% misses no more than half of `missed`."""
    # What Tango's test takes the share of each side to be where the difference is the margin.
    linear = discordance + 2 * margin
    root = max(0.0, linear**2 - 4 * discordance * margin * (1 + margin))
    at_margin = (linear + math.sqrt(root)) / 2 - margin * (1 + margin)
    rejects = quantile(2 * SIGNIFICANT, math.inf) * math.sqrt(max(at_margin, discordance))
    finds = quantile(missed, math.inf) * math.sqrt(discordance)
    return max(LEAST_UNITS, math.ceil(((rejects + finds) / margin) ** 2))


def _count_clusters(margin: float, discordance: float, missed: float, sizes: Sequence[int]) -> int:
    """Return how many clusters of such sizes it takes."""
    each = discordance * design_effect(sizes) * len(sizes) / sum(sizes)
    units = LEAST_UNITS
    for _ in range(_MOST_ROUNDS):  # fewer clusters have a wider t
        quantiles = quantile(2 * SIGNIFICANT, units - 1) + quantile(missed, units - 1)
        needed = max(LEAST_UNITS, math.ceil((quantiles / margin) ** 2 * each))
        if abs(needed - units) <= 1:
            return max(needed, units)
        units = needed
    return units
