"""Results as tables for a terminal: of runs, scores, comparisons and tuned models."""

from __future__ import annotations

from collections.abc import Mapping
from io import StringIO
from typing import Any

from tuneoff.report import format
from tuneoff.report.labels import build_label_view, describe_labels
from tuneoff.report.view import (
    build_headline,
    describe_baselines,
    describe_repeated_answers,
    describe_unread_replies,
)
from tuneoff.results import ContenderResult, Results

WIDTH = 110
MAX_GROUPS = 8


def render_results(results: Results) -> str:
    """Return a run's results as text: a table of contenders, then the recommendation."""
    from rich.table import Table

    metric = results.primary_metric
    rich_table = Table(
        title=f"{results.name}: {results.task}, {results.source}", title_justify="left"
    )
    rich_table.add_column("contender", no_wrap=True)
    rich_table.add_column(format.words(metric), justify="right")
    rich_table.add_column("95%", justify="right")
    seeds = any(c.seeds and not c.error for c in results.contenders)
    if seeds:
        rich_table.add_column("seeds", justify="right")
    rich_table.add_column("valid", justify="right")
    rich_table.add_column("trained in", justify="right")
    rich_table.add_column("verdict")
    values = (c.scores[metric].value for c in results.contenders if metric in c.scores)
    share = format.is_share(*values)
    for contender in results.contenders:
        rich_table.add_row(*_build_cells(contender, metric, seeds, share))
    failed = (
        f"{c.name}: {c.error.removeprefix(f'contender {c.name}: ')}"
        for c in results.contenders
        if c.error is not None
    )
    unread = [line for line in [describe_unread_replies(results)] if line]
    bar = [line for line in [describe_baselines(results)] if line]
    repeated = describe_repeated_answers(results.contenders)
    because = results.recommendation.because
    lines = (
        *failed,
        *repeated,
        *unread,
        *list_label_lines(results),
        build_headline(results),
        *because,
        *bar,
    )
    return render_plain(rich_table) + "".join(f"{line}\n" for line in lines)


def list_label_lines(results: Results) -> list[str]:
    """Return what people's labels show about a judge, in lines; empty without labels."""
    from rich.table import Table

    view = build_label_view(results, results.contenders)
    if view is None:
        return []
    lines = describe_labels(results.labels) if results.labels else []
    tables = (
        (("score", "judge", "corrected", "rows labelled"), view["scores"]),
        (("difference", "judge", "corrected", "rows labelled", "to find 5 points"), view["pairs"]),
    )
    for columns, rows in tables:
        shown = Table()
        for column in columns:
            shown.add_column(column, justify="left" if column is columns[0] else "right")
        for name, cells in rows:
            shown.add_row(name, *cells)
        if rows and not view["short"]:
            lines.append(render_plain(shown).rstrip())
    explained = [view["short"]] if view["short"] else [view["explained"]]
    explained += [view["needed"]] * view["needs"]
    return [*lines, *explained, *view["contradictions"]]


def _build_cells(contender: ContenderResult, metric: str, seeds: bool, share: bool) -> list[str]:
    """Return a contender's row of the table.

    Args:
        seeds: whether there is a column for each seed's value.
        share: whether the metric reads as percent.
    """
    if contender.error is not None:
        return [contender.name, "–", *[""] * (4 if seeds else 3), "failed"]
    score, valid = contender.scores.get(metric), contender.scores.get("valid_format")
    training = contender.training
    return [
        contender.name,
        format.score(score.value, share) if score else "–",
        format.interval(score.low, score.high, share) if score else "",
        *([format.by_seed(score.by_seed, share) if score else ""] if seeds else ()),
        format.score(valid.value) if valid else "–",
        format.seconds(training.seconds) if training else _explain_untrained(contender),
        (training.verdict or "") if training else "",
    ]


def _explain_untrained(contender: ContenderResult) -> str:
    """Return why a contender has no training time."""
    return "elsewhere" if contender.id == "recorded" else "not tuned"


