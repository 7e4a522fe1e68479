"""The table of contenders × figures at the top of the page, with the values to sort it by."""

from __future__ import annotations

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
