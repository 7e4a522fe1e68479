"""A loss curve as numbers for `pages/curve.html.j2`.

Heights are pixels and widths are percent, so the drawing is as wide as the screen and its letters
keep their size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tuneoff.records import LossRow
from tuneoff.report import format as f

HEIGHT, TOP, BOTTOM = 200, 10, 192
TICKS = 5
# Points of a line; more would look the same.
MAX_POINTS = 200
# Losses whose ratio is above this are drawn on a logarithmic axis, as in the report.
LOG_AXIS_RATIO = 12


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis: its position (percent or pixels) and its label."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Dot:
    """A value: its position (percent, pixels) and its tooltip."""

    x: float
    y: float
    says: str


@dataclass(frozen=True, slots=True)
class Line:
    """One loss over the steps; `last` is its newest value."""

    name: str
    dots: tuple[Dot, ...]
    last: str

    @property
    def points(self) -> str:
        """Return the line's points in a box of 1000 by `HEIGHT`."""
        return " ".join(f"{10 * dot.x:.1f},{dot.y:.1f}" for dot in self.dots)


@dataclass(frozen=True, slots=True)
class LossCurve:
    """Axes and lines of a loss curve."""

    x: tuple[Tick, ...]
    y: tuple[Tick, ...]
    lines: tuple[Line, ...]
    height: int = HEIGHT

    @property
    def words(self) -> str:
        """Describe the curve for screen readers."""
        ends = "; ".join(f"{line.name} loss {line.last}" for line in self.lines)
        return f"Loss by step. Newest values: {ends}."


def build_loss_curve(
    rows: Sequence[LossRow], total_steps: int | None, validated: bool
) -> LossCurve | None:
    """Return the loss curve of a training so far; None while there is nothing to draw.

    Args:
        total_steps: where the axis of steps ends.
        validated: whether the validation losses are of a validation file.
    """
    series = {"training": [(row.step, row.train) for row in rows]}
    if validated:
        series["validation"] = [(row.step, row.validation) for row in rows]
    finite = {
        name: [(step, loss) for step, loss in values if loss is not None and math.isfinite(loss)]
        for name, values in series.items()
    }
    losses = [loss for values in finite.values() for _, loss in values]
    if not losses:
        return None
    end = max(total_steps or 0, rows[-1].step, 1)
    low, high = min(losses), max(losses)
    is_log = low > 0 and high / low > LOG_AXIS_RATIO
    y_ticks = _choose_log_ticks(low, high) if is_log else _choose_ticks(low, high)

    def height(loss: float) -> float:
        """Return the vertical position of a loss in pixels."""
        scale = math.log if is_log else float
        share = (scale(loss) - scale(y_ticks[0])) / (scale(y_ticks[-1]) - scale(y_ticks[0]))
        return round(BOTTOM - share * (BOTTOM - TOP), 1)

    lines = [
        Line(
            name,
            tuple(
                Dot(
                    round(100 * step / end, 2), height(loss), f"step {step}: {name} loss {loss:.4g}"
                )
                for step, loss in thin_points(values)
            ),
            f"{values[-1][1]:.3g}",
        )
        for name, values in finite.items()
        if values
    ]
    steps = [step for step in _choose_ticks(0, end) if step <= end and step == int(step)]
    return LossCurve(
        tuple(Tick(round(100 * step / end, 2), f.count(step)) for step in steps),
        tuple(Tick(height(mark), f"{mark:.6g}") for mark in y_ticks),
        tuple(lines),
    )


def thin_points(values: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return at most `MAX_POINTS` evenly spaced values, and the last one."""
    every = math.ceil(len(values) / MAX_POINTS)
    kept = list(values[::every])
    return kept if kept[-1:] == list(values[-1:]) else [*kept, values[-1]]


def _choose_ticks(low: float, high: float) -> list[float]:
    """Return about `TICKS` round numbers that cover `low` to `high`."""
    span = high - low or abs(high) or 1.0
    rough = span / TICKS
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= rough)
    first, last = math.floor(low / step), max(math.ceil(high / step), math.floor(low / step) + 1)
    return [float(f"{number * step:.12g}") for number in range(first, last + 1)]


def _choose_log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times powers of ten; only the powers where that would be many."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    fine = [float(f"{m}e{p}") for p in range(first, last + 1) for m in (1, 2, 5)]
    inner = [mark for mark in fine if low < mark < high]
    below = max(mark for mark in fine if mark <= low)
    above = min((mark for mark in fine if mark >= high), default=10.0 ** (last + 1))
    if len(inner) > TICKS + 1:
        return [10.0**power for power in range(first, last + 1)]
    return [below, *inner, above]
