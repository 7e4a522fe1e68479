"""Verdicts on constructed loss curves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import get_scheduler

from tuneoff.records import LossRow
from tuneoff.training.arguments import SCHEDULES
from tuneoff.training.convergence import (
    Schedule,
    classify_loss_curve,
    find_best_row,
    find_overfitting_step,
)


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
    assert classify_loss_curve(rows, planned) == expected


# Falls until the learning rate is nearly zero, and is flat from there on.
FLAT_AT_THE_END = curve(*((1, 1 + 0.1 * max(0, 8 - i)) for i in range(1, 11)))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("constant", "converged"), ("linear", "still improving"), ("cosine", "still improving")],
)
def test_what_is_flat_because_the_rate_is_zero_has_not_converged(kind: Any, expected: str) -> None:
    assert classify_loss_curve(FLAT_AT_THE_END, 100, Schedule(kind, 0, 100)) == expected


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine"])
def test_what_is_flat_while_the_rate_is_high_has_converged(kind: Any) -> None:
    rows = curve(*((1, 1 if i > 3 else 2) for i in range(1, 11)))
    assert classify_loss_curve(rows, 100, Schedule(kind, 5, 100)) == "converged"


def test_a_schedule_that_nobody_knows_may_have_gone_to_zero() -> None:
    """A hosted job's."""
    assert classify_loss_curve(FLAT_AT_THE_END, None) == "still improving"


@pytest.mark.parametrize(("kind", "step"), [("constant", 90), ("linear", 68), ("cosine", 59)])
def test_the_last_tenth_of_learning(kind: Any, step: int) -> None:
    """What is left of it: (1 - x)² / 2, or (1 - x) / 2 - sin(πx) / 2π, is a tenth of a half."""
    assert abs(Schedule(kind, 0, 100).find_last_fraction(100) - step) <= 1


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("warmup", [0, 7])
def test_rates_are_those_that_the_trainer_has(kind: Any, warmup: int) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    real = get_scheduler(SCHEDULES[kind], optimizer, warmup, 40)
    schedule = Schedule(kind, warmup, 40)
    for step in range(1, 41):
        assert schedule.rate(step) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
        optimizer.step()
        real.step()


def test_overfitting_begins_at_the_best_step() -> None:
    assert find_overfitting_step(RISING) == 20


def test_a_diverged_run_is_not_called_overfitting() -> None:
    assert find_overfitting_step(DIVERGED) is None


def test_a_rise_under_one_percent_is_none() -> None:
    assert find_overfitting_step(curve((3, 3), (1, 1), (0.9, 1.009))) is None


def test_the_best_row_is_the_first_of_equals() -> None:
    best = find_best_row(curve((3, 3), (2, 1), (1, 1)))
    assert best is not None
    assert best.step == 20
