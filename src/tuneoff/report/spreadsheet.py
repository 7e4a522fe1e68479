"""results.csv: the figures of a run as a table for spreadsheets, a row a contender and metric."""

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


def to_csv(contenders: Sequence[ContenderResult]) -> str:
    """One row for each contender and metric, and one for a contender without scores. Values are
    those of results.json; what was not measured is empty."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for contender in contenders:
        scores: dict[str, Score | None] = dict(contender.scores) or {"": None}
        for metric, score in scores.items():
            writer.writerow([_plain(value) for value in _row(contender, metric, score)])
    return stream.getvalue()


def _row(contender: ContenderResult, metric: str, score: Score | None) -> list[Any]:
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


def _plain(value: Any) -> Any:
    """Text that a spreadsheet takes for text: what begins like a formula gets a quote before."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return value
