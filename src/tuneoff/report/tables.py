"""The report's tables.

- contenders × figures at the top of the page, with the values to sort it by;
- metrics from strict to lenient: what a contender gains from one to the next differs from the
  reference in form alone;
- how each contender was tuned, in a few words, from the run's settings;
- results.csv, for spreadsheets: a row per contender and metric.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from tuneoff.report import format as f
from tuneoff.results import ContenderResult, LatencyStats, Results, Score

Cell = dict[str, Any]


def build_table(
    results: Results, contenders: Sequence[ContenderResult], shares: Mapping[str, bool]
) -> dict[str, Any]:
    """Return the table: the deciding metric first, then costs, then the other metrics.

    A column that is empty for every contender is left out. `shares`: metric → whether it reads as
    percent.
    """
    first, *others = shares or {results.primary_metric: True}
    others.sort(key=lambda metric: metric != "valid_format")
    columns = {
        f.words(first): [_build_metric_cell(c, first, shares, True) for c in contenders],
        **_build_cost_columns(contenders),
        **{
            f.words(m): [_build_metric_cell(c, m, shares, False) for c in contenders]
            for m in others
        },
        "n": [
            _build_count_cell(score.n or None if score else None)
            for score in _get_scores(contenders, first)
        ],
        "no answer": [
            _build_count_cell(score.errors if score and score.n else None)
            for score in _get_scores(contenders, first)
        ],
    }
    kept = {
        label: cells
        for label, cells in columns.items()
        if any(cell["text"] != f.MISSING for cell in cells)
    }
    return {
        "columns": list(kept),
        "rows": [
            {
                "name": c.name,
                "chosen": c.name == results.recommendation.choice,
                "error": c.error,
                "cells": [cells[place] for cells in kept.values()],
            }
            for place, c in enumerate(contenders)
        ],
        "seeds": any(c.seeds for c in contenders if not c.error),
    }


def _build_cost_columns(contenders: Sequence[ContenderResult]) -> dict[str, list[Cell]]:
    """Return the columns of costs and times."""
    costs = [c.cost for c in contenders]
    seconds = [c.training.seconds if c.training else None for c in contenders]
    usd = [cost.training_usd for cost in costs]
    times = [_build_cell(f.seconds(s), s) for s in seconds]
    priced = any(value is not None for value in usd)
    training = [
        _build_cell(f.usd(value), value, time["text"] if time["sort"] else "")
        for value, time in zip(usd, times, strict=True)
    ]
    served = [cost.serving_usd_per_1k_requests for cost in costs]
    return {
        "training": training if priced else times,
        "1,000 requests": [_build_cell(f.usd(value), value) for value in served],
        "median answer": [_build_latency_cell(c.serving) for c in contenders],
        "ends": [_build_cell(c.ends or f.MISSING, c.ends) for c in contenders],
    }


def _build_latency_cell(serving: LatencyStats) -> Cell:
    """Return the cell of a contender's median latency."""
    if serving.batch:
        return _build_cell(f.MISSING, None, "in batches")
    n, few = serving.requests, serving.seconds_p95 is None
    under = (f"of {f.requests(n)}" if n and few else "", f.at_once(serving.concurrency))
    return _build_cell(f.seconds(serving.seconds_p50), serving.seconds_p50, *under)


def _build_metric_cell(
    c: ContenderResult, metric: str, shares: Mapping[str, bool], decides: bool
) -> Cell:
    """Return the cell of a contender's score."""
    score = c.scores.get(metric)
    if score is None:
        return _build_cell(f.MISSING, None)
    share = shares.get(metric, True)
    under = [f.interval(score.low, score.high, share)]
    if decides and c.samples > 1:
        under.append(f"mean of {c.samples} answers")
    if decides and score.by_seed:  # only with the first metric: the table would be too wide
        under.append(format_seeds(score, share))
    return _build_cell(f.score(score.value, share), score.value, *under)


def format_seeds(score: Score, share: bool) -> str:
    """Return the seeds' values in words, with their number if many; empty without seeds."""
    few = len(score.by_seed) <= 5
    how_many = "" if few else f"{len(score.by_seed)} "
    return f"{how_many}seeds {f.by_seed(score.by_seed, share)}" if score.by_seed else ""


def _get_scores(contenders: Sequence[ContenderResult], metric: str) -> list[Score | None]:
    """Return each contender's score by a metric, or else its first one."""
    return [c.scores.get(metric) or next(iter(c.scores.values()), None) for c in contenders]


def _build_count_cell(value: int | None) -> Cell:
    """Return the cell of a count."""
    return _build_cell(f.count(value), value)


def _build_cell(text: str, sort: float | str | None, *under: str) -> Cell:
    """Return a cell: its text, its sort key ("" for nothing: last), and small lines under it."""
    known = sort is not None and text != f.MISSING
    return {"text": text, "sort": str(sort) if known else "", "under": [u for u in under if u]}


RUNGS = {
    "exact_match": "the same characters",
    "normalized_match": "the same text, but for case, blanks and full stops",
    "order_insensitive_match": "the same, in whatever order",
    "sql_normal_form": "the same query, differently spelt",
    "exact_set_match": "the same clauses",
    "execution_accuracy": "the same result",
    "test_suite_accuracy": "the same result on every database of a suite",
}


