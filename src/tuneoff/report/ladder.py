"""The table of metrics from strict to lenient, which shows how many errors are only form.

What a contender gains from one metric to the next differs from the reference in form alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tuneoff.report import format as f
from tuneoff.results import ContenderResult

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
