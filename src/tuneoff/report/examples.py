"""Which test examples to show: the ones that tell the contenders apart.

First come examples that some contenders got right and others wrong, spread over the
different patterns of who was right (round robin, the most frequent pattern first; within
a pattern evenly over the test set). If there are too few, examples that nobody got
right fill up, then those that everybody did. The same run directory always gives the same
examples. Texts are read when an example is shown: ten thousand need not be in memory.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tuneoff.records import Example, ScoredRow, from_dict
from tuneoff.report.rows import Rows
from tuneoff.results import ContenderResult
from tuneoff.rundir import ContenderDir, RunDir
from tuneoff.scoring.aggregate import error_class

Pattern = tuple[bool, ...]
# Shown first, and in Markdown the only ones.
FIRST = 10


@dataclass(frozen=True, slots=True)
class Answer:
    """What one contender answered; `right` by the primary metric.

    `error_class` is None of a right answer. `results` are the reference's and the answer's
    result tables as `details.jsonl` has them, of SQL that was wrong.
    """

    contender: str
    text: str
    right: bool
    verdict: str
    error: str | None
    error_class: str | None = None
    results: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """One test example with every contender's answer. `inputs` are (field, text) pairs, `groups`
    what results are broken down by (`hardness`: `easy`)."""

    id: str
    inputs: tuple[tuple[str, str], ...]
    reference: str
    answers: tuple[Answer, ...]
    groups: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Answers:
    """Where one contender's answers and their scores are."""

    name: str
    right: bytearray
    scores: Rows
    predictions: Rows
    details: Rows


class Answered:
    """The test examples that every contender with scores has answered, by their place.

    Contenders without answers on disk (failed, or figures only) are left out; of several
    seeds the first one's answers count.
    """

    def __init__(
        self,
        run: RunDir,
        contenders: Sequence[ContenderResult],
        metric: str,
        names: Mapping[str, str] | None = None,
        left_out: Collection[str] = (),
    ) -> None:
        """`names` of classes of error are those that a scorer has for its verdicts; `left_out` the
        ids of examples that nobody's scores have."""
        self._left_out = left_out
        self._run, self._metric, self._names = run, metric, names or {}
        self._keys = {key for c in contenders for key in c.breakdowns}
        self._groups = run.groups() if self._keys else {}
        self._places = {e.id: place for place, e in enumerate(run.each_example("test"))}
        self._tests = Rows(run.data / "test.jsonl", self._places)
        found = (self._answers(c) for c in contenders if not c.error)
        self._of = [answers for answers in found if len(answers.scores)]
        rows = zip(*(answers.right for answers in self._of), strict=True)
        self.patterns = {place: row for place, row in enumerate(rows) if 0 not in row}

    def _answers(self, contender: ContenderResult) -> _Answers:
        folder, right = _folder(self._run, contender), bytearray(len(self._places))

        def note(place: int, row: Mapping[str, Any]) -> None:
            if row["id"] not in self._left_out:
                right[place] = 1 + is_right(row["scores"], self._metric)

        return _Answers(
            contender.name,
            right,
            Rows(folder.path / "scores.jsonl", self._places, note),
            Rows(folder.path / "predictions.jsonl", self._places),
            Rows(folder.path / "details.jsonl", self._places),
        )

    @property
    def names(self) -> list[str]:
        """The contenders that have answers."""
        return [answers.name for answers in self._of]

    def __len__(self) -> int:
        return len(self.patterns)

    def choose(self, limit: int) -> list[int]:
        """Places of at most `limit` examples, in showing order; the first ones of a longer list
        are those of a short one."""
        places = list(self.patterns)
        patterns = [tuple(mark == 2 for mark in self.patterns[place]) for place in places]
        chosen = spread(patterns, min(limit, FIRST))
        chosen += [i for i in spread(patterns, limit) if i not in chosen]
        known = [i for i, pattern in enumerate(patterns) if all(pattern)]
        chosen = chosen[:limit]
        if limit > FIRST:
            chosen += _evenly(known, limit - len(chosen))
        return [places[i] for i in chosen]

    def show(self, places: Sequence[int]) -> Iterator[Shown]:
        """The examples at some places, in that order, read one after another."""
        answers = [self._read(each, places) for each in self._of]
        for example, *found in zip(self._examples(places), *answers, strict=True):
            groups = {
                key: str(value)
                for key, value in {**example.meta, **self._groups.get(example.id, {})}.items()
                if key in self._keys
            }
            yield Shown(
                example.id, fields(example.inputs), example.completion, tuple(found), groups
            )

    def _examples(self, places: Sequence[int]) -> Iterator[Example]:
        for row in self._tests.at(places):
            if row is not None:
                yield Example(row["id"], row["inputs"], row["completion"], row["meta"])

    def _read(self, of: _Answers, places: Iterable[int]) -> Iterator[Answer]:
        places = list(places)
        rows = (of.scores.at(places), of.predictions.at(places), of.details.at(places))
        for row, said, results in zip(*rows, strict=True):
            scored, said = from_dict(ScoredRow, row or {}), said or {"prediction": ""}
            wrong = error_class(scored, self._metric, self._names)
            right = is_right(scored.scores, self._metric)
            yield Answer(
                of.name,
                said["prediction"],
                right,
                scored.verdict,
                said.get("error"),
                None if right else wrong,
                results,
            )


def _folder(run: RunDir, contender: ContenderResult) -> ContenderDir:
    folder = run.contender(contender.name)
    return folder.seed(contender.seeds[0]) if contender.seeds else folder


def is_right(scores: Mapping[str, Any], metric: str) -> bool:
    """Whether the primary metric gives the answer its full mark."""
    return float(scores.get(metric, 0.0)) >= 1.0


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
