"""Learning curves: the chart, and the sentence on whether more data would help.

A curve is of one training seed. Its bounds and its p-value cover the choice of test examples. Only
`seeds` can show how much training itself varies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tuneoff.report import format as f
from tuneoff.report.charts.base import WIDTH, Spec, assign_colors, compute_domain, finish_chart
from tuneoff.results import ContenderResult, CurvePoint
from tuneoff.scoring.intervals import SIGNIFICANCE_LEVEL

SMALL_GAIN = 0.01  # one point of a share: too little to gather twice the data for


def describe_curve(contender: ContenderResult, metric: str, share: bool = True) -> str | None:
    """Return the gain of the last step, to all training examples, as a sentence; None without a
    curve.

    `share`: whether the metric lies in [0, 1], so that it reads as percent.
    """
    if len(contender.learning_curve) < 2:
        return None
    before, last = contender.learning_curve[-2:]
    gain = last.value - before.value
    half = before.fraction == last.fraction / 2
    part = "half" if half else f.percent(before.fraction).replace(".0%", "%")
    who = contender.name + (f" (seed {contender.seeds[0]})" if contender.seeds else "")
    step = "doubling them brings" if half else "all of them bring"
    sign = "+" if gain > 0 else ""
    return (
        f"With {part} of the training examples ({f.count(before.examples)}) {who} reaches "
        f"{f.words(metric)} {f.score(before.value, share)}; {step} {sign}"
        f"{f.difference(gain, share)} ({f.p_equals(last.p_value)}): {_explain_outlook(gain, last)}."
    )


def _explain_outlook(gain: float, last: CurvePoint) -> str:
    """Return whether more data would help, as a clause."""
    if gain > 0 and last.p_value is not None and last.p_value < SIGNIFICANCE_LEVEL:
        return "more data would likely help"
    if gain <= SMALL_GAIN:
        return "little more is to be had from more data"
    return "whether more data would help cannot be told from this test set"


def build_curve_chart(
    contenders: Sequence[ContenderResult],
    metric: str,
    width: int = WIDTH,
    legend: bool = True,
) -> Spec | None:
    """Return the chart of the metric against training examples; None without a curve.

    There is one line per contender, with its 95% band.
    """
    import altair as alt

    curves = {c.name: c.learning_curve for c in contenders if c.learning_curve and not c.error}
    points = [point for curve in curves.values() for point in curve]
    if not points:
        return None
    share = f.is_share(*(point.value for point in points))
    rows = [_build_row(name, point, share) for name, curve in curves.items() for point in curve]
    bounds = [b for p in points for b in (p.low, p.value, p.high) if b is not None]
    palette = assign_colors(contenders)
    key = alt.Legend(
        title=None,
        orient="top",
        columns=3,
        labelLimit=220,
        symbolType="circle",
        symbolOpacity=1,  # the band's own would be hard to see
    )
    y = alt.Y(
        "value:Q",
        title=f.words(metric),
        scale=alt.Scale(domain=compute_domain(bounds, share), nice=False, zero=False),
        axis=alt.Axis(format="%" if share else "~g", tickCount=5),
    )
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        x=_build_examples_axis(points),
        color=alt.Color(
            "contender:N",
            legend=key if legend else None,
            scale=alt.Scale(domain=list(curves), range=[palette[name] for name in curves]),
        ),
        tooltip=[
            alt.Tooltip("contender:N"),
            alt.Tooltip("examples:Q", title="training examples", format=","),
            alt.Tooltip("part:N", title="of all"),
            alt.Tooltip("shown:N", title=f.words(metric)),
            alt.Tooltip("interval:N", title="95% interval"),
        ],
    )
    band = base.mark_area(opacity=0.12).encode(y=alt.Y("low:Q", title=f.words(metric)), y2="high:Q")
    lines = base.mark_line(strokeWidth=2).encode(y=y)
    dots = base.mark_point(size=55, filled=True, opacity=1).encode(y=y)
    hits = base.mark_point(size=250, filled=True, opacity=0).encode(y=y)
    return finish_chart(alt.layer(band, lines, dots, hits), width, 280)


def _build_examples_axis(points: Sequence[CurvePoint]) -> Any:
    """Return a log axis of examples, labelled at the points."""
    import altair as alt

    return alt.X(
        "examples:Q",
        title="training examples (log scale)",
        scale=alt.Scale(type="log", nice=False, padding=24),
        axis=alt.Axis(
            values=sorted({point.examples for point in points}), format=",d", labelOverlap="greedy"
        ),
    )


def _build_row(name: str, point: CurvePoint, share: bool) -> dict[str, Any]:
    """Return the chart's row of a point."""
    return {
        "contender": name,
        "examples": point.examples,
        "part": f.percent(point.fraction),
        "value": point.value,
        "low": point.low,
        "high": point.high,
        "shown": f.score(point.value, share),
        "interval": f.interval(point.low, point.high, share) or f.MISSING,
    }
