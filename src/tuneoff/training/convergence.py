"""What a loss curve says: converged, overfitting, stopped early, still improving.

Computed from the rows of `loss.jsonl` alone, so that curves recorded by a hosted provider
get the same verdict. A change of validation loss under 1% counts as none.
"""

from __future__ import annotations

from collections.abc import Sequence

from tuneoff.records import LossRow, Verdict

NEGLIGIBLE = 0.01
LAST_PART = 0.9
# What counts as a new best for patience: smaller gains would keep a flat curve going for ever.
SMALLEST_GAIN = 0.002


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


def verdict(rows: Sequence[LossRow], planned_steps: int | None) -> Verdict | None:
    """The verdict on a whole curve; None when validation loss was measured less than twice.

    `planned_steps`: how many steps were asked for; fewer done means `stopped early`.
    """
    measured = [row for row in rows if row.validation is not None]
    if len(measured) < 2:
        return None
    if overfitting_step(measured) is not None:
        return "overfitting"
    if planned_steps is not None and measured[-1].step < planned_steps:
        return "stopped early"
    last = measured[-1]
    # The last two rows may be a few steps apart; what counts is the last part of the training.
    earlier = [row for row in measured[:-1] if row.step <= LAST_PART * last.step]
    before = (earlier or measured[:1])[-1].validation or 0.0
    improving = (last.validation or 0.0) < before * (1 - NEGLIGIBLE)
    return "still improving" if improving else "converged"
