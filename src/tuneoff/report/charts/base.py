"""The charts of validation loss and of scores, and what every chart shares.

Each chart is one Vega-Lite specification (a plain dict) made with altair. It is rendered to SVG for
Markdown. The HTML page holds the SVG and the specification; its script replaces the one by an
interactive chart from the other. Colours are mid-tones that read on white and on black; the page's
own style sheet recolours text and grid. The learning curve's chart is in `learning_curve.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from tuneoff.records import LossRow
from tuneoff.report import format as f
from tuneoff.results import ContenderResult, Score

Spec = dict[str, Any]
# Blue, orange, green, purple, red, teal, ochre, grey: most colour-blind readers can tell them
# apart. Then brown, pink, indigo, olive for the rare runs with more contenders.
PALETTE = (
    "#3f7fca",
    "#d97a1f",
    "#2f9a6e",
    "#a566b8",
    "#cc5560",
    "#2c9aa8",
    "#a98a1c",
    "#7d8590",
    "#8f6247",
    "#cf62a0",
    "#6b6fd6",
    "#71962f",
)
GREY, GRID = "#7b828c", "#8a919b40"
WIDTH = 700
LOSS_TITLE = "validation loss, nats per token"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"


def assign_colors(contenders: Iterable[ContenderResult]) -> dict[str, str]:
    """Return each contender's colour, the same in every chart and table."""
    return {c.name: PALETTE[i % len(PALETTE)] for i, c in enumerate(contenders)}


def build_loss_chart(
    contenders: Sequence[ContenderResult], width: int = WIDTH, legend: bool = True
) -> Spec | None:
    """Return the chart of validation loss against examples seen; None without a validation loss.

    There is one line per contender. A ring marks its best step, a cross the onset of overfitting.
    """
    import altair as alt

    rows = [row for c in contenders for row in _build_loss_rows(c)]
    if not rows:
        return None
    names = [c.name for c in contenders if any(row["contender"] == c.name for row in rows)]
    losses = [row["loss"] for row in rows]
    # An untrained model's first loss may be a hundred times the last one; the axis must show both.
    log = min(losses) > 0 and max(losses) / min(losses) > 12
    palette = assign_colors(contenders)
    key = alt.Legend(title=None, orient="top", columns=3, labelLimit=220, symbolType="circle")
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        x=alt.X("examples_seen:Q", title="examples seen", axis=alt.Axis(tickCount=6, format=",d")),
        y=_build_log_axis(losses)
        if log
        else alt.Y(
            "loss:Q", title=LOSS_TITLE, axis=alt.Axis(tickCount=5), scale=alt.Scale(zero=False)
        ),
        color=alt.Color(
            "contender:N",
            legend=key if legend else None,
            scale=alt.Scale(domain=names, range=[palette[name] for name in names]),
        ),
        tooltip=[
            alt.Tooltip("contender:N"),
            alt.Tooltip("step:Q", format=","),
            alt.Tooltip("examples_seen:Q", title="examples seen", format=","),
            alt.Tooltip("loss:Q", title="validation loss", format=".4~f"),
            alt.Tooltip("train:Q", title="training loss", format=".4~f"),
        ],
    )
    best = base.transform_filter("datum.best").mark_point(size=130, strokeWidth=2.2, opacity=1)
    onset = base.transform_filter("datum.onset").mark_point(
        shape="cross", angle=45, size=190, strokeWidth=2, filled=True, opacity=1
    )
    lines = base.mark_line(strokeWidth=2, interpolate="linear")
    points = base.mark_point(size=16, filled=True, opacity=1)
    hits = base.mark_point(size=250, filled=True, opacity=0)  # a finger is wider than a dot
    # Vega warns about a layer without marks, and screen readers announce it.
    marks = [mark for mark, key in ((best, "best"), (onset, "onset")) if _has_any(rows, key)]
    return finish_chart(alt.layer(lines, points, *marks, hits), width, 300)


