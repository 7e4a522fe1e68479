"""Intervals and the paired test: is the difference real?

All intervals are 95%. A yes/no metric gets Wilson's interval (Wilson, 1927), a fraction
a percentile bootstrap (Efron, 1979). Two contenders are compared on the examples that
both answered:

- independent examples, yes/no metric: exact McNemar, a binomial test of the discordant
  pairs;
- examples that share something (a database), or a fraction: a sign-flip test over
  clusters, for McNemar rejects far too often where examples of one cluster are right or
  wrong together. With five clusters or fewer it can never find a difference (the
  smallest possible p is 2/32);
- contenders trained with several seeds: a t-test on each example's mean over the seeds, whose
  variance is that of the examples (or clusters) plus that of the seeds' scores, with the
  degrees of freedom of Welch (1947) and Satterthwaite (1946); its p is never smaller than that
  of the sign-flip on the same means. Of a contender with a single training nobody knows how
  much training varies; the test then covers the examples alone.

p-values are adjusted over all pairs of contenders by Holm's method (Holm, 1979). Every
random number is seeded: the same scores give the same report. What is said of shares, scores
between 0 and 1, is said only where all of them are; a metric of one's own may be any number.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING

from tuneoff.records import Comparison

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

SIGNIFICANT = 0.05
RESAMPLES = 2_000
FLIPS = 10_000
EXACT_CLUSTERS = 16
_SEED = 0
_BLOCK_NUMBERS = 2_000_000
_Z = 1.959963984540054  # 97.5% quantile of the normal distribution


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Wilson's interval for `successes` out of `n`; (0, 1) when n is 0."""
    if n == 0:
        return 0.0, 1.0
    share = successes / n
    middle = share + _Z**2 / (2 * n)
    half = _Z * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    scale = 1 + _Z**2 / n
    # At 0 and n the bounds are exactly 0 and 1, which rounding would miss by 1e-17.
    low = 0.0 if successes == 0 else (middle - half) / scale
    high = 1.0 if successes == n else (middle + half) / scale
    return low, high


