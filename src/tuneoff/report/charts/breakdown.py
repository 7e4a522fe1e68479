"""The chart of the primary metric by a property of the examples: hardness, database, function."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tuneoff.report import format as f
from tuneoff.report.charts.base import WIDTH, Spec, assign_colors, compute_domain, finish_chart
from tuneoff.results import ContenderResult, Score

# Max keys that get a chart: the first ones, by name.
MAX_KEYS = 4
# Max intervals that can be told apart. Beyond it, the points of a group share one line.
MAX_INTERVALS = 72
# Max characters of a group's name beside the axis.
MAX_GROUP_LETTERS = 22
Groups = Mapping[str, Mapping[str, Score]]


def list_chart_keys(contenders: Sequence[ContenderResult]) -> dict[str, str]:
    """Return the charts: chart name → key of `breakdowns`, for keys that some contender has."""
    present = dict.fromkeys(k for c in contenders if not c.error for k in c.breakdowns)
    names: dict[str, str] = {}
    for key in list(present)[:MAX_KEYS]:
        name = f"by_{re.sub(r'[^A-Za-z0-9]+', '_', key)[:40]}"
        names[name if name not in names else f"{name}_{len(names)}"] = key
    return names


def build_breakdown_chart(
    contenders: Sequence[ContenderResult],
    key: str,
    metric: str,
    width: int = WIDTH,
    legend: bool = True,
) -> Spec | None:
    """Return the chart of the metric in every group; None without groups.

    There is a point per contender, with its 95% interval.
    """
    import altair as alt

    of = {c.name: c.breakdowns[key] for c in contenders if not c.error and key in c.breakdowns}
    rows = _build_rows(of, metric)
    if not rows:
        return None
    groups, names = list(dict.fromkeys(row["group"] for row in rows)), list(of)
    apart = _has_room(of, metric)
    share = f.is_share(*(row["value"] for row in rows))
    edges = ("low", "value", "high") if apart else ("value",)
    bounds = [row[edge] for row in rows for edge in edges if row[edge] is not None]
    palette = assign_colors(contenders)
    base = alt.Chart(
        alt.InlineData(values=[row | {"shown": _format_score(row, share)} for row in rows])
    )
    base = base.encode(
        y=alt.Y(
            "group:N",
            title=None,
            sort=groups,
            axis=alt.Axis(grid=True, tickBand="extent", ticks=False, domain=False, labelLimit=190),
        ),
        color=alt.Color(
            "contender:N",
            legend=alt.Legend(title=None, orient="top", columns=3, labelLimit=220)
            if legend
            else None,
            scale=alt.Scale(domain=names, range=[palette[name] for name in names]),
        ),
        tooltip=[
            alt.Tooltip("contender:N"),
            alt.Tooltip("group:N", title=f.words(key)),
            alt.Tooltip("shown:N", title=f.words(metric)),
            alt.Tooltip("n:Q", title="test examples", format=","),
        ],
    )
    if apart:
        offset = alt.YOffset("contender:N", sort=names, scale=alt.Scale(paddingOuter=0.35))
        base = base.encode(yOffset=offset)
    title = f.words(metric)  # short, for narrow screens
    x = alt.X(
        "value:Q",
        title=title,
        scale=alt.Scale(domain=compute_domain(bounds, share), nice=False, zero=False),
        axis=alt.Axis(format="%" if share else "~g", tickCount=6),
    )
    points = base.mark_point(filled=True, size=60 if apart else 80, opacity=1).encode(x=x)
    layers = [points]
    if apart:
        span = base.mark_rule(strokeWidth=2, opacity=0.45)
        layers.insert(0, span.encode(x=alt.X("low:Q", title=title), x2="high:Q"))
    step = 10 + 11 * len(names) if apart else 26
    return finish_chart(alt.layer(*layers), width, step * len(groups))


def has_intervals(contenders: Sequence[ContenderResult], key: str, metric: str) -> bool:
    """Return whether the chart has room for the intervals."""
    return _has_room({c.name: c.breakdowns.get(key, {}) for c in contenders if not c.error}, metric)


def _has_room(of: Mapping[str, Groups], metric: str) -> bool:
    """Return whether few enough points are in the chart for one line each."""
    return len(_build_rows(of, metric)) <= MAX_INTERVALS


def _build_rows(of: Mapping[str, Groups], metric: str) -> list[dict[str, Any]]:
    """Return the chart's rows: one per contender and group."""
    return [
        {
            "contender": name,
            "group": f"{_shorten_group(group)} ({f.count(score.n)})",
            "value": score.value,
            "low": score.low,
            "high": score.high,
            "n": score.n,
        }
        for name, groups in of.items()
        for group, scores in groups.items()
        if (score := scores.get(metric)) is not None and score.value is not None
    ]


def _shorten_group(group: str) -> str:
    """Return a group's name, shortened for the axis."""
    return group if len(group) <= MAX_GROUP_LETTERS else f"{group[: MAX_GROUP_LETTERS - 1]}…"


def _format_score(row: Mapping[str, Any], share: bool) -> str:
    """Return a row's value and interval as text."""
    bounds = f.interval(row["low"], row["high"], share)
    return f"{f.score(row['value'], share)} {bounds}".strip()