def build_score_chart(
    contenders: Sequence[ContenderResult], metric: str, width: int = WIDTH
) -> Spec | None:
    """Return the chart of the metric of every scored contender; None without scores.

    A score is a point with its 95% interval. Thin marks are the seeds, where there are several.
    """
    import altair as alt

    scores = {c.name: c.scores[metric] for c in contenders if not c.error and metric in c.scores}
    scores = {name: score for name, score in scores.items() if score.value is not None}
    if not scores:
        return None
    share = f.is_share(*(score.value for score in scores.values()))
    rows = [_build_score_row(name, score, share) for name, score in scores.items()]
    bounds = [row[key] for row in rows for key in ("low", "value", "high") if row[key] is not None]
    bounds += [value for score in scores.values() for value in score.by_seed]
    palette = assign_colors(contenders)
    axis_format = "%" if share else "~g"
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        y=alt.Y(
            "contender:N",
            title=None,
            sort=list(scores),
            axis=alt.Axis(grid=False, ticks=False, domain=False, labelLimit=190, labelPadding=10),
        ),
        color=alt.Color(
            "contender:N",
            legend=None,
            scale=alt.Scale(domain=list(scores), range=[palette[name] for name in scores]),
        ),
        tooltip=[
            alt.Tooltip("contender:N"),
            alt.Tooltip("shown:N", title=f.words(metric)),
            alt.Tooltip("interval:N", title="95% interval"),
            alt.Tooltip("n:Q", title="test examples", format=","),
        ],
    )
    title = f"{f.words(metric)}, with 95% interval"
    x = alt.X(
        "value:Q",
        title=title,
        scale=alt.Scale(domain=compute_domain(bounds, share), nice=False, zero=False),
        axis=alt.Axis(format=axis_format, tickCount=6),
    )
    span = base.mark_rule(strokeWidth=3, opacity=0.55).encode(
        x=alt.X("low:Q", title=title), x2="high:Q"
    )
    point = base.mark_point(filled=True, size=110, opacity=1).encode(x=x)
    seeds = (
        base.transform_flatten(["seeds"], as_=["seed"])
        .mark_tick(thickness=1.5, size=16)
        .encode(x=alt.X("seed:Q", title=title))
    )
    labels = _build_labels(base, rows, compute_domain(bounds, share), x)
    ticks = [seeds] if _has_any(rows, "seeds") else []
    return finish_chart(alt.layer(span, *ticks, point, *labels), width, 46 * len(rows))


def _has_any(rows: Sequence[Spec], key: str) -> bool:
    """Return whether any row has a value for a key."""
    return any(row[key] for row in rows)


def _build_labels(base: Any, rows: Sequence[Spec], ends: Sequence[float], x: Any) -> list[Any]:
    """Return layers with the values above the points.

    At the left end they stand beside the axis's labels, not over them.
    """
    left = ends[0] + 0.04 * (ends[1] - ends[0])
    styles = (("datum.value >=", "center", 0), ("datum.value <", "left", -4))
    there = (any(row["value"] >= left for row in rows), any(row["value"] < left for row in rows))
    return [
        base.transform_filter(f"{test} {left}")
        .mark_text(dy=-13, dx=dx, align=align, fontSize=12, fontWeight=600)
        .encode(x=x, text="shown:N")
        for (test, align, dx), is_there in zip(styles, there, strict=True)
        if is_there
    ]


def render_svg(spec: Spec) -> str:
    """Return a specification as SVG text, drawn without network or browser."""
    import vl_convert

    return str(
        vl_convert.vegalite_to_svg(spec, vl_version=_get_vega_version(), allowed_base_urls=[])
    )


@cache
def load_javascript() -> str:
    """Return Vega, Vega-Lite and vega-embed in one script (about 0.9 MB), for the offline page."""
    import vl_convert

    # Its stub wrongly asks for a snippet; without one the bundle sets window.vegaEmbed.
    return str(vl_convert.javascript_bundle(vl_version=_get_vega_version()))  # type: ignore[call-arg]


def _get_vega_version() -> str:
    """Return the Vega-Lite version that altair writes, as vl-convert names it: `6.1`."""
    import altair as alt

    return ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])