def bootstrap(counts: Mapping[float, int]) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean; (0, 1) without values.

    Args:
        counts: how often each value occurred. How often it occurs in a sample drawn again is
            a multinomial number, so nothing needs to be drawn value by value.
    """
    import numpy as np

    n = sum(counts.values())
    if n == 0:
        return 0.0, 1.0
    values = np.array(sorted(counts), dtype=np.float64)
    shares = np.array([counts[value] for value in sorted(counts)], dtype=np.float64) / n
    rng = np.random.default_rng(_SEED)
    means = np.concatenate(
        [rng.multinomial(n, shares, size) @ values / n for size in _blocks(RESAMPLES, len(values))]
    )
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def compare(
    a: str,
    b: str,
    metric: str,
    pairs: Sequence[tuple[float, float]],
    clusters: Sequence[str] | None = None,
    cluster: str = "cluster",
    seeds: Sequence[Sequence[float]] = (),
) -> Comparison:
    """Contender a against b; `p_adjusted` is `p_value` until `compare_all` adjusts it.

    Args:
        pairs: (score of a, score of b) of each example both answered, at least one.
        clusters: of each pair, what it belongs to; None when examples are independent.
        cluster: what the clusters are, for instance `db_id`; named in the result.
        seeds: the scores over these examples of each training of a, and of b, where there
            are several.

    Raises:
        ValueError: there are no pairs.
    """
    if not pairs:
        raise ValueError(f"{a} and {b} have no example in common")
    sums, sizes = _by_cluster(pairs, clusters)
    difference = float(sums.sum() / len(pairs))
    named = None if clusters is None else cluster
    shares = all(0 <= value <= 1 for pair in pairs for value in pair)
    varying = [scores for scores in seeds if len(scores) > 1]
    if varying:
        low, high, p_value = _over_seeds(difference, sums, sizes, varying, shares)
        test = "t over seeds and clusters" if clusters is not None else "t over seeds and examples"
        return _judged(
            Comparison(a, b, metric, difference, low, high, p_value, p_value, test, named, "tie"),
            p_value,
        )
    # Differences of single examples have few values, and few values are drawn faster.
    if shares and float((sums / sizes).std()) < 1e-12:
        low, high = _without_variation(difference, len(sums))
    elif clusters is None:
        low, high = bootstrap(Counter(sums.tolist()))
    else:
        low, high = _bootstrap_ratio(sums, sizes)
    binary = all(x in (0, 1) and y in (0, 1) for x, y in pairs)
    if clusters is None and binary:
        test, p_value = "exact McNemar", _mcnemar(pairs)
    else:
        test, p_value = "cluster sign-flip", _sign_flip(sums)
    unjudged = Comparison(a, b, metric, difference, low, high, p_value, p_value, test, named, "tie")
    return _judged(unjudged, p_value)


def compare_all(
    scores_by_contender: Mapping[str, Mapping[str, float]],
    metric: str,
    clusters: Mapping[str, str] | None = None,
    cluster: str = "cluster",
    seeds: Mapping[str, Sequence[Mapping[str, float]]] | None = None,
) -> tuple[Comparison, ...]:
    """Every pair of contenders, in their order, on the example ids they have in common.

    A pair without a common example is left out: nothing was measured. An id that
    `clusters` does not know is a cluster of its own.

    Args:
        seeds: by contender, the scores of each of its trainings, where there are several;
            `scores_by_contender` holds their means.
    """
    found: list[Comparison] = []
    for (a, scores_a), (b, scores_b) in combinations(scores_by_contender.items(), 2):
        common = [id for id in scores_a if id in scores_b]
        if common:
            pairs = [(float(scores_a[id]), float(scores_b[id])) for id in common]
            groups = None if clusters is None else [clusters.get(id, f"id {id}") for id in common]
            means = [
                [
                    sum(scores[id] for id in common) / len(common)
                    for scores in (seeds or {}).get(name, ())
                ]
                for name in (a, b)
            ]
            found.append(compare(a, b, metric, pairs, groups, cluster, means))
    return judged(found)


def judged(found: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """Comparisons with their p-values adjusted over all of them, and their verdicts by these."""
    p_values = holm([comparison.p_value for comparison in found])
    return tuple(_judged(c, p) for c, p in zip(found, p_values, strict=True))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted by Holm's step-down method, in the order given."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def _judged(comparison: Comparison, p_adjusted: float) -> Comparison:
    if p_adjusted >= SIGNIFICANT or comparison.difference == 0:
        return replace(comparison, p_adjusted=p_adjusted, verdict="tie")
    if comparison.difference > 0:
        return replace(comparison, p_adjusted=p_adjusted, verdict="a better")
    return replace(comparison, p_adjusted=p_adjusted, verdict="b better")


def _without_variation(difference: float, n: int) -> tuple[float, float]:
    """Bounds where all of n examples, or clusters, differ alike: nothing that is drawn again
    would differ, and yet up to 3.7/n of all others may (the rule of three, Hanley and
    Lippman-Hand 1983, for 97.5% on either side)."""
    unseen = 1 - 0.025 ** (1 / n)
    return max(-1.0, difference - unseen), min(1.0, difference + unseen)


def _by_cluster(
    pairs: Sequence[tuple[float, float]], clusters: Sequence[str] | None
) -> tuple[Array, Array]:
    """Summed differences and number of examples of each cluster."""
    import numpy as np

    differences = np.array([x - y for x, y in pairs], dtype=np.float64)
    if clusters is None:
        return differences, np.ones_like(differences)
    number = {name: index for index, name in enumerate(dict.fromkeys(clusters))}
    index = np.array([number[name] for name in clusters])
    sums = np.bincount(index, weights=differences).astype(np.float64)
    return sums, np.bincount(index).astype(np.float64)


def _mcnemar(pairs: Sequence[tuple[float, float]]) -> float:
    only_a = sum(x > y for x, y in pairs)
    only_b = sum(y > x for x, y in pairs)
    if only_a + only_b == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(only_a, only_a + only_b, 0.5).pvalue)


def _sign_flip(sums: Array) -> float:
    """How often a difference at least as large comes about when signs are random."""
    import numpy as np

    # A cluster without a difference is the same whichever way it is flipped.
    sums = sums[np.abs(sums) > 1e-12]
    if len(sums) == 0:
        return 1.0
    # Sums of the same numbers in another order may differ in the last digit.
    observed = abs(float(sums.sum())) - 1e-9
    if len(sums) <= EXACT_CLUSTERS:
        bits = np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums)) & 1
        return float(np.mean(np.abs((1 - 2 * bits) @ sums) >= observed))
    rng = np.random.default_rng(_SEED)
    extreme = 0
    for size in _blocks(FLIPS, len(sums)):
        signs = 1.0 - 2.0 * rng.integers(0, 2, size=(size, len(sums)), dtype=np.int8)
        extreme += int(np.count_nonzero(np.abs(signs @ sums) >= observed))
    return (1 + extreme) / (1 + FLIPS)


def _over_seeds(
    difference: float,
    sums: Array,
    sizes: Array,
    seeds: Sequence[Sequence[float]],
    shares: bool,
) -> tuple[float, float, float]:
    """Interval and p-value of a difference when training varies, too."""
    import numpy as np
    from scipy.stats import t

    if len(sums) < 2:  # a single example, or cluster, says nothing about others
        return -1.0, 1.0, 1.0
    parts = [(float(np.var(scores, ddof=1)) / len(scores), len(scores) - 1) for scores in seeds]
    residuals = sums - difference * sizes
    correction = len(sums) / (len(sums) - 1)
    spread = correction * float(residuals @ residuals) / float(sizes.sum()) ** 2
    parts.append((spread, len(sums) - 1))
    variance = sum(part for part, _ in parts)
    if variance < 1e-18:
        same = (difference, difference)
        bounds = _without_variation(difference, len(sums)) if shares else same
        return *bounds, _sign_flip(sums)
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts)
    half = float(t.ppf(0.975, freedom)) * math.sqrt(variance)
    p_value = 2 * float(t.sf(abs(difference) / math.sqrt(variance), freedom))
    p_value = max(p_value, _sign_flip(sums))
    low, high = difference - half, difference + half
    return (max(-1.0, low), min(1.0, high), p_value) if shares else (low, high, p_value)


def _bootstrap_ratio(sums: Array, sizes: Array) -> tuple[float, float]:
    """Percentile interval of sum over size when whole clusters are drawn again."""
    import numpy as np

    rng = np.random.default_rng(_SEED)
    means = []
    for size in _blocks(RESAMPLES, len(sums)):
        drawn = rng.integers(0, len(sums), size=(size, len(sums)))
        means.append(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return float(low), float(high)


def _blocks(total: int, width: int) -> list[int]:
    """`total` rows of `width` numbers in blocks that fit into a few megabytes."""
    size = max(1, _BLOCK_NUMBERS // width)
    return [min(size, total - start) for start in range(0, total, size)]
