"""The 95% interval of a score: a mean over examples that may share a cluster (a database).

Examples of one cluster are right or wrong together, so n of them carry less information than n
independent ones. The variance of the mean is that of its clusters (linearised, with the CR2
correction of Bell and McCaffrey, Survey Methodology 2002). Its degrees of freedom are
Satterthwaite's under equally correlated examples; they are fewer than clusters minus one if
clusters are very unequal. The interval is Wilson's (1927) for yes/no and Student's for fractions.
Both use the *effective* sample size n / deff · (t(n-1) / t(df))² of Korn and Graubard (Survey
Methodology 1998), which is at most n. Miller (arXiv 2411.00640) and Bowyer et al. (arXiv
2503.01747) say why an evaluation needs it.

If a contender was trained with several seeds, the variance of the seeds' scores is added, so the
interval covers both the choice of examples and the training. If each example was answered several
times, its value is the mean, whose variance contains the noise of sampling. A yes/no score then
uses Wilson's interval on at most as many observations as there are answers.

If all examples are alike, no variance can be estimated. The design effect is then that of an
intraclass correlation of `ALIKE_CORRELATION`. No interval has a width of zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

# The significance level of verdicts and of the 95% intervals.
SIGNIFICANCE_LEVEL = 0.05
ALIKE_CORRELATION = 0.1
_Z = 1.959963984540054  # 97.5% quantile of the normal distribution
Bounds = tuple[float, float]


def compute_wilson_interval(successes: float, n: float) -> Bounds:
    """Return Wilson's interval for `successes` out of `n`; (0, 1) if n is 0.

    Neither number need be whole.
    """
    if n <= 0:
        return 0.0, 1.0
    share = min(1.0, successes / n)
    middle = share + _Z**2 / (2 * n)
    half = _Z * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    scale = 1 + _Z**2 / n
    # At 0 and n the bounds are exactly 0 and 1, which rounding would miss by 1e-17.
    low = 0.0 if share == 0 else max(0.0, (middle - half) / scale)
    high = 1.0 if share == 1 else min(1.0, (middle + half) / scale)
    return low, high


def compute_score_interval(
    counts: Mapping[float, int],
    yes_no: bool,
    clusters: Sequence[tuple[float, int]] = (),
    seeds: Sequence[float] = (),
    answers: int = 1,
) -> Bounds | None:
    """Return the 95% interval of a mean; None if nothing bounds it.

    Nothing bounds a single value, or equal values, that are not shares.

    Args:
        counts: value → its frequency.
        yes_no: whether the values are yes or no, or means of these over seeds or samples.
        clusters: (sum of values, number of values) of each cluster. Fewer than two: the values are
            independent, or the score is about this one cluster.
        seeds: the score of each of several seeds, if the values are means over them.
        answers: the number of answers to one example that each value is the mean of. An example
            counts as one answer if they always agree, and at most as all of them.
    """
    n = sum(counts.values())
    if n == 0:
        return 0.0, 1.0
    mean = math.fsum(value * times for value, times in counts.items()) / n
    squares = math.fsum(times * (value - mean) ** 2 for value, times in counts.items())
    is_share = all(0 <= value <= 1 for value in counts)
    if squares <= 1e-18 * n:  # also of a single value
        units = len(clusters) if len(clusters) > 1 else n
        alike = compute_effective_size(n, 1 / _compute_alike_deff(n, clusters), units - 1)
        return compute_wilson_interval(mean * alike, alike) if is_share else None
    freely = n if yes_no and answers == 1 else n - 1  # a share's variance is p(1 - p)
    if len(clusters) < 2:
        variances = [(squares / freely / n, n - 1.0)]
    else:
        sums, sizes = zip(*clusters, strict=True)
        variances = [compute_mean_variance(_build_array(sums), _build_array(sizes), squares / n)]
    variance, freedom = combine_variances([*variances, *compute_seed_variances([seeds])])
    independent = mean * (1 - mean) / n if yes_no else squares / (n - 1) / n
    ratio = independent / variance if variance > 0 else math.inf
    effective = compute_effective_size(n, ratio, freedom, answers if yes_no else 1)
    if yes_no:
        return compute_wilson_interval(mean * effective, effective)
    half = compute_t_quantile(SIGNIFICANCE_LEVEL, n - 1) * math.sqrt(independent * n / effective)
    return clip_bounds(mean - half, mean + half) if is_share else (mean - half, mean + half)


def compute_effective_size(n: int, ratio: float, freedom: float, answers: int = 1) -> float:
    """Return the number of independent answers that n examples are worth.

    It is at most the number of all their answers.

    Args:
        ratio: the variance of n independent answers divided by the observed one (1 / deff).
        freedom: the degrees of freedom of the observed variance.
        answers: the number of answers to each example.
    """
    if n < 2:
        return float(n)
    most = n * answers
    known = compute_t_quantile(SIGNIFICANCE_LEVEL, most - 1) / compute_t_quantile(
        SIGNIFICANCE_LEVEL, min(freedom, most - 1)
    )
    return min(float(most), n * ratio * known**2)


def compute_mean_variance(sums: Array, sizes: Array, spread: float) -> tuple[float, float]:
    """Return the variance of a mean over clusters, and its degrees of freedom.

    The mean is `sum(sums) / sum(sizes)`.

    Args:
        sums: the sum of the examples' values in each of at least two clusters.
        sizes: the number of examples in each cluster.
        spread: the variance of single examples, from which their correlation follows.
    """
    n = float(sizes.sum())
    share = sizes / n
    weight = 1 / (1 - share)  # CR2: a large cluster pulls the mean towards itself
    residuals = sums - sizes * (float(sums.sum()) / n)
    variance = float(residuals**2 @ weight) / n**2
    excess = float(sizes @ sizes) / n - 1
    correlation = 0.0
    if spread > 0 and excess > 0:
        correlation = min(1.0, max(0.0, (variance * n / spread - 1) / excess))
    cluster = sizes * (1 - correlation) + sizes**2 * correlation
    # Satterthwaite: trace(G)² / trace(G²) with G = D^½ (I - 1h') diag(w) (I - h1') D^½, computed
    # without a matrix of clusters × clusters.
    total = float(cluster.sum())
    cross = -2 * share * cluster + total * share**2
    trace = float(weight @ (cluster + cross))
    a, b, c = (float(weight @ x) for x in (share**2, share * cluster, cluster**2))
    square = float(weight**2 @ (cluster**2 + 2 * cluster * cross))
    square += 2 * (a * c + b**2) - 4 * total * a * b + total**2 * a**2
    return variance, max(1.0, trace**2 / square)


def compute_seed_variances(seeds: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    """Return, per contender with several seeds, the variance of the seeds' mean and its freedom."""
    variances = []
    for scores in seeds:
        if len(scores) > 1:
            mean = math.fsum(scores) / len(scores)
            squares = math.fsum((score - mean) ** 2 for score in scores)
            variances.append((squares / (len(scores) - 1) / len(scores), len(scores) - 1.0))
    return variances


