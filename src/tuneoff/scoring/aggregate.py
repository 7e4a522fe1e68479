"""Aggregates scored rows: a mean with its 95% interval, and the frequency of each error class.

Several seeds of one contender, and several answers to one example (samples), are averaged example
by example. An example therefore counts once, however often it was answered.

The learning curve is the metric after training on growing fractions of the examples. Each point is
scored like any training. It is tested against the point before, on the same test examples
(`pairs.compare_all`). The test does not cover the variance between training runs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tuneoff.records import ScoredRow
from tuneoff.results import CurvePoint, Score
from tuneoff.scoring.base import MetricKind
from tuneoff.scoring.intervals import compute_score_interval
from tuneoff.scoring.pairs import compare_all

MAX_GROUPS = 24
_HARDNESS_LEVELS = ("easy", "medium", "hard", "extra")


class ScoreTotals:
    """Aggregates a stream of scored rows without keeping them.

    For each metric it counts the different values and sums them by cluster. Memory depends on the
    number of different values and clusters, not on the number of rows.
    """

    def __init__(
        self, metrics: Mapping[str, MetricKind], trainings: int = 1, answers: int = 1
    ) -> None:
        """Create empty totals.

        Args:
            trainings: the number of seeds that each value is the mean of.
            answers: the number of answers per example and seed that each value is the mean of.
        """
        self.n = 0
        self._trainings, self._answers = trainings, answers
        self._metrics = metrics
        self._counts: dict[str, Counter[float]] = {name: Counter() for name in metrics}
        self._clusters: dict[str, dict[str, tuple[float, int]]] = {name: {} for name in metrics}

    def add(self, row: ScoredRow, cluster: str | None = None) -> None:
        """Count a row.

        Args:
            cluster: the cluster of its example; None: the example is independent.
        """
        self.n += 1
        for name, counts in self._counts.items():
            if name in row.scores:
                value = float(row.scores[name])
                counts[value] += 1
                if cluster is not None:
                    total, n = self._clusters[name].get(cluster, (0.0, 0))
                    self._clusters[name][cluster] = (total + value, n + 1)

    def scores(
        self, errors: int = 0, seeds: Mapping[str, Sequence[float]] | None = None
    ) -> dict[str, Score]:
        """Return the score of every metric, as `aggregate` does."""
        return {
            name: self._score(name, kind, errors, (seeds or {}).get(name, ()))
            for name, kind in self._metrics.items()
        }

    def _score(self, name: str, kind: MetricKind, errors: int, seeds: Sequence[float]) -> Score:
        counts, clusters = self._counts[name], list(self._clusters[name].values())
        n = counts.total()
        if n == 0:
            return Score(value=None, low=None, high=None, n=0, errors=errors)
        total = math.fsum(value * times for value, times in counts.items())
        yes_no = kind == "yes/no" and is_yes_no(counts, self._trainings * self._answers)
        bounds = compute_score_interval(counts, yes_no, clusters, seeds, self._answers)
        low, high = bounds or (None, None)
        return Score(total / n, low, high, n, errors, tuple(seeds) if len(seeds) > 1 else ())


def aggregate(
    rows: Iterable[ScoredRow],
    metrics: Mapping[str, MetricKind],
    errors: int = 0,
    clusters: Mapping[str, str] | None = None,
    seeds: Mapping[str, Sequence[float]] | None = None,
    answers: int = 1,
) -> dict[str, Score]:
    """Return the score of every metric with its interval (`intervals.py`).

    `n` counts the rows that have the metric. A metric that no row has (execution without databases)
    has n = 0 and no value.

    Args:
        errors: the number of rows without an answer.
        clusters: example id → cluster; a missing example is a cluster of its own. None: examples
            are independent.
        seeds: metric → the value of each of several seeds.
        answers: the number of answers to each example, if the rows are means over them.
    """
    trainings = max((len(values) for values in (seeds or {}).values()), default=1)
    totals = ScoreTotals(metrics, max(1, trainings), answers)
    for row in rows:
        totals.add(row, None if clusters is None else clusters.get(row.id, f"id {row.id}"))
    return totals.scores(errors, seeds)


class Breakdown:
    """Aggregates one metric by each key of the examples that has a handful of values."""

    def __init__(self, metric: str, kind: MetricKind, trainings: int = 1, answers: int = 1) -> None:
        self._kinds, self._of = {metric: kind}, (trainings, answers)
        self._groups: dict[str, dict[str, ScoreTotals]] = {}

    def add(self, row: ScoredRow, groups: Mapping[str, Any], cluster: str | None = None) -> None:
        """Count a row in each of its groups, as `ScoreTotals.add` does."""
        for key, group in groups.items():
            totals = self._groups.setdefault(key, {})
            # One group above the limit shows that there are too many.
            if str(group) in totals or len(totals) <= MAX_GROUPS:
                totals.setdefault(str(group), ScoreTotals(self._kinds, *self._of)).add(row, cluster)

    def scores(self) -> dict[str, dict[str, dict[str, Score]]]:
        """Return key → group → metric → score, sorted."""
        return {
            key: {group: groups[group].scores() for group in sorted(groups, key=_get_sort_key)}
            for key, groups in sorted(self._groups.items())
            if 1 < len(groups) <= MAX_GROUPS
        }


def _get_sort_key(group: str) -> tuple[int, str]:
    """Return a sort key: hardness levels from easy to extra, then other groups by name."""
    return (
        _HARDNESS_LEVELS.index(group) if group in _HARDNESS_LEVELS else len(_HARDNESS_LEVELS),
        group,
    )


def average_seeds(seeds: Sequence[Mapping[str, ScoredRow]]) -> dict[str, ScoredRow]:
    """Return each example's mean score over the seeds, with the first seed's verdict.

    Examples and metrics are kept only if every seed has them, so nothing is kept until every seed
    is scored. A single seed's rows are returned as they are.

    Args:
        seeds: the rows of each seed, by example id.
    """
    first, *others = seeds
    if not others:
        return dict(first)
    averaged = {}
    for id, row in first.items():
        rows = [row, *(seed[id] for seed in others if id in seed)]
        if len(rows) == len(seeds):
            metrics = [m for m in row.scores if all(m in other.scores for other in rows)]
            means = {m: sum(float(other.scores[m]) for other in rows) / len(rows) for m in metrics}
            averaged[id] = ScoredRow(id, means, row.verdict)
    return averaged


def average_samples(samples: Sequence[Mapping[str, ScoredRow]]) -> dict[str, ScoredRow]:
    """Return each example's mean score over its samples, with the first sample's verdict.

    Examples are kept only if every sample has them. A metric that some samples lack (the judge gave
    no verdict) is the mean of the others. A single sample's rows are returned as they are.

    Args:
        samples: the rows of each sample, by example id.
    """
    first, *others = samples
    if not others:
        return dict(first)
    whole = (id for id in first if all(id in sample for sample in others))
    return {id: merge_answers([sample[id] for sample in samples]) for id in whole}


def merge_answers(rows: Sequence[ScoredRow]) -> ScoredRow:
    """Return the mean of one example's scored answers, with the first verdict."""
    if len(rows) == 1:
        return rows[0]
    values: dict[str, list[float]] = {}
    for row in rows:
        for metric, value in row.scores.items():
            values.setdefault(metric, []).append(float(value))
    means = {metric: math.fsum(scores) / len(scores) for metric, scores in values.items()}
    return ScoredRow(rows[0].id, means, rows[0].verdict)