def _build_log_axis(losses: Sequence[float]) -> Any:
    """Return a log axis between round numbers: Vega's own has ten grid lines per decade."""
    import altair as alt

    decades = range(math.floor(math.log10(min(losses))), math.ceil(math.log10(max(losses))) + 1)
    marks = [m * 10.0**decade for decade in decades for m in (1, 2, 5)]
    low = max((mark for mark in marks if mark <= min(losses)), default=marks[0])
    high = min((mark for mark in marks if mark >= max(losses)), default=marks[-1])
    shown = [mark for mark in marks if low <= mark <= high]
    return alt.Y(
        "loss:Q",
        title=f"{LOSS_TITLE} (log scale)",
        scale=alt.Scale(type="log", domain=[low, high], nice=False),
        axis=alt.Axis(values=shown[:: 1 if len(shown) < 9 else 3], format="~g"),
    )


def _build_loss_rows(contender: ContenderResult) -> list[dict[str, Any]]:
    """Return the rows of a contender's line of losses."""
    training = contender.training
    best = training.best_step if training else None
    onset = training.overfitting_step if training else None
    return [
        {
            "contender": contender.name,
            "step": row.step,
            "examples_seen": row.examples_seen,
            "loss": row.validation,
            "train": row.train if _is_finite(row.train) else None,
            "best": row.step == best,
            "onset": row.step == onset,
        }
        for row in _select_finite(contender.loss)
    ]


def _select_finite(rows: Iterable[LossRow]) -> list[LossRow]:
    """Return the rows with a validation loss; a diverged one (not a number) cannot be drawn."""
    return [row for row in rows if _is_finite(row.validation)]


def _is_finite(value: float | None) -> bool:
    """Return whether a value is a finite number."""
    return value is not None and math.isfinite(value)


def _build_score_row(name: str, score: Score, share: bool) -> dict[str, Any]:
    """Return a contender's row of the chart of scores."""
    return {
        "contender": name,
        "value": score.value,
        "low": score.low,
        "high": score.high,
        "n": score.n or None,
        "seeds": list(score.by_seed),
        "shown": f.score(score.value, share),
        "interval": f.interval(score.low, score.high, share) or f.MISSING,
    }


def compute_domain(bounds: Sequence[float], share: bool) -> list[float]:
    """Return the ends of a score axis: every interval with room, on round numbers, at least 20
    points wide."""
    low, high = min(bounds), max(bounds)
    if not share:
        room = 0.1 * (high - low) or 1.0
        return [low - room, high + room]
    low, high = math.floor(low * 20 - 0.5) / 20, math.ceil(high * 20 + 0.5) / 20
    if high - low < 0.2:
        low, high = low - 0.05, high + 0.05
    return [max(round(low, 2), 0.0), min(round(high, 2), 1.0)]


def make_fluid(spec: Spec) -> Spec:
    """Return the same chart with the width of its container."""
    padding = {**spec["padding"], "left": 4}
    autosize = {"type": "fit-x", "contains": "padding"}
    return {**spec, "width": "container", "autosize": autosize, "padding": padding}


def finish_chart(chart: Any, width: int, height: int) -> Spec:
    """Return a chart as a plain dict, with its size and the common style, without its schema's
    address."""
    sized = chart.properties(
        width=width,
        height=height,
        background="transparent",
        autosize={"type": "pad", "contains": "padding"},
        # Labels of the SVG were measured here, and may be wider in the reader's font.
        padding={"left": 20, "right": 14, "top": 6, "bottom": 4},
    )
    styled = (
        sized.configure(font=FONT)
        .configure_view(stroke=None)
        .configure_axis(
            labelColor=GREY,
            titleColor=GREY,
            gridColor=GRID,
            domainColor=GRID,
            tickColor=GRID,
            labelFontSize=12,
            titleFontSize=12,
            titleFontWeight="normal",
            titlePadding=10,
            labelPadding=6,
        )
        .configure_legend(labelColor=GREY, labelFontSize=12, symbolSize=90, columnPadding=28)
    )
    spec: Spec = styled.to_dict()
    spec.pop("$schema", None)
    return spec
