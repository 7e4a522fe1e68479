"""Charts of cost: the primary metric against training cost, with its Pareto front.

No other contender is as good as one on the front for less. A second chart shows monthly costs, own
and hosted, against the number of requests.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuneoff.report import format as f
from tuneoff.report.charts.base import (
    GREY,
    WIDTH,
    Spec,
    assign_colors,
    compute_domain,
    finish_chart,
)
from tuneoff.report.comparisons import get_metric_value
from tuneoff.results import BreakEven, ContenderResult, Results

# Min ratio between the highest and the lowest cost for a log axis: a linear one hides the small
# costs.
MIN_LOG_RATIO = 20


@dataclass(frozen=True, slots=True)
class _Measure:
    """A measure of training cost that all contenders have."""

    title: str
    axis: str
    tooltip: str
    values: dict[str, float]


def select_comparable(contenders: Sequence[ContenderResult]) -> list[ContenderResult]:
    """Return the contenders for the chart: with training that can be compared, or prompted."""
    return [c for c in contenders if not c.error and (c.training or c.id == "prompted")]


def find_pareto_front(points: Sequence[tuple[str, float, float]]) -> list[str]:
    """Return the names on the Pareto front of (name, cost, value), the cheapest first."""
    names, best = [], -math.inf
    for name, _, value in sorted(points, key=lambda point: (point[1], -point[2])):
        if value > best:
            names.append(name)
            best = value
    return names


def build_cost_chart(
    contenders: Sequence[ContenderResult],
    metric: str,
    width: int = WIDTH,
    legend: bool = True,
) -> Spec | None:
    """Return the chart of the metric against training's USD, or its tokens if prices are missing.

    None if fewer than two contenders can be compared.
    """
    import altair as alt

    shown = [c for c in select_comparable(contenders) if get_metric_value(c, metric) is not None]
    measure = _choose_measure(shown)
    if measure is None or len(set(measure.values.values())) < 2:
        return None
    values = {c.name: get_metric_value(c, metric) or 0.0 for c in shown}
    share = f.is_share(*values.values())
    best = find_pareto_front(
        [(name, measure.values[name], value) for name, value in values.items()]
    )
    rows = [_build_row(c, metric, measure, share, c.name in best) for c in shown]
    bounds = [row[edge] for row in rows for edge in ("low", "value", "high")]
    bounds = [bound for bound in bounds if bound is not None]
    palette = assign_colors(contenders)
    x = alt.X("cost:Q", title=measure.title, **_build_scale(measure))
    y = alt.Y(
        "value:Q",
        title=f.words(metric),
        scale=alt.Scale(domain=compute_domain(bounds or [0.0], share), nice=False, zero=False),
        axis=alt.Axis(format="%" if share else "~g", tickCount=5),
    )
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        x=x,
        color=alt.Color(
            "contender:N",
            legend=alt.Legend(title=None, orient="top", columns=3, labelLimit=220)
            if legend
            else None,
            scale=alt.Scale(domain=list(values), range=[palette[name] for name in values]),
        ),
        tooltip=[
            alt.Tooltip("contender:N"),
            alt.Tooltip("cost:Q", title=measure.title, format=measure.tooltip),
            alt.Tooltip("shown:N", title=f.words(metric)),
        ],
    )
    line = [row for name in best for row in rows if row["contender"] == name]
    steps = (
        alt.Chart(alt.InlineData(values=line))
        .mark_line(interpolate="step-after", strokeDash=[4, 4], strokeWidth=1.5, color=GREY)
        .encode(x=x, y=y)
    )
    span = base.mark_rule(strokeWidth=2, opacity=0.45)
    span = span.encode(y=alt.Y("low:Q", title=f.words(metric)), y2="high:Q")
    points = base.mark_point(filled=True, size=90, opacity=1).encode(y=y)
    rings = base.transform_filter("datum.front").mark_point(size=260, strokeWidth=1.8, opacity=1)
    layers = [steps, span, points, rings.encode(y=y)]
    return finish_chart(alt.layer(*layers), width, 280)


def _choose_measure(contenders: Sequence[ContenderResult]) -> _Measure | None:
    """Return the measure that all contenders have: USD, else tokens. A prompted contender cost
    nothing."""

    def known(find: Any) -> dict[str, float] | None:
        found = {c.name: find(c) if c.training else 0.0 for c in contenders}
        return None if None in found.values() else found

    usd = known(lambda c: c.cost.training_usd)
    if usd is not None and any(usd.values()):
        return _Measure("USD of one training", "$,~g", "$,.4~r", usd)
    tokens = known(lambda c: c.training.tokens_templated or c.training.tokens_billed)
    if tokens is not None and any(tokens.values()):
        return _Measure("tokens of one training, all epochs", "~s", ",", tokens)
    return None


def _build_scale(measure: _Measure) -> dict[str, Any]:
    """Return a linear axis, or a logarithmic one that has a place for 0."""
    import altair as alt

    label = f"format(datum.value, '{measure.axis}')"  # each by itself: 0, not 0k
    some = [value for value in measure.values.values() if value > 0]
    if max(some) / min(some) < MIN_LOG_RATIO:
        return {
            "scale": alt.Scale(zero=True, nice=True, padding=14),
            "axis": alt.Axis(labelExpr=label, tickCount=5),
        }
    powers = range(math.floor(math.log10(min(some))), math.ceil(math.log10(max(some))) + 1)
    ticks = [0.0, *(10.0**power for power in powers)]
    return {
        "scale": alt.Scale(type="symlog", constant=min(some), nice=False, padding=14),
        "axis": alt.Axis(labelExpr=label, values=ticks),
    }


def _build_row(
    contender: ContenderResult, metric: str, measure: _Measure, share: bool, on_front: bool
) -> dict[str, Any]:
    """Return a contender's row of the chart."""
    score = contender.scores[metric]
    bounds = f.interval(score.low, score.high, share)
    return {
        "contender": contender.name,
        "cost": measure.values[contender.name],
        "value": score.value,
        "low": score.low,
        "high": score.high,
        "front": on_front,
        "shown": f"{f.score(score.value, share)} {bounds}".strip(),
    }


