"""Pairs of contenders: the tests, their intervals, and how they are adjusted."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneoff.results import Comparison, FlipCounts
from tuneoff.scoring.holm import adjust_by_holm
from tuneoff.scoring.mcnemar import compute_tango_interval
from tuneoff.scoring.paired import Pair
from tuneoff.scoring.pairs import compare_all, compare_pairs

Values = list[tuple[float, float]]


def compare(
    a: str,
    b: str,
    metric: str,
    pairs: Values,
    clusters: Sequence[str] | None = None,
    cluster: str = "cluster",
    seeds: Sequence[Sequence[float]] = (),
) -> Comparison:
    """A pair alone; `seeds` are the scores of each training of a, and of b, on all examples."""
    ids = [str(i) for i in range(len(pairs))]
    columns = [dict(zip(ids, column, strict=True)) for column in zip(*pairs, strict=True)]
    groups = None if clusters is None else dict(zip(ids, clusters, strict=True))
    trainings = [[dict.fromkeys(ids, score) for score in scores] for scores in seeds] or [[], []]
    (found,) = compare_pairs([Pair(a, b, *columns, *trainings)], metric, groups, cluster)
    return found


def test_holm() -> None:
    assert [p for p, _ in adjust_by_holm([0.01, 0.04, 0.03])] == pytest.approx([0.03, 0.06, 0.06])
    # 0.05/3 for the first; the second, at 0.05/2, is kept, so the third has no more.
    assert [level for _, level in adjust_by_holm([0.01, 0.04, 0.03])] == pytest.approx(
        [0.05 / 3, *[0.025] * 2]
    )
    assert [p for p, _ in adjust_by_holm([0.5, 0.9])] == pytest.approx([1.0, 1.0])
    assert adjust_by_holm([]) == []


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


def test_where_nothing_varies_the_interval_is_not_empty() -> None:
    """Eight equal answers do not show that of all others none would differ."""
    found = compare("a", "b", "m", [(1.0, 1.0)] * 8)
    assert found.difference == 0
    assert found.high == pytest.approx(1.96**2 / (8 + 1.96**2), abs=1e-4)  # Tango, without any flip
    assert found.low == pytest.approx(-found.high)
    clustered = compare("a", "b", "m", [(1.0, 1.0)] * 16, [str(i // 2) for i in range(16)])
    assert clustered.high == pytest.approx(1 - 0.025 ** (1 / 8)) == -clustered.low
    always = compare("a", "b", "m", [(1.0, 0.5)] * 12, [str(i) for i in range(12)])
    assert 0 < always.low < 0.5 < always.high <= 1


def test_too_few_clusters_have_no_interval() -> None:
    five = [(1.0, 0.0)] * 50, [str(i % 5) for i in range(50)]
    found = compare("a", "b", "m", *five)
    assert (found.low, found.high, found.low_adjusted, found.low_90) == (None,) * 4
    assert (found.p_value, found.verdict, found.outcome) == (2 / 2**5, "tie", "cannot be told")
    assert found.units == 5
    seeded = compare("a", "b", "m", *five, seeds=[[1.0, 0.98], [0.0, 0.01]])
    assert (seeded.low, seeded.verdict) == (None, "tie")
    six = compare("a", "b", "m", [(1.0, 0.0)] * 60, [str(i % 6) for i in range(60)])
    assert (six.p_value, six.verdict) == (2 / 2**6, "a better")


def test_tango_by_hand() -> None:
    # Tango (1998), section 4: no discordant pair, and the square of z over n plus it.
    assert compute_tango_interval(FlipCounts(0, 0, 40, 10)) == pytest.approx(
        (-0.0713, 0.0713), abs=1e-4
    )
    low, high = compute_tango_interval(FlipCounts(9, 1, 10, 0))
    for bound, sign in ((low, 1), (high, -1)):  # the score test has exactly p = 0.05 there
        b, c, n = 9, 1, 20
        grid = np.linspace(1e-9, 1, 200_001)  # the likelihood, maximised by brute force
        q12 = grid + bound
        rest = 1 - grid - q12
        inside = (q12 > 0) & (rest > 0)
        logs = np.full_like(grid, -np.inf)
        logs[inside] = (
            b * np.log(q12[inside]) + c * np.log(grid[inside])
            + (n - b - c) * np.log(rest[inside])
        )  # fmt: skip
        q21 = grid[np.argmax(logs)]
        z = (b - c - n * bound) / np.sqrt(n * (2 * q21 + bound - bound**2))
        assert z == pytest.approx(sign * 1.96, abs=2e-3)
    assert compute_tango_interval(FlipCounts(7, 0, 0, 0))[1] == 1.0
    assert compute_tango_interval(FlipCounts(0, 7, 0, 0))[0] == -1.0


@pytest.mark.parametrize("seeds", [(), ((5.0, 5.5), (2.0,))])
def test_bounds_hold_a_difference_that_is_no_share(seeds: tuple[tuple[float, ...], ...]) -> None:
    found = compare("a", "b", "m", [(5.0, 2.0)] * 10, seeds=seeds)
    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.difference == 3 <= found.high
    assert found.within_margin is None


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
    assert result.high - result.low > 1.5 * (alone.high - alone.low)


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


def test_every_pair_on_its_common_examples() -> None:
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
    assert good_bad.p_value == bad_half.p_value == pytest.approx(2 / 2**7)
    assert good_bad.flips == FlipCounts(only_a=7, only_b=0, both=33, none=0)
    assert [c.verdict for c in (good_bad, good_half, bad_half)] == ["a better", "tie", "b better"]


def test_many_pairs_do_not_make_few_clusters_mute() -> None:
    """Perfect against zero over 8 databases, beside three contenders that guess."""
    rng = random.Random(5)
    ids = [f"e{i}" for i in range(160)]
    clusters = {id: str(i % 8) for i, id in enumerate(ids)}
    guesses = {f"guess {j}": {id: float(rng.random() < 0.5) for id in ids} for j in range(3)}
    scores = {"perfect": dict.fromkeys(ids, 1.0), "zero": dict.fromkeys(ids, 0.0), **guesses}
    first, *others = compare_all(scores, "m", clusters)
    assert (first.verdict, first.p_adjusted) == ("a better", 2 / 2**8)
    between = [c for c in others if "guess" in c.a and "guess" in c.b]
    assert {c.verdict for c in between} == {"tie"}


def maxima(sums: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """T of every pair (columns) under every one of the 2^m flips."""
    signs = np.array(list(itertools.product((1, -1), repeat=len(sums))))
    return (np.abs(signs @ sums) / np.sqrt((sums**2).sum(axis=0))).round(9)


def test_step_down_and_inversion_by_brute_force() -> None:
    rng = np.random.default_rng(11)
    ids = [str(i) for i in range(70)]
    clusters = {id: str(i % 10) for i, id in enumerate(ids)}
    rates = {"a": 0.9, "b": 0.55, "c": 0.5}
    scores = {k: {id: float(rng.random() < rate) for id in ids} for k, rate in rates.items()}
    found = compare_all(scores, "m", clusters)
    of = {k: np.array([scores[k][id] for id in ids]).reshape(7, 10) for k in scores}
    sums = np.stack([(of[c.a] - of[c.b]).sum(axis=0) for c in found], axis=1)
    flips = maxima(sums, np.full_like(sums, 7))
    # How extreme a flip is for a pair: its p there, and T where these are equal.
    p_of = [[float((column >= t).mean()) for t in column] for column in flips.T]
    extreme = [[(-p, t) for p, t in zip(ps, column, strict=True)]
               for ps, column in zip(p_of, flips.T.tolist(), strict=True)]  # fmt: skip
    seen = [of_pair[0] for of_pair in extreme]  # the first flip swaps nothing
    order = sorted(range(3), key=seen.__getitem__, reverse=True)
    highest = 0.0
    for step, place in enumerate(order):
        largest = [max(extreme[pair][flip] for pair in order[step:]) for flip in range(2**10)]
        highest = max(highest, sum(each >= seen[place] for each in largest) / 2**10)
        assert found[place].p_adjusted == pytest.approx(highest)
        assert found[place].p_value == pytest.approx(-seen[place][0])
    # The interval holds exactly the differences that the flips do not reject.
    for place, pair in enumerate(found):
        for difference in np.linspace(-1, 1, 101):
            shifted = (sums[:, place] - difference * 7)[:, None]
            p = (maxima(shifted, shifted) >= np.abs(shifted.sum()).round(9)
                 / np.sqrt((shifted**2).sum()) - 1e-9).mean()  # fmt: skip
            assert pair.low is not None
            assert pair.high is not None
            if min(abs(difference - pair.low), abs(difference - pair.high)) > 1e-6:
                assert (pair.low < difference < pair.high) == (p >= 0.05)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([6, 9, 20]), st.booleans(), st.booleans())
def test_p_values_and_intervals_never_contradict_each_other(
    seed: int, units: int, clustered: bool, fractions: bool
) -> None:
    rng = np.random.default_rng(seed)
    ids = [str(i) for i in range(units * 3)]
    clusters = {id: str(i % units) for i, id in enumerate(ids)} if clustered else None
    scores = {
        name: {id: float(rng.random() if fractions else rng.random() < rate) for id in ids}
        for name, rate in (("a", rng.random()), ("b", rng.random()), ("c", 0.9))
    }
    several = {"c": [scores["c"], {id: 1 - score for id, score in scores["c"].items()}]}
    found = compare_all(scores, "m", clusters, seeds=several if rng.random() < 0.3 else None)
    for pair, (by_holm, _) in zip(
        found, adjust_by_holm([each.p_value for each in found]), strict=True
    ):
        assert pair.p_value <= pair.p_adjusted <= by_holm + 0.03  # some is drawn
        for low, high, p in (
            (pair.low, pair.high, pair.p_value),
            (pair.low_adjusted, pair.high_adjusted, pair.p_adjusted),
        ):
            assert low is not None
            assert high is not None
            assert (low > 0 or high < 0) == (p < 0.05)
            assert -1 <= low < high <= 1
        if pair.outcome == "same":
            assert pair.within_margin


def test_the_same_within_a_margin_is_shown_and_not_assumed() -> None:
    many = compare("a", "b", "m", binary(20, 20, 1_960))
    assert (many.verdict, many.outcome, many.margin) == ("tie", "same", 0.03)
    few = compare("a", "b", "m", binary(8, 8, 84))
    assert (few.outcome, few.within_margin) == ("cannot be told", False)
    both = compare("a", "b", "m", binary(40, 10, 3_950))
    assert (both.outcome, both.within_margin) == ("a better", True)


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
    assert (found.low, found.high, found.p_value) == (None, None, 1.0)


def test_equal_differences_are_drawn_together() -> None:
    """Above 16 units the flips are drawn: by binomials, and near the exact test all the same."""
    pairs = binary(300, 240, 5_000)
    clusters = [str(i) for i in range(len(pairs))]
    drawn, exact = compare("a", "b", "m", pairs, clusters), compare("a", "b", "m", pairs)
    assert drawn.test == "cluster sign-flip"
    assert drawn.p_value == pytest.approx(exact.p_value, abs=0.005)
    assert drawn.low == pytest.approx(exact.low, abs=3e-4)
    assert drawn.high == pytest.approx(exact.high, abs=3e-4)
