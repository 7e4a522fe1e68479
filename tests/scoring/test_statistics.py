"""Intervals, the paired tests, Holm's adjustment."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from tuneoff.scoring.statistics import bootstrap, compare, compare_all, holm, wilson


@given(st.integers(0, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share_and_stays_within_bounds(counts: tuple[int, int]) -> None:
    successes, n = counts
    low, high = wilson(successes, n)
    assert 0 <= low < high <= 1
    if n:
        assert low <= successes / n <= high


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_agrees_with_scipy(counts: tuple[int, int]) -> None:
    expected = binomtest(*counts).proportion_ci(method="wilson")
    assert wilson(*counts) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_wilson_of_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


def test_bootstrap() -> None:
    rng = random.Random(1)
    values = [rng.random() for _ in range(400)]
    low, high = bootstrap(Counter(values))
    mean = sum(values) / len(values)
    half = 1.96 * (1 / 12) ** 0.5 / 20  # of the normal approximation
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=half / 5)
    assert bootstrap(Counter(values)) == (low, high)
    assert bootstrap(Counter([0.25] * 9)) == (0.25, 0.25)
    assert bootstrap(Counter([])) == (0.0, 1.0)


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def binary(only_a: int, only_b: int, both: int) -> list[tuple[float, float]]:
    return [(1.0, 0.0)] * only_a + [(0.0, 1.0)] * only_b + [(1.0, 1.0)] * both


def test_exact_mcnemar_by_hand() -> None:
    result = compare("a", "b", "exact_match", binary(9, 1, 10))
    assert result.test == "exact McNemar"
    assert result.cluster is None
    assert result.p_value == result.p_adjusted == pytest.approx(2 * (1 + 10) / 2**10)
    assert result.difference == pytest.approx(8 / 20)
    assert result.low < 8 / 20 < result.high
    assert result.verdict == "a better"


def test_the_other_way_round() -> None:
    result = compare("a", "b", "exact_match", binary(1, 9, 10))
    assert result.difference == pytest.approx(-8 / 20)
    assert result.verdict == "b better"
    assert compare("a", "b", "exact_match", binary(3, 2, 10)).verdict == "tie"


def test_equal_contenders_tie() -> None:
    result = compare("a", "b", "m", binary(0, 0, 5))
    assert (result.p_value, result.difference, result.verdict) == (1.0, 0.0, "tie")
    clustered = compare("a", "b", "m", binary(2, 2, 5), ["x"] * 9)
    assert (clustered.p_value, clustered.verdict) == (1.0, "tie")


@pytest.mark.parametrize("clusters", [None, ["a", "b", "c", "d"] * 2])
def test_where_nothing_varies_the_interval_is_not_empty(clusters: list[str] | None) -> None:
    """Eight equal answers do not show that of all others none would differ."""
    found = compare("a", "b", "m", [(1.0, 1.0)] * 8, clusters)
    units = 8 if clusters is None else 4
    assert found.difference == 0
    assert found.high == pytest.approx(1 - 0.025 ** (1 / units))
    assert found.low == -found.high
    always = compare("a", "b", "m", [(1.0, 0.0)] * 400)
    assert always.high == 1
    assert always.low == pytest.approx(1 - 3.69 / 400, abs=1e-3)


@pytest.mark.parametrize("seeds", [(), ((5.0, 5.5), (2.0,))])
def test_bounds_hold_a_difference_that_is_no_share(seeds: tuple[tuple[float, ...], ...]) -> None:
    found = compare("a", "b", "m", [(5.0, 2.0)] * 10, seeds=seeds)
    assert found.low <= found.difference == 3 <= found.high


def test_sign_flip_is_exact_for_few_clusters() -> None:
    # Eight clusters, all for a: only all signs as they are, or all flipped, are as extreme.
    pairs = [(1.0, 0.0)] * 16
    result = compare("a", "b", "m", pairs, [str(i // 2) for i in range(16)], cluster="db_id")
    assert (result.test, result.cluster) == ("cluster sign-flip", "db_id")
    assert result.p_value == 2 / 2**8
    assert result.verdict == "a better"
    # A cluster without a difference changes nothing.
    more = [str(i // 2) for i in range(16)] + ["none"]
    assert compare("a", "b", "m", [*pairs, (1, 1)], more).p_value == 2 / 2**8


def test_clusters_count_and_not_examples() -> None:
    pairs = binary(60, 0, 40)
    assert compare("a", "b", "m", pairs).verdict == "a better"
    clusters = ["one"] * 60 + [f"other {i}" for i in range(40)]
    result = compare("a", "b", "m", pairs, clusters)
    assert (result.p_value, result.verdict) == (1.0, "tie")
    alone = compare("a", "b", "m", pairs)
    assert result.high - result.low > 2 * (alone.high - alone.low)


def test_sign_flip_by_chance_for_many_clusters_is_close_to_exact() -> None:
    pairs = binary(20, 8, 30)
    by_chance = compare("a", "b", "m", pairs, [str(i) for i in range(len(pairs))])
    exact = compare("a", "b", "m", pairs)
    assert by_chance.test == "cluster sign-flip"
    assert by_chance.p_value == pytest.approx(exact.p_value, abs=0.01)
    assert by_chance == compare("a", "b", "m", pairs, [str(i) for i in range(len(pairs))])
    certain = compare("a", "b", "m", [(1.0, 0.0)] * 40, [str(i) for i in range(40)])
    assert certain.p_value == pytest.approx(1 / 10_001)


def test_fractions_without_clusters() -> None:
    result = compare("a", "b", "slot_f1", [(0.9, 0.4)] * 10 + [(0.5, 0.5)])
    assert (result.test, result.cluster) == ("cluster sign-flip", None)
    assert result.p_value == 2 / 2**10


def test_p_values_are_honest_where_a_cluster_stands_or_falls_together() -> None:
    """Without a true difference 5% of tests may find one; McNemar finds far more here."""
    rng = random.Random(3)
    found = {"clusters": 0, "examples": 0}
    clusters = [str(i // 20) for i in range(240)]
    for _ in range(150):
        a, b = ([rng.random() < 0.5 for _ in range(12)] for _ in "ab")
        pairs = [(float(a[i // 20]), float(b[i // 20])) for i in range(240)]
        found["clusters"] += compare("a", "b", "m", pairs, clusters).p_value < 0.05
        found["examples"] += compare("a", "b", "m", pairs).p_value < 0.05
    assert found["clusters"] <= 15
    assert found["examples"] >= 60


def test_every_pair_on_its_common_examples_and_adjusted() -> None:
    ids = [f"e{i}" for i in range(40)]
    scores = {
        "good": dict.fromkeys(ids, 1.0),
        "bad": {id: float(i >= 7) for i, id in enumerate(ids)},
        "half": dict.fromkeys(ids[:20], 1.0),
    }
    good_bad, good_half, bad_half = compare_all(scores, "exact_match")
    assert [(c.a, c.b) for c in (good_bad, good_half, bad_half)] == [
        ("good", "bad"), ("good", "half"), ("bad", "half"),
    ]  # fmt: skip
    assert good_bad.difference == pytest.approx(7 / 40)
    assert bad_half.difference == pytest.approx(-7 / 20)
    p = 2 / 2**7
    assert good_bad.p_value == bad_half.p_value == pytest.approx(p)
    assert [good_bad.p_adjusted, bad_half.p_adjusted, good_half.p_adjusted] == pytest.approx(
        [3 * p, 3 * p, 1.0]
    )
    assert [c.verdict for c in (good_bad, good_half, bad_half)] == ["a better", "tie", "b better"]


def test_adjusting_can_take_a_verdict_back() -> None:
    ids = [f"e{i}" for i in range(6)]
    good, bad = dict.fromkeys(ids, 1.0), dict.fromkeys(ids, 0.0)
    (alone,) = compare_all({"a": good, "b": bad}, "m")
    assert (alone.p_value, alone.verdict) == (2 / 2**6, "a better")
    first, *_ = compare_all({"a": good, "b": bad, "c": good}, "m")
    assert (first.p_value, first.p_adjusted, first.verdict) == (2 / 2**6, 6 / 2**6, "tie")


def test_clusters_by_example_id() -> None:
    scores = {"a": {"x": 1, "y": 1, "z": 1}, "b": {"z": 0, "y": 0, "x": 0}}
    (found,) = compare_all(scores, "m", {"x": "one", "y": "one"}, cluster="db_id")
    assert (found.cluster, found.p_value) == ("db_id", 1.0 / 2)  # "one" and z: 2 clusters, 2 of 4


def test_contenders_without_a_common_example_are_not_compared() -> None:
    assert compare_all({"a": {"x": 1}, "b": {"y": 1}, "c": {}}, "m") == ()
    assert compare_all({"a": {"x": 1}}, "m") == ()
    with pytest.raises(ValueError, match="no example in common"):
        compare("a", "b", "m", [])


@pytest.mark.parametrize("clusters", [None, ["a", "a", "a"], ["a", "b", "b"]])
def test_seeds_that_agree_are_no_proof(clusters: list[str] | None) -> None:
    """Three examples show nothing, however often each was trained for."""
    found = compare("a", "b", "m", [(1.0, 0.0)] * 3, clusters, seeds=[[1.0, 1.0], [0.0, 0.0]])
    assert found.p_value >= 0.25
    assert found.verdict == "tie"


def test_one_cluster_says_nothing_about_others() -> None:
    found = compare("a", "b", "m", [(1.0, 0.0)] * 30, ["a"] * 30, seeds=[[1.0, 0.9], [0.0, 0.1]])
    assert (found.low, found.high, found.p_value) == (-1.0, 1.0, 1.0)
