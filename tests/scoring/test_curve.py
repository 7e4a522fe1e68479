"""Learning curves from scored rows."""

from __future__ import annotations

from tuneoff.records import ScoredRow
from tuneoff.scoring.aggregate import build_learning_curve
from tuneoff.scoring.intervals import compute_wilson_interval


def rows(right: int, n: int = 40) -> dict[str, ScoredRow]:
    return {f"e{i}": ScoredRow(f"e{i}", {"exact_match": i < right}, "x") for i in range(n)}


def test_points_are_in_order_and_each_is_tested_against_the_one_before() -> None:
    measured = [(1.0, 100, rows(30)), (0.25, 25, rows(10)), (0.5, 50, rows(29))]
    quarter, half, whole = build_learning_curve(measured, "exact_match", "yes/no")
    assert [p.fraction for p in (quarter, half, whole)] == [0.25, 0.5, 1.0]
    assert [p.examples for p in (quarter, half, whole)] == [25, 50, 100]
    assert [p.value for p in (quarter, half, whole)] == [0.25, 0.725, 0.75]
    assert (half.low, half.high) == compute_wilson_interval(29, 40)
    assert quarter.p_value is None
    assert half.p_value is not None
    assert half.p_value < 0.001  # 19 examples to none
    assert whole.p_value == 1.0  # one example


def test_the_pairs_respect_clusters() -> None:
    clusters = {f"e{i}": f"database {i // 20}" for i in range(40)}
    measured = [(0.5, 50, rows(10)), (1.0, 100, rows(30))]
    _, whole = build_learning_curve(measured, "exact_match", "yes/no", clusters)
    assert whole.p_value == 0.5  # two clusters, both better: 2 of 4 flips are as extreme


def test_what_was_not_carried_out_is_left_out() -> None:
    assert build_learning_curve([(0.5, 50, {}), (1.0, 100, rows(3))], "exact_match", "yes/no") == ()
    assert build_learning_curve([], "exact_match", "yes/no") == ()
    left = build_learning_curve(
        [(0.25, 25, {}), (0.5, 50, rows(2)), (1.0, 100, rows(3))], "exact_match", "yes/no"
    )
    assert [point.fraction for point in left] == [0.5, 1.0]
