"""From rows to scores."""

from __future__ import annotations

from collections import Counter

import numpy as np

from tuneoff.records import ScoredRow
from tuneoff.results import Score
from tuneoff.scoring.aggregate import (
    Breakdown,
    aggregate,
    average_samples,
    average_seeds,
    compute_seed_values,
    count_error_classes,
)
from tuneoff.scoring.base import MetricKind
from tuneoff.scoring.intervals import compute_score_interval, compute_wilson_interval

METRICS: dict[str, MetricKind] = {"exact_match": "yes/no", "slot_f1": "fraction"}


def test_mean_interval_and_counts() -> None:
    f1 = [1.0, 0.5, 0.25, 0.0]
    rows = [ScoredRow(str(i), {"exact_match": i < 3, "slot_f1": f1[i]}, "x") for i in range(4)]
    scores = aggregate(iter(rows), METRICS, errors=1)
    bounds = compute_score_interval(Counter(f1), yes_no=False) or ()
    assert scores["exact_match"] == Score(0.75, *compute_wilson_interval(3, 4), n=4, errors=1)
    assert scores["slot_f1"] == Score(0.4375, *bounds, n=4, errors=1)


def test_numbers_of_a_metric_of_ones_own_are_not_yes_or_no() -> None:
    """Such a metric is called yes/no before its values are known."""
    for values in ([3.5, 2.0, 2.5, 7.0], [0.5, 0.25, 1.0, 0.75]):
        rows = [ScoredRow(str(i), {"m": value}, "x") for i, value in enumerate(values)]
        found = aggregate(rows, {"m": "yes/no"})["m"]
        assert (found.low, found.high) == compute_score_interval(Counter(values), yes_no=False)
    halves = [ScoredRow(str(i), {"m": i % 3 / 2}, "x") for i in range(9)]
    seeds = {"m": (0.5, 0.5)}
    bounds = compute_score_interval(Counter({0.0: 3, 0.5: 3, 1.0: 3}), True, (), seeds["m"])
    found = aggregate(halves, {"m": "yes/no"}, seeds=seeds)["m"]
    assert (found.low, found.high) == bounds, "means of two seeds' yes and no"


def test_nothing_measured_is_null_and_not_zero() -> None:
    rows = [ScoredRow("1", {"exact_match": True}, "right")]
    assert aggregate(rows, METRICS)["slot_f1"] == Score(None, None, None, n=0)
    assert aggregate([], METRICS)["exact_match"] == Score(None, None, None, n=0)


def test_what_follows_a_colon_is_not_a_class() -> None:
    verdicts = ["no such column: a", "no such column: b", "timeout"]
    classes = count_error_classes(
        (ScoredRow(str(i), {"m": v == "right"}, v) for i, v in enumerate(verdicts)), "m"
    )
    assert classes == {"no such column": 2, "timeout": 1}


def test_what_the_metric_calls_right_is_no_error_and_names_may_be_plainer() -> None:
    rows = [
        ScoredRow("1", {"m": True}, "right but for form"),
        ScoredRow("2", {"m": False}, "no such table: a"),
        ScoredRow("3", {"m": 0.5}, "wrong"),
    ]
    names = {"no such table": "unknown table"}
    assert count_error_classes(rows, "m", names) == {"unknown table": 1, "wrong": 1}


def test_rows_by_what_they_are() -> None:
    parts = Breakdown("m", "yes/no")
    for i in range(60):
        row = ScoredRow(str(i), {"m": i % 2 == 0}, "x")
        parts.add(row, {"id": i, "side": "left" if i < 20 else "right", "same": True})
    found = parts.scores()
    assert list(found) == ["side"], "neither 60 groups nor one"
    assert found["side"]["left"]["m"].n == 20
    assert found["side"]["right"]["m"].value == 0.5


def test_error_classes_most_frequent_first() -> None:
    verdicts = ["wrong value", "right", "timeout", "denied", "timeout", "right"]
    classes = count_error_classes(
        (ScoredRow(str(i), {"m": v == "right"}, v) for i, v in enumerate(verdicts)), "m"
    )
    assert list(classes.items()) == [("timeout", 2), ("denied", 1), ("wrong value", 1)]


def rows_of(right: dict[str, bool], verdict: str = "x") -> dict[str, ScoredRow]:
    return {id: ScoredRow(id, {"exact_match": ok}, verdict) for id, ok in right.items()}


