"""Before a run: the smallest difference that a test set can show (its power).

It depends on the *discordance*: the share of answers that differ between two contenders, which is
unknown before the run. Over 496 pairs of real prediction files for Spider it was 32%; for close
contenders it is 15% and less. So a range is given. If the difference exceeds the discordance, every
differing answer counts for the same side.

- Independent examples: the power of the exact McNemar test (Connor, Biometrics 1987, with the exact
  distribution in place of his approximation). Its level is the one that the largest of all pairs'
  statistics leaves to one pair (Tukey's range).
- Few clusters: the joint sign-flip test itself, on simulated differences of clusters with
  correlated examples. Many clusters: the power of a t-test.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from tuneoff.scoring.intervals import SIGNIFICANCE_LEVEL, combine_variances, compute_t_quantile
from tuneoff.scoring.mcnemar import compute_binomial_cdf
from tuneoff.scoring.paired import MIN_UNITS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

DISCORDANCE = (0.15, 0.35)
CORRELATION = 0.05
POWER = 0.8
# The standard deviation between seeds where it was measured: ViGGO, two contenders, three seeds
# each.
MEASURED_DEVIATION = 0.04
_STEPS = 20
# Simulated data sets per difference, flips of each, and bisection steps.
_SIMULATED_DATA_SETS, _FLIPS, _SIMULATED_STEPS = 300, 400, 8
# With more clusters the flips' distribution is close enough to Student's.
FEW_CLUSTERS = 30


@dataclass(frozen=True, slots=True)
class Detectable:
    """The smallest true differences found with a power of 80%, of a yes/no metric in [0, 1]."""

    few: float | None
    """If few answers differ (15%); None if no difference is found."""
    many: float | None
    """If many answers differ (35%); None if no difference is found."""


def find_detectable(
    n: int, cluster_sizes: Sequence[int] | None = None, contenders: int = 2
) -> Detectable:
    """Return the smallest differences that a test set can show.

    Args:
        n: the number of test examples.
        cluster_sizes: the examples of each cluster; None if they are independent.
        contenders: how many are compared, each with each.
    """
    few, many = (
        find_smallest_difference(n, cluster_sizes, contenders, discordance)
        for discordance in DISCORDANCE
    )
    return Detectable(few, many)


def find_smallest_difference(
    n: int,
    cluster_sizes: Sequence[int] | None = None,
    contenders: int = 2,
    discordance: float = DISCORDANCE[0],
) -> float | None:
    """Return the smallest true difference that is found with a power of 80%, or None."""
    units = n if cluster_sizes is None else sum(size > 0 for size in cluster_sizes)
    if units < MIN_UNITS:
        return None
    if cluster_sizes is None:
        level = compute_pair_level(max(2, contenders))
        return _search(lambda x: compute_mcnemar_power(n, x, max(discordance, x), level), _STEPS)
    if units > FEW_CLUSTERS:
        return _find_clustered_difference(cluster_sizes, max(2, contenders), discordance)
    power = _build_clustered_power(cluster_sizes, max(2, contenders), discordance)
    return _search(power, _SIMULATED_STEPS)


def find_way_detectable(
    n: int, cluster_sizes: Sequence[int] | None, contenders: int, seeds: int
) -> Detectable:
    """Return the smallest difference of two ways of training that this many seeds can show.

    Seeds are assumed to vary scores as much as in the measurement (`MEASURED_DEVIATION`).
    """
    few, many = (
        _find_way_difference(n, cluster_sizes, contenders, seeds, discordance)
        for discordance in DISCORDANCE
    )
    return Detectable(few, many)


def _find_way_difference(
    n: int, cluster_sizes: Sequence[int] | None, contenders: int, seeds: int, discordance: float
) -> float | None:
    """Return the smallest difference that Student's t over units and seeds finds, or None.

    The level is adjusted by Holm's method.
    """
    sizes = [1] * n if cluster_sizes is None else [size for size in cluster_sizes if size]
    if len(sizes) < MIN_UNITS:
        return None
    level = SIGNIFICANCE_LEVEL / max(1, math.comb(contenders, 2))
    between = (MEASURED_DEVIATION**2 / seeds, seeds - 1.0)

    def detectable(differing: float) -> float:
        examples = (differing * compute_design_effect(sizes) / sum(sizes), len(sizes) - 1.0)
        variance, freedom = combine_variances([examples, between, between])
        quantiles = compute_t_quantile(level, freedom) + compute_t_quantile(
            2 * (1 - POWER), freedom
        )
        return quantiles * math.sqrt(variance)

    # If the difference exceeds the discordance, every answer that differs is part of it.
    if detectable(discordance) <= discordance:
        return detectable(discordance)
    return _search(lambda x: float(detectable(max(x, discordance)) <= x), _STEPS)


def compute_design_effect(sizes: Sequence[int]) -> float:
    """Return the design effect of Kish (1965) for clusters of unequal size."""
    return 1 + (sum(size**2 for size in sizes) / sum(sizes) - 1) * CORRELATION


def describe_power(
    n: int, cluster_sizes: Sequence[int] | None, contenders: int, cluster: str | None = None
) -> str:
    """Return a sentence about the differences that a test set can show, and its assumptions."""
    held, units = "", n
    if cluster_sizes is not None:
        units = sum(size > 0 for size in cluster_sizes)
        held = f" in {describe_units(units, cluster)}"
    if units < MIN_UNITS:
        return describe_floor(units, None if cluster_sizes is None else cluster) + "."
    detectable = find_detectable(n, cluster_sizes, contenders)
    pairs = math.comb(contenders, 2)
    over = f", over {pairs} pairs" if pairs > 1 else ""
    few, many = (f"{share:.0%}" for share in DISCORDANCE)
    if detectable.few is None:
        return f"{n} test examples{held} can hardly show any difference{over}."
    shown = f"from {100 * detectable.few:.1f} points if {few} of the answers differ"
    shown += f", from {100 * detectable.many:.1f} if {many} do" if detectable.many else ""
    return f"{n} test examples{held} can show differences {shown} ({POWER:.0%} power{over})."


def describe_floor(units: int, cluster: str | None) -> str:
    """Return why too few examples or clusters have no interval, without a full stop."""
    return (
        f"{describe_units(units, cluster)} can show no difference, however large; "
        f"{MIN_UNITS} are the least"
    )


def describe_units(units: int, cluster: str | None) -> str:
    """Return the number of examples or clusters as text: `8 databases`."""
    if cluster is None:
        return f"{units} test example" + "s" * (units != 1)
    if cluster == "db_id":
        return f"{units} database" + "s" * (units != 1)
    return f"{units} cluster{'s' * (units != 1)} ({cluster})"


def compute_mcnemar_power(n: int, difference: float, discordance: float, level: float) -> float:
    """Return how often the exact McNemar test of n examples rejects, either way."""
    import numpy as np
    from scipy.special import gammaln

    pairs = np.arange(n + 1.0)
    chance = min(discordance, 1 - 1e-12)
    weights = np.exp(
        gammaln(n + 1) - gammaln(pairs + 1) - gammaln(n - pairs + 1)
        + pairs * math.log(chance) + (n - pairs) * math.log1p(-chance)
    )  # fmt: skip
    likely = weights > 1e-12
    pairs, weights = pairs[likely], weights[likely]
    limit = _compute_rejection_limits(pairs, level)
    share = (discordance + difference) / (2 * discordance)
    some = np.maximum(limit, 0)
    rejected = compute_binomial_cdf(some, pairs, 1 - share) + compute_binomial_cdf(
        some, pairs, share
    )
    return float(weights @ np.where(limit < 0, 0.0, rejected))


def _compute_rejection_limits(pairs: Array, level: float) -> Array:
    """Return the largest count of the rarer side with which the two-sided test rejects.

    One value for each number of discordant pairs; -1 if the test never rejects.
    """
    import numpy as np

    low, high = np.full(len(pairs), -1.0), np.floor(pairs / 2)
    while (low < high).any():
        middle = np.ceil((low + high) / 2)
        rejects = 2 * compute_binomial_cdf(middle, pairs, 0.5) < level
        low, high = np.where(rejects, middle, low), np.where(rejects, high, middle - 1)
    return low


@cache
def compute_pair_level(contenders: int) -> float:
    """Return the level that max-T leaves to one pair of equally different contenders.

    It is the chance of a normal difference beyond the 95% quantile of their studentized range
    (Tukey 1953).
    """
    import numpy as np
    from scipy.special import ndtr

    z = np.linspace(-9, 9, 2_001)
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) * (z[1] - z[0])

    def within(width: float) -> float:
        return float(contenders * density @ (ndtr(z) - ndtr(z - width)) ** (contenders - 1))

    low, high = 0.0, 12.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if within(middle) < 1 - SIGNIFICANCE_LEVEL else (low, middle)
    return 2 * float(ndtr(-high / math.sqrt(2)))


def _build_clustered_power(
    sizes: Sequence[int], contenders: int, discordance: float
) -> Callable[[float], float]:
    """Return the power of the joint flips, as a function of the difference.

    The first contender is ahead of all others by the difference.
    """
    import numpy as np

    kept = np.array(sorted(size for size in sizes if size), dtype=np.float64)
    rng = np.random.Generator(np.random.PCG64(0))
    noise = rng.standard_normal((_SIMULATED_DATA_SETS, len(kept), contenders))
    signs = _simulate_signs(rng, len(kept))
    a, b = np.triu_indices(contenders, 1)
    deff = 1 + (kept - 1) * CORRELATION

    def power(difference: float) -> float:
        differing = max(discordance, difference)
        # Each of two contenders has half of the variance of their difference.
        answers = noise * np.sqrt(kept * deff * differing / 2)[None, :, None]
        answers[:, :, 0] += kept * difference
        sums = answers[:, :, a] - answers[:, :, b]
        statistic = np.abs(signs @ sums) / np.sqrt((sums**2).sum(axis=1))[:, None, :]
        ranks = statistic.argsort(axis=1).argsort(axis=1) + statistic / (1 + statistic) / 2
        p = (ranks.max(axis=2) >= ranks[:, :1, 0]).mean(axis=1)
        return float((p < SIGNIFICANCE_LEVEL).mean())

    return power


def _find_clustered_difference(
    sizes: Sequence[int], contenders: int, discordance: float
) -> float | None:
    """Return the smallest difference that a t-test of many clusters finds, or None."""
    total, freedom, deff = (
        sum(sizes),
        sum(size > 0 for size in sizes) - 1,
        compute_design_effect(sizes),
    )
    quantiles = compute_t_quantile(compute_pair_level(contenders), freedom) + compute_t_quantile(
        2 * (1 - POWER), freedom
    )
    smallest = quantiles * math.sqrt(discordance * deff / total)
    if smallest > discordance:  # then more answers differ than was assumed
        smallest = quantiles**2 * deff / total
    return smallest if smallest < 1 else None


def _simulate_signs(rng: np.random.Generator, units: int) -> Array:
    """Return signs of flips × units, the identity flip first.

    Few units have every flip; complements are left out, because they give the same statistic.
    """
    import numpy as np

    if 2 ** (units - 1) <= _FLIPS:
        bits = np.arange(2 ** (units - 1))[:, None] >> np.arange(units) & 1
        return (1 - 2 * bits).astype(np.float64)
    signs = (2 * rng.integers(0, 2, (_FLIPS, units)) - 1).astype(np.float64)
    signs[0] = 1
    return signs


def _search(power: Callable[[float], float], steps: int) -> float | None:
    """Return the smallest difference with enough power, by bisection; None if there is none."""
    if power(1.0) < POWER:
        return None
    low, high = 0.0, 1.0
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (middle, high) if power(middle) < POWER else (low, middle)
    return high
