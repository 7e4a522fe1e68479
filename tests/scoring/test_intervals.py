"""The interval of a score: Wilson, clusters, seeds."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, t

from tuneoff.scoring.intervals import (
    compute_mean_variance,
    compute_score_interval,
    compute_wilson_interval,
)

SIZES = [400, 100, 100, 20, 20, 20, 5, 5, 5, 5]


@given(st.integers(0, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share_and_stays_within_bounds(counts: tuple[int, int]) -> None:
    successes, n = counts
    low, high = compute_wilson_interval(successes, n)
    assert 0 <= low < high <= 1
    if n:
        assert low <= successes / n <= high
        expected = binomtest(*counts).proportion_ci(method="wilson")
        assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_independent_examples_keep_wilson_and_t() -> None:
    found = compute_score_interval({1.0: 30, 0.0: 10}, yes_no=True)
    assert found == pytest.approx(compute_wilson_interval(30, 40))
    values = np.random.default_rng(1).random(50)
    half = t.ppf(0.975, 49) * values.std(ddof=1) / 50**0.5
    found = compute_score_interval(Counter(values.tolist()), yes_no=False)
    assert found == pytest.approx((values.mean() - half, values.mean() + half))


def test_clusters_that_stand_or_fall_together_count_as_so_many_examples() -> None:
    """Eight clusters of 25, each all right or all wrong, tell what eight examples tell."""
    clusters = [(25.0, 25)] * 5 + [(0.0, 25)] * 3
    found = compute_score_interval({1.0: 125, 0.0: 75}, True, clusters)
    assert found is not None
    assert found[0] < 0.32 < 0.625 < 0.88 < found[1]
    apart = compute_score_interval({1.0: 125, 0.0: 75}, True, [(16.0, 25)] * 5 + [(15.0, 25)] * 3)
    assert apart is not None
    assert apart == pytest.approx(compute_wilson_interval(125, 200), abs=1e-9), (
        "never better than independent"
    )


def test_one_cluster_is_about_itself_and_nothing_is_of_width_zero() -> None:
    assert compute_score_interval({1.0: 9, 0.0: 3}, True, [(9.0, 12)]) == compute_wilson_interval(
        9, 12
    )
    clusters = [(25.0, 25)] * 8
    alike = compute_score_interval({1.0: 200}, True, clusters)
    assert alike is not None
    assert alike[0] < compute_wilson_interval(200, 200)[0]  # deff 1 + 24 · 0.1
    assert alike[1] == 1
    assert compute_score_interval({0.5: 9}, False) == compute_wilson_interval(4.5, 9)
    assert compute_score_interval({}, True) == (0.0, 1.0)
    assert compute_score_interval({3.0: 1}, False) is None, "one number says nothing about others"
    assert compute_score_interval({3.0: 20}, False) is None
    apart = compute_score_interval({3.0: 20, 5.0: 20}, False)
    assert apart is not None
    assert apart[0] < 4 < apart[1]


def test_degrees_of_freedom_by_the_matrices_of_bell_and_mccaffrey() -> None:
    """The closed form against the matrices themselves."""
    rng = np.random.default_rng(2)
    sizes = np.array(SIZES, dtype=float)
    rates = rng.beta(2, 1, len(sizes))
    sums = np.array([rng.binomial(int(n), p) for n, p in zip(sizes, rates, strict=True)], float)
    n, mean = sizes.sum(), sums.sum() / sizes.sum()
    spread = mean * (1 - mean)
    variance, freedom = compute_mean_variance(sums, sizes, spread)
    share = sizes / n
    weight = np.diag((1 - share) ** -0.5)
    residuals = weight @ (sums - sizes * mean)
    assert variance == pytest.approx(residuals @ residuals / n**2)
    icc = min(1, max(0, (variance * n / spread - 1) / (sizes @ sizes / n - 1)))
    centre = np.eye(len(sizes)) - np.outer(share, np.ones(len(sizes)))
    g = weight @ centre @ np.diag(sizes * (1 - icc) + sizes**2 * icc) @ centre.T @ weight
    assert freedom == pytest.approx(np.trace(g) ** 2 / np.trace(g @ g))
    assert freedom < 4, "one cluster holds most of the examples"
    equal = compute_mean_variance(np.array([3.0, 4, 5, 6]), np.full(4, 10.0), 0.2)
    assert equal[1] == pytest.approx(3)


def test_seeds_that_differ_widen_the_interval() -> None:
    counts = {0.0: 200, 1 / 3: 100, 2 / 3: 100, 1.0: 600}
    alone = compute_score_interval(counts, True)
    alike, apart = (
        compute_score_interval(counts, True, seeds=s) for s in ([0.7] * 3, [0.64, 0.7, 0.76])
    )
    assert alone is not None
    assert alike == pytest.approx(alone)
    assert apart is not None
    assert apart[1] - apart[0] > 3 * (alone[1] - alone[0])
