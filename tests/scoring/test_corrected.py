"""A judge's score corrected by labels, against the formulas written down once more."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from tuneoff.scoring.corrected import MIN_LABELS, correct_mean

Array = np.ndarray[Any, Any]


def draw(
    n: int, labels: int, seed: int, of_differences: bool
) -> tuple[Array, Array, dict[str, float], dict[str, float]]:
    rng = np.random.default_rng(seed)

    def one() -> tuple[Array, Array]:
        people = (rng.random(n) < 0.7).astype(float)
        judged = np.where(rng.random(n) < 0.85, people, 1 - people)
        judged[rng.random(n) < 0.1] = 0.5
        return people, judged

    people, judged = one()
    if of_differences:
        others = one()
        people, judged = people - others[0], judged - others[1]
    ids = [f"r{i}" for i in range(n)]
    found = dict(zip(ids, people.tolist(), strict=True))
    chosen = rng.permutation(n)[:labels].tolist()
    return (
        people, judged, dict(zip(ids, judged.tolist(), strict=True)),
        {ids[i]: found[ids[i]] for i in chosen},
    )  # fmt: skip


@pytest.mark.parametrize("of_differences", [False, True])
def test_independent_rows_by_the_papers_formula(of_differences: bool) -> None:
    """Labelled rows and the rest are two independent samples; beside the labels lie four corners of
    weight one half."""
    n, total = 40, 400
    _, _, judged, labels = draw(total, n, 3, of_differences)
    found = correct_mean(judged, labels, of_differences=of_differences)
    corners = [(1, 0), (-1, 0), (0, 1), (0, -1)] if of_differences else [
        (1, 0), (0, 1), (1, 1), (0, 0)]  # fmt: skip
    y = np.array([*labels.values(), *(c[0] for c in corners)])
    f = np.array([*(judged[id] for id in labels), *(c[1] for c in corners)])
    rest = np.array([value for id, value in judged.items() if id not in labels])
    weights = np.array([1.0] * n + [0.5] * 4)
    ((_, together), (_, spread)) = np.cov(np.stack([y, f]), aweights=weights, ddof=0)
    # The paper's: cov / ((1 + n/N) var), where N counts the rows without a label.
    weight = together / ((1 + n / len(rest)) * spread)
    assert found.weight == pytest.approx(weight)
    off = y - weight * f
    assert found.value == pytest.approx(off[:n].mean() + weight * rest.mean())
    middle = np.average(off, weights=weights)
    squares = (off - middle) ** 2
    # One degree of freedom is the mean's, one the weight's.
    labelled = n / (n - 2) * squares[:n].sum() / (n + 2) ** 2
    labelled += 0.5 * squares[n:].sum() / (n + 2) ** 2
    others = weight**2 * rest.var(ddof=1) / len(rest)
    freedom = (labelled + others) ** 2 / (
        labelled**2 / (n - 2) + others**2 / (len(rest) - 1)
    )  # fmt: skip
    half = stats.t.ppf(0.975, freedom) * math.sqrt(labelled + others)
    assert (found.low, found.high) == pytest.approx(
        (middle + weight * rest.mean() - half, middle + weight * rest.mean() + half)
    )
    assert (found.n, found.of, found.clusters) == (n, total, None)


def test_clusters_are_summed_together() -> None:
    """Copies of rows in a cluster tell nothing new; labelled and other rows of it go together."""
    _, _, judged, labels = draw(200, 60, 5, False)
    clusters = {id: str(i // 10) for i, id in enumerate(judged)}
    found = correct_mean(judged, labels, clusters)
    assert found.clusters == len({clusters[id] for id in labels})
    alone = correct_mean(judged, labels)
    assert (found.value, found.weight) == (alone.value, alone.weight)
    w = found.weight or 0.0
    off = {id: y - w * judged[id] for id, y in labels.items()}
    middle = (sum(off.values()) + 0.5 * 2 * (1 - w) + 0.5 * 0) / (60 + 2)
    rest = {id: w * f for id, f in judged.items() if id not in labels}
    mean = sum(rest.values()) / 140
    total = 0.0
    for cluster in range(20):
        own = [id for id in judged if clusters[id] == str(cluster)]
        a = sum(off[id] - middle for id in own if id in off) / 62 * math.sqrt(59 / 58)
        b = sum(rest[id] - mean for id in own if id in rest) / 140
        held = sum(id in off for id in own)
        total += (a / math.sqrt(1 - held / 60) + b / math.sqrt(1 - (10 - held) / 140)) ** 2
    total += sum(0.5 * (y - w * f - middle) ** 2 for y in (0, 1) for f in (0, 1)) / 62**2
    assert found.low is not None
    assert found.high is not None
    # Between the quantiles of 60 and of 10 degrees of freedom.
    ratio = (found.high - found.low) / 2 / math.sqrt(total)
    assert stats.t.ppf(0.975, 60) < ratio < stats.t.ppf(0.975, 10)


def test_what_labels_are_worth() -> None:
    people, judged_values, judged, labels = draw(2_000, 300, 7, True)
    found = correct_mean(judged, labels, of_differences=True)
    assert found.rows_needed is not None
    slope = np.cov(people, judged_values)[0, 1] / judged_values.var()
    spread = (people - slope * judged_values).var()
    of_all = slope**2 * judged_values.var() / 2_000
    expected = spread / ((0.05 / (stats.norm.ppf(0.975) + stats.norm.ppf(0.8))) ** 2 - of_all)
    assert found.rows_needed == pytest.approx(expected, rel=0.15)
    few = correct_mean(dict(list(judged.items())[:300]), labels, of_differences=True)
    assert few.rows_needed is None, "not even all rows show 5 points"


@pytest.mark.parametrize(
    ("labels", "reason"),
    [(MIN_LABELS - 1, "rows"), (MIN_LABELS, "clusters"), (60, None)],
)
def test_too_few_labels_bring_no_figure(labels: int, reason: str | None) -> None:
    judged = {str(i): 1.0 for i in range(60)}
    given = {str(i): 1.0 for i in range(labels)} | {"not judged": 0.0}
    found = correct_mean(judged, given, {id: str(int(id) // 5) for id in judged})
    assert (found.value is None) == (found.low is None) == (reason is not None)
    assert found.n == labels
    assert found.clusters == math.ceil(labels / 5)
    if reason is None:  # every row has a label, and all are alike: still no width of zero
        assert (found.value, found.high) == (1.0, 1.0)
        assert found.low is not None
        assert 0.9 < found.low < 0.99


def test_several_seeds_widen_it() -> None:
    _, _, judged, labels = draw(400, 60, 9, False)
    alone, seeded = (correct_mean(judged, labels, seeds=s) for s in ([()], [(0.6, 0.7, 0.8)]))
    assert seeded.value == alone.value
    assert (seeded.low or 0.0) < (alone.low or 0.0)
