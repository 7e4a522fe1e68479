"""Before a run: the smallest difference that a test set can show.

Independent examples: the power of the exact McNemar test that `statistics.py` carries out
(Connor, Biometrics 1987, with the exact distribution in place of his approximation). It
depends on how many answers differ between two contenders, the *discordance*; where the
difference is larger than that, every answer that differs counts for the same side.

Examples in clusters: a t-test of the clusters' differences, with the design effect of
Kish (1965) for clusters of unequal size and an intraclass correlation of the differences.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tuneoff.scoring.statistics import SIGNIFICANT

DISCORDANCE = 0.15
CORRELATION = 0.05
POWER = 0.8
_STEPS = 30


def smallest_difference(
    n: int,
    cluster_sizes: Sequence[int] | None = None,
    comparisons: int = 1,
    discordance: float = DISCORDANCE,
    correlation: float = CORRELATION,
    power: float = POWER,
) -> float | None:
    """The smallest true difference (of a yes/no metric, in [0, 1]) that is found with this
    power; None when none can be.

    Args:
        n: test examples.
        cluster_sizes: examples of each cluster; None when they are independent.
        comparisons: pairs of contenders, over which Holm's method adjusts.
    """
    alpha = SIGNIFICANT / max(1, comparisons)
    if cluster_sizes is not None:
        return _clustered(cluster_sizes, alpha, discordance, correlation, power)
    if n == 0 or mcnemar_power(n, 1.0, 1.0, alpha) < power:
        return None
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if mcnemar_power(n, middle, max(discordance, middle), alpha) < power:
            low = middle
        else:
            high = middle
    return high


def sentence(n: int, cluster_sizes: Sequence[int] | None, comparisons: int) -> str:
    """What a test set can show, with what was assumed."""
    found = smallest_difference(n, cluster_sizes, comparisons)
    held = f" in {len(cluster_sizes)} clusters" if cluster_sizes is not None else ""
    pairs = f" over {comparisons} pairs" if comparisons > 1 else ""
    if found is None:
        return (
            f"{n} test examples{held} can show no difference{pairs}, however large; "
            "give more" + (" clusters." if held else " examples.")
        )
    assumed = f"if {max(DISCORDANCE, found):.0%} of the answers differ"
    return (
        f"{n} test examples{held} can show differences from {100 * found:.1f} points{pairs} "
        f"({POWER:.0%} power, {assumed})."
    )


def mcnemar_power(n: int, difference: float, discordance: float, alpha: float) -> float:
    """How often the exact McNemar test of n examples rejects, either way."""
    import numpy as np
    from scipy.stats import binom

    pairs = np.arange(n + 1)
    weights = binom.pmf(pairs, n, discordance)
    likely = weights > 1e-12
    pairs, weights = pairs[likely], weights[likely]
    # The largest number of the rarer kind with which the two-sided test still rejects.
    limit = binom.ppf(alpha / 2, pairs, 0.5)
    limit = np.where(2 * binom.cdf(limit, pairs, 0.5) > alpha, limit - 1, limit)
    share = (discordance + difference) / (2 * discordance)
    rejected = binom.cdf(limit, pairs, 1 - share) + binom.cdf(limit, pairs, share)
    return float(weights @ np.where(limit < 0, 0.0, rejected))


def _clustered(
    sizes: Sequence[int], alpha: float, discordance: float, correlation: float, power: float
) -> float | None:
    from scipy.stats import t

    clusters = [size for size in sizes if size]
    # The sign-flip test of k clusters cannot give a p below 2 / 2^k.
    if len(clusters) < 2 or 2.0 ** (1 - len(clusters)) >= alpha:
        return None
    total = sum(clusters)
    design = 1 + (sum(size**2 for size in clusters) / total - 1) * correlation
    freedom = len(clusters) - 1
    quantiles = float(t.ppf(1 - alpha / 2, freedom) + t.ppf(power, freedom))
    found = quantiles * math.sqrt(discordance * design / total)
    if found > discordance:  # more answers differ then than was assumed
        found = min(1.0, quantiles**2 * design / total)
    return found if found < 1 else None
