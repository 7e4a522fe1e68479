"""McNemar's test and Tango's interval for two contenders' yes/no answers to independent examples.

Only the discordant examples, which exactly one of the two has right, show which is better. If
neither is, each falls to either side like a coin (McNemar, Psychometrika 1947, with the exact
binomial). The interval inverts the score test of the paired difference (Tango, Statistics in
Medicine 1998). Its coverage holds even where few or no answers differ.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tuneoff.results import FlipCounts
from tuneoff.scoring.intervals import SIGNIFICANCE_LEVEL, Bounds

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


def compute_mcnemar_p_value(counts: FlipCounts) -> float:
    """Return the exact two-sided p-value of McNemar's test."""
    discordant = counts.only_a + counts.only_b
    if discordant == 0:
        return 1.0
    return min(
        1.0, 2 * float(compute_binomial_cdf(min(counts.only_a, counts.only_b), discordant, 0.5))
    )


def compute_binomial_cdf(successes: Array | float, n: Array | float, chance: float) -> Array:
    """Return the probability of at most `successes` in n, both whole and not negative."""
    import numpy as np
    from scipy.special import betainc  # scipy.stats takes half a second to import

    fails = np.maximum(np.subtract(n, successes), 1)
    return np.where(np.less(successes, n), betainc(fails, np.add(successes, 1), 1 - chance), 1.0)


def compute_tango_interval(counts: FlipCounts, level: float = SIGNIFICANCE_LEVEL) -> Bounds:
    """Return Tango's score interval of the difference of two paired shares."""
    from scipy.optimize import brentq
    from scipy.special import ndtri

    z, edge = -float(ndtri(level / 2)), 1 - 1e-12

    def cross(quantile: float) -> float:
        root = brentq(
            lambda x: compute_tango_statistic(counts, x) - quantile, -edge, edge, xtol=1e-12
        )
        return float(root)

    low = -1.0 if counts.only_b == counts.n else cross(z)
    high = 1.0 if counts.only_a == counts.n else cross(-z)
    return low, high


def compute_tango_statistic(counts: FlipCounts, difference: float) -> float:
    """Return by how many standard errors the observed difference exceeds this one.

    The standard error is the one at this difference.
    """
    n, only_a, only_b = counts.n, counts.only_a, counts.only_b
    linear = -only_a - only_b + (2 * n - only_a + only_b) * difference
    root = linear**2 + 8 * n * only_b * difference * (1 - difference)
    other = (math.sqrt(max(0.0, root)) - linear) / (4 * n)
    variance = n * (2 * other + difference * (1 - difference))
    distance = only_a - only_b - n * difference
    return distance / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, distance)