def test_seeds_are_averaged_example_by_example() -> None:
    seeds = [
        rows_of({"1": True, "2": True, "3": False, "4": False}, "first"),
        rows_of({"1": True, "2": False, "3": False, "4": True}, "second"),
    ]
    rows = average_seeds(seeds)
    assert {id: row.scores["exact_match"] for id, row in rows.items()} == {
        "1": 1.0, "2": 0.5, "3": 0.0, "4": 0.5,
    }  # fmt: skip
    assert {row.verdict for row in rows.values()} == {"first"}
    seeded = {"exact_match": (0.5, 0.5)}
    score = aggregate(rows.values(), METRICS, seeds=seeded)["exact_match"]
    bounds = compute_score_interval({1.0: 1, 0.5: 2, 0.0: 1}, True, (), (0.5, 0.5)) or ()
    assert score == Score(0.5, *bounds, n=4, by_seed=(0.5, 0.5))
    assert compute_seed_values(seeds, rows, "exact_match") == (0.5, 0.5)
    assert compute_seed_values(seeds, rows, "slot_f1") == ()


def test_seeds_that_agree_are_yes_and_no_again() -> None:
    seeds = [rows_of({"1": True, "2": True, "3": False})] * 3
    score = aggregate(average_seeds(seeds).values(), METRICS)["exact_match"]
    assert (score.low, score.high) == compute_wilson_interval(2, 3)


def test_a_single_training_is_left_as_it_is() -> None:
    rows = rows_of({"1": True, "2": False})
    assert average_seeds([rows]) == rows
    assert average_seeds([rows])["1"].scores["exact_match"] is True
    assert compute_seed_values([rows], rows, "exact_match") == ()


def test_a_seed_without_scores_leaves_nothing_to_average() -> None:
    assert average_seeds([rows_of({"1": True}), {}]) == {}
    assert average_seeds([{}, rows_of({"1": True})]) == {}


def test_an_example_is_the_mean_of_its_answers() -> None:
    first = {"1": ScoredRow("1", {"m": True}, "right"), "2": ScoredRow("2", {"m": False}, "wrong")}
    second = {"1": ScoredRow("1", {"m": False, "n": 1.0}, "wrong", sample=1)}
    third = {id: ScoredRow(id, {"m": True}, "right", sample=2) for id in ("1", "2")}
    # The second example has no second answer yet; a metric that one answer lacks is the others'.
    assert average_samples([first, second, third]) == {
        "1": ScoredRow("1", {"m": 2 / 3, "n": 1.0}, "right")
    }
    assert average_samples([first]) == first


def test_an_example_is_worth_one_answer_to_all_of_its_answers() -> None:
    """Answers that always agree tell as much as one; where they differ, more is known."""
    alike, mixed = Counter({1.0: 60, 0.0: 40}), Counter({0.8: 50, 0.4: 50})
    agreeing = compute_score_interval(alike, yes_no=True, answers=5) or (0.0, 1.0)
    once = compute_score_interval(alike, yes_no=True) or (0.0, 1.0)
    differing = compute_score_interval(mixed, yes_no=True, answers=5) or (0.0, 1.0)
    assert abs((agreeing[1] - agreeing[0]) / (once[1] - once[0]) - 1) < 0.02
    assert agreeing[1] - agreeing[0] > once[1] - once[0]
    assert differing[1] - differing[0] < (once[1] - once[0]) / 2
    # All answers are never worth more than as many independent ones.
    least = compute_wilson_interval(0.6 * 500, 500)
    even = compute_score_interval(Counter({0.6: 99, 0.8: 1}), yes_no=True, answers=5) or (0.0, 1.0)
    assert even[1] - even[0] >= (least[1] - least[0]) * 0.99


def test_the_interval_of_repeated_answers_holds_the_truth() -> None:
    """As often as it says, though answers to one example are alike more or less."""
    for spread, seed in ((0.3, 1), (3.0, 2), (30.0, 3)):
        draw = np.random.default_rng(seed)
        held = 0
        for _ in range(400):
            chances = draw.beta(0.8 * spread, 0.2 * spread, 50)
            found = compute_score_interval(
                Counter(draw.binomial(5, chances) / 5), yes_no=True, answers=5
            )
            held += found is not None and found[0] <= 0.8 <= found[1]
        assert 0.92 <= held / 400 <= 0.98
