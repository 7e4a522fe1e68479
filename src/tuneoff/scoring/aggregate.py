"""From scored rows to scores: a mean with its 95% interval, and what went wrong how often.

Several trainings of one contender (seeds), and several answers to one example (samples), are put
together example by example, so that an example counts once however often it was answered.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tuneoff.records import ScoredRow
from tuneoff.results import Score
from tuneoff.scoring.intervals import score_interval
from tuneoff.scoring.rows import Kind

MOST_GROUPS = 24
_LEVELS = ("easy", "medium", "hard", "extra")


class Totals:
    """The scores of rows that come one after another and are not kept.

    Of each metric the values that occurred are counted, and summed by cluster, so that a million
    rows need as much memory as there are different values and clusters.
    """

    def __init__(self, metrics: Mapping[str, Kind], trainings: int = 1, answers: int = 1) -> None:
        """Take values that are means over so many trainings, and answers of each to an example."""
        self.n = 0
        self._trainings, self._answers = trainings, answers
        self._metrics = metrics
        self._counts: dict[str, Counter[float]] = {name: Counter() for name in metrics}
        self._clusters: dict[str, dict[str, tuple[float, int]]] = {name: {} for name in metrics}

    def add(self, row: ScoredRow, cluster: str | None = None) -> None:
        """Count a row, and what its example belongs to; None: to nothing."""
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

    def _score(self, name: str, kind: Kind, errors: int, seeds: Sequence[float]) -> Score:
        counts, clusters = self._counts[name], list(self._clusters[name].values())
        n = counts.total()
        if n == 0:
            return Score(value=None, low=None, high=None, n=0, errors=errors)
        total = math.fsum(value * times for value, times in counts.items())
        yes_no = kind == "yes/no" and are_yes_no(counts, self._trainings * self._answers)
        found = score_interval(counts, yes_no, clusters, seeds, self._answers)
        low, high = found or (None, None)
        return Score(total / n, low, high, n, errors, tuple(seeds) if len(seeds) > 1 else ())


def aggregate(
    rows: Iterable[ScoredRow],
    metrics: Mapping[str, Kind],
    errors: int = 0,
    clusters: Mapping[str, str] | None = None,
    seeds: Mapping[str, Sequence[float]] | None = None,
    answers: int = 1,
) -> dict[str, Score]:
    """Return the score of every metric with its interval (`intervals.py`).

    `n` is the number of rows that have the metric; `errors` says how many of them had no
    answer. A metric that no row has (SQL without databases) has n = 0 and no value.

    Args:
        clusters: what each example belongs to; one that is missing is a cluster of its own. None:
            the examples are independent.
        seeds: by metric, the value of each of several trainings.
        answers: how many there are to each example, of which the rows are the means.
    """
    trainings = max((len(values) for values in (seeds or {}).values()), default=1)
    totals = Totals(metrics, max(1, trainings), answers)
    for row in rows:
        totals.add(row, None if clusters is None else clusters.get(row.id, f"id {row.id}"))
    return totals.scores(errors, seeds)


class Breakdown:
    """A metric by what the examples are: by each key that has a handful of values."""

    def __init__(self, metric: str, kind: Kind, trainings: int = 1, answers: int = 1) -> None:
        self._kinds, self._of = {metric: kind}, (trainings, answers)
        self._groups: dict[str, dict[str, Totals]] = {}

    def add(self, row: ScoredRow, groups: Mapping[str, Any], cluster: str | None = None) -> None:
        """Count a row in each of its groups, as `Totals.add` does."""
        for key, group in groups.items():
            found = self._groups.setdefault(key, {})
            # One group more than is shown says that there are too many.
            if str(group) in found or len(found) <= MOST_GROUPS:
                found.setdefault(str(group), Totals(self._kinds, *self._of)).add(row, cluster)

    def scores(self) -> dict[str, dict[str, dict[str, Score]]]:
        """Key → group → metric → score, sorted."""
        return {
            key: {group: groups[group].scores() for group in sorted(groups, key=_place)}
            for key, groups in sorted(self._groups.items())
            if 1 < len(groups) <= MOST_GROUPS
        }


def _place(group: str) -> tuple[int, str]:
    """Levels of hardness from easy to extra, everything else by name."""
    return (_LEVELS.index(group) if group in _LEVELS else len(_LEVELS), group)


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


def over_samples(samples: Sequence[Mapping[str, ScoredRow]]) -> dict[str, ScoredRow]:
    """Return each example's mean score over its repeated answers, with the first one's verdict.

    `samples` are each sample's rows by example id. Only examples that all of them have are kept:
    one whose answers are not all there yet has no score. A metric that some of them lack (a judge
    did not say) is the mean of the others. The rows of a single sample are returned as they are.
    """
    first, *others = samples
    if not others:
        return dict(first)
    whole = (id for id in first if all(id in each for each in others))
    return {id: merge_answers([each[id] for each in samples]) for id in whole}


def merge_answers(rows: Sequence[ScoredRow]) -> ScoredRow:
    """Return the mean of one example's scored answers, with the first one's verdict."""
    if len(rows) == 1:
        return rows[0]
    values: dict[str, list[float]] = {}
    for row in rows:
        for metric, value in row.scores.items():
            values.setdefault(metric, []).append(float(value))
    means = {metric: math.fsum(each) / len(each) for metric, each in values.items()}
    return ScoredRow(rows[0].id, means, rows[0].verdict)


def values_by_seed(
    seeds: Sequence[Mapping[str, ScoredRow]], common: Mapping[str, ScoredRow], metric: str
) -> tuple[float, ...]:
    """Each seed's value of a metric over the rows of `over_seeds`; empty for a single one."""
    ids = [id for id, row in common.items() if metric in row.scores]
    if len(seeds) < 2 or not ids:
        return ()
    return tuple(sum(float(rows[id].scores[metric]) for id in ids) / len(ids) for rows in seeds)


def are_yes_no(values: Iterable[float], of: int = 1) -> bool:
    """Say whether values are 0 or 1, or means of so many of these. A metric of one's own may give
    other numbers."""
    return all(0 <= value <= 1 and abs(value * of - round(value * of)) < 1e-9 for value in values)


def error_classes(
    rows: Iterable[ScoredRow], metric: str, names: Mapping[str, str] | None = None
) -> dict[str, int]:
    """How often each class of error was made, the most frequent first."""
    classes = (error_class(row, metric, names) for row in rows)
    return most_frequent(Counter(found for found in classes if found is not None))


def error_class(row: ScoredRow, metric: str, names: Mapping[str, str] | None = None) -> str | None:
    """The class of error of a row that a metric calls wrong; None if it calls it right.

    A class is a verdict up to its colon (`no such column: a` and `…: b` are one), under the
    name that `names` has for it.
    """
    if row.scores.get(metric, 0) == 1:
        return None
    verdict = row.verdict.split(":", 1)[0]
    return "wrong" if verdict == "right" else (names or {}).get(verdict, verdict)


def most_frequent(counts: Mapping[str, int]) -> dict[str, int]:
    """Counts, the largest first."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
