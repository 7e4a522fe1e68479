"""Which test examples to show: the ones that tell the contenders apart.

First come examples that some contenders got right and others wrong, spread over the
different patterns of who was right (round robin, the most frequent pattern first; within
a pattern evenly over the test set). If there are too few, examples that nobody got
right fill up. The same run directory always gives the same examples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuneoff.records import ContenderResult, Example, Prediction, ScoredRow
from tuneoff.rundir import ContenderDir, RunDir

Pattern = tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What one contender answered; `right` by the primary metric."""

    contender: str
    text: str
    right: bool
    verdict: str
    error: str | None


@dataclass(frozen=True, slots=True)
class Shown:
    """One test example with every contender's answer. `inputs` are (field, text) pairs."""

    id: str
    inputs: tuple[tuple[str, str], ...]
    reference: str
    answers: tuple[Answer, ...]


def choose(
    run: RunDir, contenders: Sequence[ContenderResult], metric: str, limit: int = 10
) -> tuple[Shown, ...]:
    """At most `limit` examples, from the run directory's scores and predictions.

    Contenders without answers on disk (failed, or figures only) are left out; of several
    seeds the first one's answers are shown.
    """
    folders = {c.name: _answers(run.contender(c.name), c.seeds) for c in contenders if not c.error}
    scores = {name: folder.scores() for name, folder in folders.items()}
    scores = {name: rows for name, rows in scores.items() if rows}
    if not scores:
        return ()
    predictions = {name: folders[name].predictions() for name in scores}
    common = [e for e in run.examples("test") if all(e.id in rows for rows in scores.values())]
    patterns = [
        tuple(is_right(rows[example.id], metric) for rows in scores.values()) for example in common
    ]
    return tuple(
        _shown(common[index], metric, scores, predictions) for index in spread(patterns, limit)
    )


def _answers(contender: ContenderDir, seeds: Sequence[int]) -> ContenderDir:
    return contender.seed(seeds[0]) if seeds else contender


def is_right(row: ScoredRow, metric: str) -> bool:
    """Whether the primary metric gives the answer its full mark."""
    return float(row.scores.get(metric, 0.0)) >= 1.0


def spread(patterns: Sequence[Pattern], limit: int) -> list[int]:
    """Indices of the examples to show, in showing order, given who was right on each."""
    groups: dict[Pattern, list[int]] = {}
    for index, pattern in enumerate(patterns):
        groups.setdefault(pattern, []).append(index)
    mixed = [group for pattern, group in groups.items() if any(pattern) and not all(pattern)]
    mixed.sort(key=len, reverse=True)
    chosen = _round_robin(mixed, limit)
    nobody = [i for pattern, group in groups.items() if not any(pattern) for i in group]
    return chosen + _evenly(nobody, limit - len(chosen))


def fields(inputs: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """An example's inputs as (field, text) pairs; chat turns by their role."""
    turns = inputs.get("messages")
    if isinstance(turns, list):
        return tuple((str(turn["role"]), str(turn["content"])) for turn in turns)
    return tuple((key, str(value)) for key, value in inputs.items() if value not in ("", None))


def _evenly(group: Sequence[int], limit: int) -> list[int]:
    """At most `limit` members at even distances, the first one among them."""
    take = min(limit, len(group))
    return [group[i * len(group) // take] for i in range(take)]


def _round_robin(groups: Sequence[Sequence[int]], limit: int) -> list[int]:
    """One member of each group in turn, those of a group at even distances."""
    turns = [(turn, place) for place, group in enumerate(groups) for turn in range(len(group))]
    places = [place for _, place in sorted(turns)[:limit]]
    members = [iter(_evenly(group, places.count(place))) for place, group in enumerate(groups)]
    return [next(members[place]) for place in places]


def _shown(
    example: Example,
    metric: str,
    scores: Mapping[str, Mapping[str, ScoredRow]],
    predictions: Mapping[str, Mapping[str, Prediction]],
) -> Shown:
    answers = []
    for name, rows in scores.items():
        row = rows[example.id]
        prediction = predictions[name].get(example.id) or Prediction(example.id, "")
        right = is_right(row, metric)
        answers.append(Answer(name, prediction.prediction, right, row.verdict, prediction.error))
    return Shown(example.id, fields(example.inputs), example.completion, tuple(answers))
