"""What a loss curve says: converged, overfitting, stopped early, still improving.

Computed from the rows of `loss.jsonl` and the schedule, so that curves recorded by a hosted
provider get the same verdict. A change of validation loss under 1% counts as none.

Where the learning rate falls to zero every curve ends flat, whatever is left to learn. So a
training is looked at over its last tenth not of steps, but of learning: of the sum of its
learning rates. Of a linear schedule that is the last third of the steps, of a cosine two fifths.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from tuneoff.records import LossRow, Verdict

NEGLIGIBLE = 0.01
LAST_PART = 0.1
# What counts as a new best for patience: smaller gains would keep a flat curve going for ever.
SMALLEST_GAIN = 0.002


@dataclass(frozen=True, slots=True)
class Schedule:
    """How the learning rate goes: up over `warmup` steps, then as its kind says, to zero after
    `steps` unless it is constant."""

    kind: Literal["linear", "cosine", "constant"]
    warmup: int
    steps: int

    def rate(self, step: int) -> float:
        """A step's share of the highest learning rate; the first step is 1."""
        done = step - 1
        if done < self.warmup:
            return done / self.warmup
        left = (self.steps - done) / max(1, self.steps - self.warmup)
        decayed = {"linear": left, "cosine": (1 - math.cos(math.pi * left)) / 2, "constant": 1.0}
        return max(0.0, decayed[self.kind])

    def last_part_begins(self, last: int) -> int:
        """The step after which a tenth of what was learned by the `last` step is left."""
        learned = list(accumulate(self.rate(step) for step in range(1, last + 1)))
        most = learned[-1] * (1 - LAST_PART)
        return sum(each <= most for each in learned)


def best_row(rows: Sequence[LossRow]) -> LossRow | None:
    """The first row with the lowest validation loss."""
    measured = [row for row in rows if row.validation is not None]
    return min(measured, key=lambda row: row.validation or 0.0, default=None)


def out_of_patience(rows: Sequence[LossRow], patience: int) -> bool:
    """Whether the last `patience` validations brought no gain of 0.2% over the best before."""
    losses = [row.validation for row in rows if row.validation is not None]
    best, since = float("inf"), 0
    for loss in losses:
        if loss < best * (1 - SMALLEST_GAIN):
            best, since = loss, 0
        else:
            since += 1
    return since >= patience


def overfitting_step(rows: Sequence[LossRow]) -> int | None:
    """The step from which validation loss rose for good while training loss fell.

    None when validation loss ends within 1% of its best, or training loss rose too.
    """
    best, last = best_row(rows), rows[-1] if rows else None
    if best is None or last is None or best.validation is None or last.validation is None:
        return None
    if last.validation <= best.validation * (1 + NEGLIGIBLE):
        return None
    if best.train is not None and last.train is not None and last.train > best.train:
        return None
    return best.step


def verdict(
    rows: Sequence[LossRow], planned_steps: int | None, schedule: Schedule | None = None
) -> Verdict | None:
    """The verdict on a whole curve; None when validation loss was measured less than twice.

    Args:
        planned_steps: how many steps were asked for; fewer done means `stopped early`.
        schedule: None: not known, as of a hosted job; the rate may have fallen to zero.
    """
    measured = [row for row in rows if row.validation is not None]
    if len(measured) < 2:
        return None
    if overfitting_step(measured) is not None:
        return "overfitting"
    if planned_steps is not None and measured[-1].step < planned_steps:
        return "stopped early"
    last = measured[-1]
    schedule = schedule or Schedule("linear", 0, last.step)
    begins = schedule.last_part_begins(last.step)
    earlier = [row for row in measured[:-1] if row.step <= begins]
    before = (earlier or measured[:1])[-1].validation or 0.0
    improving = (last.validation or 0.0) < before * (1 - NEGLIGIBLE)
    return "still improving" if improving else "converged"
