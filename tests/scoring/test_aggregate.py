"""From rows to scores."""

from __future__ import annotations

from tuneoff.records import Score, ScoredRow
from tuneoff.scoring.aggregate import aggregate, error_classes
from tuneoff.scoring.rows import Kind
from tuneoff.scoring.statistics import bootstrap, wilson

METRICS: dict[str, Kind] = {"exact_match": "yes/no", "slot_f1": "fraction"}


def test_mean_interval_and_counts() -> None:
    f1 = [1.0, 0.5, 0.25, 0.0]
    rows = [ScoredRow(str(i), {"exact_match": i < 3, "slot_f1": f1[i]}, "x") for i in range(4)]
    scores = aggregate(iter(rows), METRICS, errors=1)
    assert scores["exact_match"] == Score(0.75, *wilson(3, 4), n=4, errors=1)
    assert scores["slot_f1"] == Score(0.4375, *bootstrap(f1), n=4, errors=1)


def test_nothing_measured_is_null_and_not_zero() -> None:
    rows = [ScoredRow("1", {"exact_match": True}, "right")]
    assert aggregate(rows, METRICS)["slot_f1"] == Score(None, None, None, n=0)
    assert aggregate([], METRICS)["exact_match"] == Score(None, None, None, n=0)


def test_what_follows_a_colon_is_not_a_class() -> None:
    verdicts = ["no such column: a", "no such column: b", "timeout"]
    classes = error_classes(ScoredRow(str(i), {}, v) for i, v in enumerate(verdicts))
    assert classes == {"no such column": 2, "timeout": 1}


def test_error_classes_most_frequent_first() -> None:
    verdicts = ["wrong value", "right", "timeout", "denied", "timeout", "right"]
    classes = error_classes(ScoredRow(str(i), {}, v) for i, v in enumerate(verdicts))
    assert list(classes.items()) == [("timeout", 2), ("denied", 1), ("wrong value", 1)]
