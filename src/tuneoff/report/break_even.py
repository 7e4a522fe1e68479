"""The chart of monthly costs, own and hosted, against the number of requests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tuneoff.report.charts.base import GREY, WIDTH, Spec, assign_colors, finish_chart
from tuneoff.results import BreakEven, ContenderResult, Results


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