def build_ladder(contenders: Sequence[ContenderResult]) -> dict[str, Any]:
    """Return the view of metrics × contenders; without rows if there are fewer than two metrics."""
    shown = [c for c in contenders if not c.error and any(m in c.scores for m in RUNGS)]
    rungs = [metric for metric in RUNGS if any(metric in c.scores for c in shown)]
    rows = [
        {
            "metric": f.words(metric),
            "words": RUNGS[metric],
            "cells": [_build_ladder_cell(contender, metric) for contender in shown],
        }
        for metric in rungs
    ]
    return {"names": [c.name for c in shown], "rows": rows if len(rows) > 1 else []}


def _build_ladder_cell(contender: ContenderResult, metric: str) -> dict[str, Any]:
    """Return a cell of the table, with the width of its bar."""
    score = contender.scores.get(metric)
    value = score.value if score else None
    return {"text": f.score(value), "width": None if value is None else round(100 * value, 1)}


def describe_methods(results: Results) -> dict[str, str]:
    """Return contender name → method (`LoRA r 16, all linear layers`, `prompted, 5 shots`).

    The settings come from a file that may be older than this code, so every key may be missing.
    Without settings the contender's id is the method.
    """
    settings = {
        entry.get("name"): entry
        for entry in results.settings.get("contenders") or ()
        if isinstance(entry, Mapping)
    }
    task = results.settings.get("task") or {}
    return {
        c.name: _describe_method(c.id, settings.get(c.name) or {})
        + _describe_prompt(settings.get(c.name) or {}, task)
        for c in results.contenders
    }


def _describe_method(kind: str, settings: Mapping[str, Any]) -> str:
    """Return how a contender was tuned, without its prompt."""
    if kind == "local" and settings.get("method") == "lora":
        return _describe_lora(settings.get("lora") or {}) + _describe_quantization(settings)
    if kind == "local" and settings.get("method") == "full":
        return "all parameters"
    if kind == "hosted" and settings.get("provider"):
        return f"tuned by {settings['provider']}{_describe_sampling(settings)}"
    if kind == "prompted":
        shots = settings.get("shots") or 0
        how = f"prompted, {shots} shot{'s' * (shots > 1)}" if shots else "prompted only"
        return how + _describe_sampling(settings)
    return kind


def _describe_sampling(settings: Mapping[str, Any]) -> str:
    """Return at which temperature, and how often, a provider's model was asked."""
    temperature, samples = settings.get("temperature"), settings.get("samples") or 1
    shown = "" if temperature is None else f", temperature {temperature:g}"
    return shown + (f", {samples} answers each" if samples > 1 else "")


def _describe_prompt(settings: Mapping[str, Any], task: Mapping[str, Any]) -> str:
    """Return whether the instruction was dropped: the contender decides, then the task."""
    short = (settings.get("prompt") or task.get("prompt")) == "short"
    return ", short prompt" if short else ""


def _describe_lora(lora: Mapping[str, Any]) -> str:
    """Return the adapter's rank and layers."""
    where = lora.get("target_modules")
    named = where.replace("-", " ") if isinstance(where, str) else ", ".join(where or ())
    layers = {"all linear": "all linear layers", "attention": "attention layers"}.get(named, named)
    rank = f"LoRA r {lora['r']}" if "r" in lora else "LoRA"
    return f"{rank}, {layers}" if layers else rank


def _describe_quantization(settings: Mapping[str, Any]) -> str:
    """Return how the base was quantized; empty if it was not."""
    quantization = settings.get("quantization", "none")
    return "" if quantization == "none" else f", {quantization} base"


COLUMNS = (
    "contender",
    "id",
    "model",
    "metric",
    "value",
    "low",
    "high",
    "n",
    "errors",
    "training_usd",
    "training_seconds",
    "serving_usd_per_1k_requests",
    "seconds_p50",
    "ends",
    "error",
)


def render_csv(contenders: Sequence[ContenderResult]) -> str:
    """Return one row per contender and metric, and one for a contender without scores.

    Values are those of results.json; one that was not measured is empty.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for contender in contenders:
        scores: dict[str, Score | None] = dict(contender.scores) or {"": None}
        for metric, score in scores.items():
            writer.writerow(
                [_escape_formula(value) for value in _build_csv_row(contender, metric, score)]
            )
    return stream.getvalue()


def _build_csv_row(contender: ContenderResult, metric: str, score: Score | None) -> list[Any]:
    """Return a row of the table."""
    figures = (score.value, score.low, score.high, score.n, score.errors) if score else (None,) * 5
    return [
        contender.name,
        contender.id,
        contender.model,
        metric,
        *figures,
        contender.cost.training_usd,
        contender.training.seconds if contender.training else None,
        contender.cost.serving_usd_per_1k_requests,
        contender.serving.seconds_p50,
        contender.ends,
        contender.error,
    ]


def _escape_formula(value: Any) -> Any:
    """Return text that a spreadsheet takes for text: a beginning like a formula's gets a quote
    before it."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return value