def compute_seed_values(
    seeds: Sequence[Mapping[str, ScoredRow]], common: Mapping[str, ScoredRow], metric: str
) -> tuple[float, ...]:
    """Return each seed's mean of a metric, over the rows of `average_seeds`; empty for one seed."""
    ids = [id for id, row in common.items() if metric in row.scores]
    if len(seeds) < 2 or not ids:
        return ()
    return tuple(sum(float(rows[id].scores[metric]) for id in ids) / len(ids) for rows in seeds)


def is_yes_no(values: Iterable[float], of: int = 1) -> bool:
    """Return whether all values are 0 or 1, or means of `of` such values.

    A custom metric may return other numbers.
    """
    return all(0 <= value <= 1 and abs(value * of - round(value * of)) < 1e-9 for value in values)


def count_error_classes(
    rows: Iterable[ScoredRow], metric: str, names: Mapping[str, str] | None = None
) -> dict[str, int]:
    """Return how often each error class occurs, the most frequent first."""
    classes = (find_error_class(row, metric, names) for row in rows)
    return sort_by_count(Counter(name for name in classes if name is not None))


def find_error_class(
    row: ScoredRow, metric: str, names: Mapping[str, str] | None = None
) -> str | None:
    """Return the error class of a row that a metric calls wrong; None if it is right.

    The class is the verdict up to its colon (`no such column: a` and `…: b` are one class), renamed
    by `names`.
    """
    if row.scores.get(metric, 0) == 1:
        return None
    verdict = row.verdict.split(":", 1)[0]
    return "wrong" if verdict == "right" else (names or {}).get(verdict, verdict)


def sort_by_count(counts: Mapping[str, int]) -> dict[str, int]:
    """Return the counts, the largest first."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


TrainingScores = tuple[float, int, Mapping[str, ScoredRow]]


def build_learning_curve(
    measured: Sequence[TrainingScores],
    metric: str,
    kind: MetricKind,
    clusters: Mapping[str, str] | None = None,
) -> tuple[CurvePoint, ...]:
    """Return the points of a curve, the smallest fraction first; none for a single point.

    Args:
        measured: (fraction, training examples, scored rows by example id) of each training; a
            training without scores is left out.
        clusters: example id → cluster, as in `compare_all`.
    """
    points: list[CurvePoint] = []
    before: dict[str, float] = {}
    for fraction, examples, rows in sorted(measured, key=lambda point: point[0]):
        score = aggregate(rows.values(), {metric: kind}, clusters=clusters)[metric]
        if score.value is None:
            continue
        values = {id: float(row.scores[metric]) for id, row in rows.items() if metric in row.scores}
        pairs = compare_all({"this": values, "before": before}, metric, clusters)
        p_value = pairs[0].p_value if pairs else None
        points.append(CurvePoint(fraction, examples, score.value, score.low, score.high, p_value))
        before = values
    return tuple(points) if len(points) > 1 else ()