def build_break_even_chart(
    results: Results,
    contenders: Sequence[ContenderResult],
    width: int = WIDTH,
    legend: bool = True,
) -> Spec | None:
    """Return the chart of USD against requests a month; None without a pair.

    There is one line per contender. Rings mark where owning is cheaper at any higher load.
    """
    import altair as alt

    lines = _collect_lines(results.break_even)
    if not lines:
        return None
    names = [c.name for c in contenders if c.name in lines]
    palette = assign_colors(contenders)
    least = min(usd for pair in results.break_even for _, usd in lines[pair.own])
    low = max(least / 20, 0.01)
    x, y = _build_axes(lines, low)
    key = alt.Legend(title=None, orient="top", columns=3, labelLimit=220, symbolType="stroke")
    color = alt.Color(
        "contender:N",
        legend=key if legend else None,
        scale=alt.Scale(domain=names, range=[palette[name] for name in names]),
    )
    # Rows below the axis are removed here: Vega numbers its clip paths, so the same picture would
    # have different bytes each time.
    rows = [
        {"contender": name, "requests": n, "usd": usd}
        for name in names
        for n, usd in lines[name]
        if usd >= low
    ]
    base = alt.Chart(alt.InlineData(values=rows)).encode(x=x, y=y, color=color)
    hits = base.mark_point(size=150, filled=True, opacity=0).encode(
        color=alt.Color("contender:N", legend=None),
        tooltip=[
            alt.Tooltip("contender:N"),
            alt.Tooltip("requests:Q", title="requests a month", format=",.0f"),
            alt.Tooltip("usd:Q", title="USD a month", format="$,.2f"),
        ],
    )
    layers = [base.mark_line(strokeWidth=2), hits, *_build_rings(results.break_even, lines, x, y)]
    return finish_chart(alt.layer(*layers), width, 300)


def _build_axes(lines: Mapping[str, Sequence[tuple[float, float]]], low: float) -> tuple[Any, Any]:
    """Return the axes of requests and USD, both logarithmic; USD begins at `low`."""
    import altair as alt

    most = max(usd for line in lines.values() for _, usd in line)
    return (
        alt.X(
            "requests:Q",
            title="requests a month (log scale)",
            scale=alt.Scale(type="log", nice=False),
            axis=alt.Axis(
                format="~s", values=_list_decades([n for line in lines.values() for n, _ in line])
            ),
        ),
        alt.Y(
            "usd:Q",
            title="USD a month (log scale)",
            scale=alt.Scale(type="log", nice=False, domain=[low, most]),
            axis=alt.Axis(format="$~s", values=_list_decades([low, most])),
        ),
    )


def _list_decades(values: Sequence[float]) -> list[float]:
    """Return the powers of ten around values: a log axis's own grid has nine lines per decade."""
    powers = [math.log10(value) for value in values]
    return [10.0**power for power in range(math.floor(min(powers)), math.ceil(max(powers)) + 1)]


def _collect_lines(pairs: Sequence[BreakEven]) -> dict[str, list[tuple[float, float]]]:
    """Return each contender's (requests, USD) a month, from any pair that it is in."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for pair in pairs:
        lines[pair.own] = [(p.requests_per_month, p.own_usd) for p in pair.curve]
        lines[pair.hosted] = [(p.requests_per_month, p.hosted_usd) for p in pair.curve]
    return lines


def _build_rings(
    pairs: Sequence[BreakEven], lines: Mapping[str, Sequence[tuple[float, float]]], x: Any, y: Any
) -> list[Any]:
    """Return a layer of rings where owning is cheaper at any higher load; empty without rings."""
    import altair as alt

    rings = [
        {"pair": f"{p.own} against {p.hosted}", "requests": n, "usd": _get_cost_at(lines[p.own], n)}
        for p in pairs
        if (n := p.requests_per_month)
    ]
    if not rings:
        return []
    marks = alt.Chart(alt.InlineData(values=rings)).mark_point(
        size=130, strokeWidth=2.2, opacity=1, color=GREY
    )
    tooltip = [
        alt.Tooltip("pair:N"),
        alt.Tooltip("requests:Q", title="cheaper from", format=",.0f"),
    ]
    return [marks.encode(x=x, y=y, tooltip=tooltip)]


def _get_cost_at(line: Sequence[tuple[float, float]], requests: float) -> float:
    """Return a step curve's value at a load: that of the next point."""
    return next((usd for n, usd in line if n >= requests), line[-1][1])
