"""results.csv: a run's figures as a table for spreadsheets, with a row per contender and metric."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from tuneoff.results import ContenderResult, Score

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
