"""Classifies a loss curve: converged, overfitting, stopped early, still improving.

It uses the rows of `loss.jsonl` and the schedule alone, so that curves from a hosted provider get
the same verdict. A change of validation loss under 1% counts as none.

Where the learning rate falls to zero every curve ends flat, however much is left to learn. So the
last tenth is measured in learning (the sum of the learning rates), not in steps. With a linear
schedule that is the last third of the steps, with a cosine the last two fifths.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from tuneoff.records import LossRow, Verdict

NEGLIGIBLE_CHANGE = 0.01
LAST_FRACTION = 0.1
# The relative gain that resets patience; smaller gains would continue a flat curve for ever.
MIN_GAIN = 0.002


@dataclass(frozen=True, slots=True)
class Schedule:
    """A learning-rate schedule: linear warmup, then constant, linear or cosine decay."""

    kind: Literal["linear", "cosine", "constant"]
    """How the rate changes after warmup."""
    warmup: int
    """Warmup steps."""
    steps: int
    """All steps; a rate that is not constant is zero after them."""

    def rate(self, step: int) -> float:
        """Return a step's fraction of the peak learning rate; steps count from 1."""
        done = step - 1
        if done < self.warmup:
            return done / self.warmup
        left = (self.steps - done) / max(1, self.steps - self.warmup)
        decayed = {"linear": left, "cosine": (1 - math.cos(math.pi * left)) / 2, "constant": 1.0}
        return max(0.0, decayed[self.kind])

    def find_last_fraction(self, last: int) -> int:
        """Return the step after which a tenth of all learning up to step `last` remains."""
        learned = list(accumulate(self.rate(step) for step in range(1, last + 1)))
        threshold = learned[-1] * (1 - LAST_FRACTION)
        return sum(total <= threshold for total in learned)


def find_best_row(rows: Sequence[LossRow]) -> LossRow | None:
    """Return the first row with the lowest validation loss; None if there is none."""
    measured = [row for row in rows if row.validation is not None]
    return min(measured, key=lambda row: row.validation or 0.0, default=None)


def is_out_of_patience(rows: Sequence[LossRow], patience: int) -> bool:
    """Return whether the last `patience` validations gained less than 0.2% over the best before."""
    losses = [row.validation for row in rows if row.validation is not None]
    best, since = float("inf"), 0
    for loss in losses:
        if loss < best * (1 - MIN_GAIN):
            best, since = loss, 0
        else:
            since += 1
    return since >= patience


def find_overfitting_step(rows: Sequence[LossRow]) -> int | None:
    """Return the step after which validation loss only rose while training loss fell.

    None when validation loss ends within 1% of its best, or when training loss rose too.
    """
    best, last = find_best_row(rows), rows[-1] if rows else None
    if best is None or last is None or best.validation is None or last.validation is None:
        return None
    if last.validation <= best.validation * (1 + NEGLIGIBLE_CHANGE):
        return None
    if best.train is not None and last.train is not None and last.train > best.train:
        return None
    return best.step


def classify_loss_curve(
    rows: Sequence[LossRow], planned_steps: int | None, schedule: Schedule | None = None
) -> Verdict | None:
    """Return the verdict on a complete curve; None with fewer than two validations.

    Args:
        planned_steps: the steps that were asked for; fewer done means `stopped early`.
        schedule: None when unknown, as for a hosted job; the rate may then have fallen to zero.
    """
    measured = [row for row in rows if row.validation is not None]
    if len(measured) < 2:
        return None
    if find_overfitting_step(measured) is not None:
        return "overfitting"
    if planned_steps is not None and measured[-1].step < planned_steps:
        return "stopped early"
    last = measured[-1]
    schedule = schedule or Schedule("linear", 0, last.step)
    begins = schedule.find_last_fraction(last.step)
    earlier = [row for row in measured[:-1] if row.step <= begins]
    before = (earlier or measured[:1])[-1].validation or 0.0
    improving = (last.validation or 0.0) < before * (1 - NEGLIGIBLE_CHANGE)
    return "still improving" if improving else "converged"
