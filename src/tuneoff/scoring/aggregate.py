"""From scored rows to scores: a mean with its 95% interval, and what went wrong how often.

Several trainings of one contender (seeds) are put together example by example, so that an
example counts once however often it was answered.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tuneoff.records import Score, ScoredRow
from tuneoff.scoring.rows import Kind
from tuneoff.scoring.statistics import bootstrap, wilson

MOST_GROUPS = 24
_LEVELS = ("easy", "medium", "hard", "extra")


class Totals:
    """The scores of rows that come one after another and are not kept.

    Of each metric the values that occurred are counted, so that a million rows need as much
    memory as there are different values.
    """

    def __init__(self, metrics: Mapping[str, Kind]) -> None:
        self.n = 0
        self._metrics = metrics
        self._counts: dict[str, Counter[float]] = {name: Counter() for name in metrics}

    def add(self, row: ScoredRow) -> None:
        self.n += 1
        for name, counts in self._counts.items():
            if name in row.scores:
                counts[float(row.scores[name])] += 1

    def scores(self, errors: int = 0) -> dict[str, Score]:
        """The score of every metric, as `aggregate` gives them."""
        return {
            name: _score(self._counts[name], kind, errors) for name, kind in self._metrics.items()
        }


def aggregate(
    rows: Iterable[ScoredRow], metrics: Mapping[str, Kind], errors: int = 0
) -> dict[str, Score]:
    """The score of every metric: Wilson's interval for yes/no, bootstrap for fractions (also
    for yes/no where it is a mean over seeds, unless they agree on every example).

    `n` is the number of rows that have the metric; `errors` says how many of them had no
    answer. A metric that no row has (SQL without databases) has n = 0 and no value.
    """
    totals = Totals(metrics)
    for row in rows:
        totals.add(row)
    return totals.scores(errors)


def _score(counts: Counter[float], kind: Kind, errors: int) -> Score:
    n = counts.total()
    if n == 0:
        return Score(value=None, low=None, high=None, n=0, errors=errors)
    total = math.fsum(value * times for value, times in counts.items())
    binary = kind == "yes/no" and counts.keys() <= {0, 1}
    low, high = wilson(round(total), n) if binary else bootstrap(counts)
    return Score(value=total / n, low=low, high=high, n=n, errors=errors)


class Breakdown:
    """A metric by what the examples are: by each key that has a handful of values."""

    def __init__(self, metric: str, kind: Kind) -> None:
        self._kinds = {metric: kind}
        self._groups: dict[str, dict[str, Totals]] = {}

    def add(self, row: ScoredRow, groups: Mapping[str, Any]) -> None:
        for key, group in groups.items():
            found = self._groups.setdefault(key, {})
            # One group more than is shown says that there are too many.
            if str(group) in found or len(found) <= MOST_GROUPS:
                found.setdefault(str(group), Totals(self._kinds)).add(row)

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


def values_by_seed(
    seeds: Sequence[Mapping[str, ScoredRow]], common: Mapping[str, ScoredRow], metric: str
) -> tuple[float, ...]:
    """Each seed's value of a metric over the rows of `over_seeds`; empty for a single one."""
    ids = [id for id, row in common.items() if metric in row.scores]
    if len(seeds) < 2 or not ids:
        return ()
    return tuple(sum(float(rows[id].scores[metric]) for id in ids) / len(ids) for rows in seeds)


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
