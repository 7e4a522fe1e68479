"""From scored rows to scores: a mean with its 95% interval, and what went wrong how often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from tuneoff.records import Score, ScoredRow
from tuneoff.scoring.rows import Kind
from tuneoff.scoring.statistics import bootstrap, wilson


def aggregate(
    rows: Iterable[ScoredRow], metrics: Mapping[str, Kind], errors: int = 0
) -> dict[str, Score]:
    """The score of every metric: Wilson's interval for yes/no, bootstrap for fractions.

    `n` is the number of rows that have the metric; `errors` says how many of them had no
    answer. A metric that no row has (SQL without databases) has n = 0 and no value.
    """
    values: dict[str, list[float]] = {name: [] for name in metrics}
    for row in rows:
        for name, found in values.items():
            if name in row.scores:
                found.append(float(row.scores[name]))
    return {name: _score(values[name], kind, errors) for name, kind in metrics.items()}


def _score(values: Sequence[float], kind: Kind, errors: int) -> Score:
    n = len(values)
    if n == 0:
        return Score(value=None, low=None, high=None, n=0, errors=errors)
    total = sum(values)
    low, high = wilson(round(total), n) if kind == "yes/no" else bootstrap(values)
    return Score(value=total / n, low=low, high=high, n=n, errors=errors)


def error_classes(rows: Iterable[ScoredRow]) -> dict[str, int]:
    """How often each class of verdict but `right` was given, the most frequent first.

    A class is a verdict up to its colon: `no such column: a` and `…: b` are one.
    """
    verdicts = (row.verdict.split(":", 1)[0] for row in rows)
    counts = Counter(verdict for verdict in verdicts if verdict != "right")
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
