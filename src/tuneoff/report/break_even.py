"""The chart of what a month costs, own and hosted, against how much is asked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tuneoff.records import BreakEven, ContenderResult, Results
from tuneoff.report.charts import GREY, WIDTH, Spec, colors, finished


def break_even_chart(
    results: Results,
    contenders: Sequence[ContenderResult],
    width: int | str = WIDTH,
    legend: bool = True,
) -> Spec | None:
    """USD a month against requests a month, one line a contender, rings where owning begins to
    pay for good. None without a pair. `width` is pixels or "container"."""
    import altair as alt

    lines = _lines(results.break_even)
    if not lines:
        return None
    names = [c.name for c in contenders if c.name in lines]
    palette = colors(contenders)
    most = max(usd for line in lines.values() for _, usd in line)
    least = min(usd for pair in results.break_even for _, usd in lines[pair.own])
    low = max(least / 20, 0.01)
    # Cut here: Vega numbers its clip paths, so that no two pictures would be the same bytes.
    rows = [
        {"contender": name, "requests": n, "usd": usd}
        for name in names
        for n, usd in lines[name]
        if usd >= low
    ]
    x = alt.X(
        "requests:Q",
        title="requests a month (log scale)",
        scale=alt.Scale(type="log", nice=False),
        axis=alt.Axis(
            format="~s", values=_decades([n for line in lines.values() for n, _ in line])
        ),
    )
    y = alt.Y(
        "usd:Q",
        title="USD a month (log scale)",
        scale=alt.Scale(type="log", nice=False, domain=[low, most]),
        axis=alt.Axis(format="$~s", values=_decades([low, most])),
    )
    key = alt.Legend(title=None, orient="top", columns=3, labelLimit=220, symbolType="stroke")
    color = alt.Color(
        "contender:N",
        legend=key if legend else None,
        scale=alt.Scale(domain=names, range=[palette[name] for name in names]),
    )
    tooltip = [
        alt.Tooltip("contender:N"),
        alt.Tooltip("requests:Q", title="requests a month", format=",.0f"),
        alt.Tooltip("usd:Q", title="USD a month", format="$,.2f"),
    ]
    base = alt.Chart(alt.InlineData(values=rows)).encode(x=x, y=y, color=color)
    drawn = base.mark_line(strokeWidth=2)
    hits = base.mark_point(size=150, filled=True, opacity=0).encode(
        tooltip=tooltip, color=alt.Color("contender:N", legend=None)
    )
    layers = [drawn, hits]
    rings = _rings(results.break_even, lines)
    if rings:
        layers.append(
            alt.Chart(alt.InlineData(values=rings))
            .mark_point(size=130, strokeWidth=2.2, opacity=1, color=GREY)
            .encode(
                x=x,
                y=y,
                tooltip=[
                    alt.Tooltip("pair:N"),
                    alt.Tooltip("requests:Q", title="cheaper from", format=",.0f"),
                ],
            )
        )
    return finished(alt.layer(*layers), width, 300)


def _decades(values: Sequence[float]) -> list[float]:
    """Powers of ten around values: a log axis's own grid has nine lines a decade."""
    powers = [math.log10(value) for value in values]
    return [10.0**power for power in range(math.floor(min(powers)), math.ceil(max(powers)) + 1)]


def _lines(pairs: Sequence[BreakEven]) -> dict[str, list[tuple[float, float]]]:
    """Each contender's (requests, USD) a month; of several pairs the same."""
    found: dict[str, list[tuple[float, float]]] = {}
    for pair in pairs:
        found[pair.own] = [(p.requests_per_month, p.own_usd) for p in pair.curve]
        found[pair.hosted] = [(p.requests_per_month, p.hosted_usd) for p in pair.curve]
    return found


def _rings(
    pairs: Sequence[BreakEven], lines: Mapping[str, Sequence[tuple[float, float]]]
) -> list[dict[str, Any]]:
    """Where owning begins to pay for good."""
    return [
        {"pair": f"{p.own} against {p.hosted}", "requests": n, "usd": _at(lines[p.own], n)}
        for p in pairs
        if (n := p.requests_per_month)
    ]


def _at(line: Sequence[tuple[float, float]], requests: float) -> float:
    """A step curve's value: that of the next point."""
    return next((usd for n, usd in line if n >= requests), line[-1][1])
