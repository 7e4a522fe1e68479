"""From scored rows to scores: a mean with its 95% interval, and what went wrong how often.

Several trainings of one contender (seeds) are put together example by example, so that an
example counts once however often it was answered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from tuneoff.records import Score, ScoredRow
from tuneoff.scoring.rows import Kind
from tuneoff.scoring.statistics import bootstrap, wilson


def aggregate(
    rows: Iterable[ScoredRow], metrics: Mapping[str, Kind], errors: int = 0
) -> dict[str, Score]:
    """The score of every metric: Wilson's interval for yes/no, bootstrap for fractions (also
    for yes/no where it is a mean over seeds, unless they agree on every example).

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
    binary = kind == "yes/no" and all(value in (0, 1) for value in values)
    low, high = wilson(round(total), n) if binary else bootstrap(values)
    return Score(value=total / n, low=low, high=high, n=n, errors=errors)


def over_seeds(seeds: Sequence[Mapping[str, ScoredRow]]) -> dict[str, ScoredRow]:
    """Each example's mean score over the seeds, with the first one's verdict.

    `seeds` are each training's rows by example id. Only what every one has is kept: nothing,
    where one of them was not scored yet. The rows of a single one are returned as they are.
    """
    first, *others = seeds
    if not others:
        return dict(first)
    found = {}
    for id, row in first.items():
        rows = [row, *(seed[id] for seed in others if id in seed)]
        if len(rows) == len(seeds):
            metrics = [m for m in row.scores if all(m in each.scores for each in rows)]
            means = {m: sum(float(each.scores[m]) for each in rows) / len(rows) for m in metrics}
            found[id] = ScoredRow(id, means, row.verdict)
    return found


def values_by_seed(
    seeds: Sequence[Mapping[str, ScoredRow]], common: Mapping[str, ScoredRow], metric: str
) -> tuple[float, ...]:
    """Each seed's value of a metric over the rows of `over_seeds`; empty for a single one."""
    ids = [id for id, row in common.items() if metric in row.scores]
    if len(seeds) < 2 or not ids:
        return ()
    return tuple(sum(float(rows[id].scores[metric]) for id in ids) / len(ids) for rows in seeds)


def error_classes(rows: Iterable[ScoredRow]) -> dict[str, int]:
    """How often each class of verdict but `right` was given, the most frequent first.

    A class is a verdict up to its colon: `no such column: a` and `…: b` are one.
    """
    verdicts = (row.verdict.split(":", 1)[0] for row in rows)
    counts = Counter(verdict for verdict in verdicts if verdict != "right")
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