def render_scores(result: Mapping[str, Any]) -> str:
    """Return what `tuneoff score` prints."""
    from rich.table import Table

    several = f" answered {result['samples']} times" if result["samples"] > 1 else ""
    counted = "example" if several else "prediction"
    title = f"{result['n']} {counted}{'' if result['n'] == 1 else 's'}{several}"
    shown = Table(title=title, title_justify="left")
    for column in ("metric", "value", "95%", "n", "errors"):
        shown.add_column(column, justify="left" if column == "metric" else "right")
    for metric, score in result["scores"].items():
        value, low, high = score["value"], score["low"], score["high"]
        shown.add_row(
            metric,
            format.score(value),
            format.interval(low, high),
            str(score["n"]),
            str(score["errors"]),
        )
    lines = [render_plain(shown).rstrip(), *(f"warning: {each}" for each in result["warnings"])]
    metric = result["primary_metric"]
    if result["samples_disagree"] is not None:
        share = format.percent(result["samples_disagree"])
        lines.append(f"for {share} of the examples the answers differ in {metric}")
    for key, groups in result["breakdowns"].items():
        if len(groups) > MAX_GROUPS:
            continue  # --json has them
        parts = (f"{name} {_format_share(by[metric])}" for name, by in groups.items())
        lines.append(f"{metric} by {key}: {', '.join(parts)}")
    if result["error_classes"]:
        classes = (f"{times} {name}" for name, times in result["error_classes"].items())
        lines.append(f"what is wrong by {metric}: {', '.join(classes)}")
    return "\n".join(lines)


def render_tuned_models(result: Mapping[str, Any]) -> str:
    """Return what `tuneoff migrate` prints of an account's tuned models."""
    from rich.table import Table
    from rich.text import Text

    rows, sentence = result["models"], result["new_jobs"]["sentence"]
    if not rows:
        return f"This account has no tuned models.\n{sentence}"
    title = f"{len(rows)} tuned model{'s' * (len(rows) != 1)}"
    shown = Table(title=title, title_justify="left")
    shown.add_column("model", overflow="fold")
    for column in ("ends", "said by", "days left", "training file", "validation file"):
        shown.add_column(column, no_wrap=True)
    for row in rows:
        names = [row["model"]]
        names += [f"  on {row['base']}"] * (row["base"] not in row["model"])
        names += [f"  {each.removeprefix(row['model'])}" for each in row["checkpoints"]]
        left = row["days_left"]
        days = "" if left is None else str(left) if left > 0 else "ended"
        files = (_describe_file(row, kind) for kind in ("training_file", "validation_file"))
        ends = (row["ends"] or "not known", row["ends_source"] or "")
        # As `Text`, or rich would turn `:x:` within a name into an emoji.
        shown.add_row(Text("\n".join(names)), *ends, days, *files)
    return f"{render_plain(shown).rstrip()}\n{sentence}"


def _describe_file(row: Mapping[str, Any], kind: str) -> str:
    """Return whether one of a model's files exists, in words."""
    if row[kind] is None:
        none = row["job"] is not None and kind == "validation_file"
        return "none: --test" if none else "not known"
    there = row[f"{kind}_there"]
    return "not known" if there is None else "there" if there else "gone"


def render_comparison(result: Mapping[str, Any]) -> str:
    """Return what `tuneoff compare` prints."""
    from rich.table import Table

    values = [c["value"] for row in result["contenders"] for c in row["runs"] if c]
    share = format.is_share(*values)
    shown = Table(title=format.words(result["metric"]), title_justify="left")
    shown.add_column("contender", no_wrap=True)
    for run in result["runs"]:
        shown.add_column(run["run"], justify="right", overflow="fold")
    for row in result["contenders"]:
        shown.add_row(row["name"], *(_format_compared(cell, share) for cell in row["runs"]))
    lines = [change["sentence"] + "." for change in result["changes"]]
    lines += result["notes"]
    lines += [f"warning: {each}" for each in result["warnings"]]
    return render_plain(shown) + "\n".join(lines)


def _format_compared(cell: Mapping[str, Any] | None, share: bool) -> str:
    """Return the text of one contender's score in one run."""
    if cell is None:
        return ""
    if cell["error"] or cell["value"] is None:
        return "failed" if cell["error"] else format.MISSING
    value = format.score(cell["value"], share)
    return f"{value} {format.interval(cell['low'], cell['high'], share)}"


def _format_share(score: Mapping[str, Any]) -> str:
    """Return a score with its number of examples."""
    return f"{format.score(score['value'])} of {score['n']}"


def render_plain(renderable: Any) -> str:
    """Return what rich renders as text without colours."""
    from rich.console import Console

    stream = StringIO()
    Console(file=stream, width=WIDTH, color_system=None).print(renderable)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"
