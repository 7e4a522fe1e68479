"""Verdicts on constructed loss curves."""

from __future__ import annotations

import pytest

from tuneoff.records import LossRow
from tuneoff.training.convergence import best_row, overfitting_step, verdict


def curve(*pairs: tuple[float, float]) -> list[LossRow]:
    """Rows of (train, validation) losses, ten steps apart."""
    return [LossRow(10 * i, 80 * i, t, v) for i, (t, v) in enumerate(pairs, 1)]


IMPROVING = curve((3, 3), (2, 2), (1, 1))
FLAT = curve((3, 3), (1, 1), (0.9, 0.999))
RISING = curve((3, 3), (1, 1), (0.5, 1.2), (0.2, 1.5))
DIVERGED = curve((3, 3), (1, 1), (5, 5))


@pytest.mark.parametrize(
    ("rows", "planned", "expected"),
    [
        (IMPROVING, 30, "still improving"),
        (FLAT, 30, "converged"),
        (RISING, 40, "overfitting"),
        (IMPROVING, 60, "stopped early"),
        (RISING, 60, "overfitting"),
        (IMPROVING[:1], 30, None),
        ([], 30, None),
    ],
)
def test_verdict(rows: list[LossRow], planned: int, expected: str | None) -> None:
    assert verdict(rows, planned) == expected


def test_overfitting_begins_at_the_best_step() -> None:
    assert overfitting_step(RISING) == 20


def test_a_diverged_run_is_not_called_overfitting() -> None:
    assert overfitting_step(DIVERGED) is None


def test_a_rise_under_one_percent_is_none() -> None:
    assert overfitting_step(curve((3, 3), (1, 1), (0.9, 1.009))) is None


def test_the_best_row_is_the_first_of_equals() -> None:
    best = best_row(curve((3, 3), (2, 1), (1, 1)))
    assert best is not None
    assert best.step == 20