def combine_variances(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the sum of independent variances, and its degrees of freedom.

    Satterthwaite 1946.
    """
    variance = math.fsum(part for part, _ in parts)
    if variance <= 0:
        return 0.0, min(freedom for _, freedom in parts)
    return variance, variance**2 / math.fsum(part**2 / freedom for part, freedom in parts)


def compute_t_quantile(level: float, freedom: float) -> float:
    """Return the two-sided quantile of Student's t."""
    from scipy.special import stdtrit  # scipy.stats takes half a second to import

    return float(stdtrit(freedom, 1 - level / 2))


def clip_bounds(low: float, high: float, least: float = 0.0) -> Bounds:
    """Return bounds within [least, 1]."""
    return max(least, low), min(1.0, high)


def align_with_p_value(bounds: Bounds, difference: float, p_value: float) -> Bounds:
    """Return bounds adjusted to exclude 0 exactly if the p-value is under 0.05.

    Tango's and t bounds come from another distribution than the p-value beside them.
    """
    low, high = bounds
    if p_value >= SIGNIFICANCE_LEVEL:
        return min(low, 0.0), max(high, 0.0)
    least = difference / 1_000
    return (max(low, least), high) if difference > 0 else (low, min(high, least))


def _compute_alike_deff(n: int, clusters: Sequence[tuple[float, int]]) -> float:
    """Return the design effect of examples whose correlation cannot be estimated."""
    if len(clusters) < 2:
        return 1.0
    return 1 + (sum(size**2 for _, size in clusters) / n - 1) * ALIKE_CORRELATION


def _build_array(values: Sequence[float]) -> Array:
    import numpy as np

    return np.array(values, dtype=np.float64)
