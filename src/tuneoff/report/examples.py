"""Chooses the test examples to show: those that distinguish the contenders.

First come examples that some contenders got right and others wrong, spread over the patterns of who
was right (round robin, the most frequent pattern first; within a pattern evenly over the test set).
Then come examples that nobody got right, then those that everybody did. The same run directory
always gives the same examples. Texts are read when an example is shown: ten thousand need not be in
memory.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tuneoff.records import Example, ScoredRow, from_dict
from tuneoff.results import ContenderResult
from tuneoff.scoring.aggregate import find_error_class
from tuneoff.storage.jsonl_index import JsonlIndex
from tuneoff.storage.run_dir import ContenderDir, RunDir

Pattern = tuple[bool, ...]
# The number of examples in Markdown, which are also the page's first ones.
FIRST_EXAMPLES = 10


@dataclass(frozen=True, slots=True)
class ShownAnswer:
    """One contender's answer to an example."""

    contender: str
    text: str
    right: bool
    """Whether the primary metric gives it full marks."""
    verdict: str
    error: str | None
    error_class: str | None = None
    """The class of its error; None for a right answer."""
    results: Mapping[str, Any] | None = None
    """The result tables of reference and answer, from `details.jsonl`, for SQL that was wrong."""


@dataclass(frozen=True, slots=True)
class ShownExample:
    """One test example with every contender's answer."""

    id: str
    inputs: tuple[tuple[str, str], ...]
    """(field, text) pairs."""
    reference: str
    answers: tuple[ShownAnswer, ...]
    groups: Mapping[str, str] = field(default_factory=dict)
    """The values that results are broken down by, for instance `hardness`: `easy`."""


@dataclass(frozen=True, slots=True)
class _AnswerFiles:
    """The files of one contender's answers and scores."""

    name: str
    right: bytearray
    """By example: 0 without a score, 1 wrong, 2 right."""
    scores: JsonlIndex
    predictions: JsonlIndex
    details: JsonlIndex


class AnsweredExamples:
    """The test examples that every contender with scores has answered, by their number.

    Contenders without answers on disk (failed, or figures only) are left out. Of several seeds the
    first one's answers count.
    """

    def __init__(
        self,
        run: RunDir,
        contenders: Sequence[ContenderResult],
        metric: str,
        names: Mapping[str, str] | None = None,
        left_out: Collection[str] = (),
    ) -> None:
        """Read where the answers are.

        Args:
            names: the scorer's names of error classes, by verdict.
            left_out: ids of examples that no contender's scores have.
        """
        self._left_out = left_out
        self._run, self._metric, self._names = run, metric, names or {}
        self._keys = {key for c in contenders for key in c.breakdowns}
        self._groups = run.groups() if self._keys else {}
        self._places = {e.id: place for place, e in enumerate(run.iterate_examples("test"))}
        self._tests = JsonlIndex(run.data / "test.jsonl", self._places)
        by_contender = (self._answers(c) for c in contenders if not c.error)
        self._of = [answers for answers in by_contender if len(answers.scores)]
        rows = zip(*(answers.right for answers in self._of), strict=True)
        self.patterns = {place: row for place, row in enumerate(rows) if 0 not in row}

    def _answers(self, contender: ContenderResult) -> _AnswerFiles:
        """Return the files of a contender's answers, and which of them are right."""
        folder, right = _find_folder(self._run, contender), bytearray(len(self._places))

        def note(place: int, row: Mapping[str, Any]) -> None:
            if row["id"] not in self._left_out:
                right[place] = 1 + is_right(row["scores"], self._metric)

        return _AnswerFiles(
            contender.name,
            right,
            JsonlIndex(folder.path / "scores.jsonl", self._places, note),
            JsonlIndex(folder.path / "predictions.jsonl", self._places),
            JsonlIndex(folder.path / "details.jsonl", self._places),
        )

    @property
    def names(self) -> list[str]:
        """Return the names of the contenders that have answers."""
        return [answers.name for answers in self._of]

    def __len__(self) -> int:
        return len(self.patterns)

    def choose(self, limit: int) -> list[int]:
        """Return the numbers of at most `limit` examples, in the order to show them.

        A longer choice begins with the shorter one.
        """
        places = list(self.patterns)
        patterns = [tuple(mark == 2 for mark in self.patterns[place]) for place in places]
        chosen = choose_spread(patterns, min(limit, FIRST_EXAMPLES))
        chosen += [i for i in choose_spread(patterns, limit) if i not in chosen]
        known = [i for i, pattern in enumerate(patterns) if all(pattern)]
        chosen = chosen[:limit]
        if limit > FIRST_EXAMPLES:
            chosen += _pick_evenly(known, limit - len(chosen))
        return [places[i] for i in chosen]

    def show(self, places: Sequence[int]) -> Iterator[ShownExample]:
        """Yield the examples of some numbers, in that order, read one after another."""
        answers = [self._read(each, places) for each in self._of]
        for example, *found in zip(self._examples(places), *answers, strict=True):
            groups = {
                key: str(value)
                for key, value in {**example.meta, **self._groups.get(example.id, {})}.items()
                if key in self._keys
            }
            yield ShownExample(
                example.id,
                list_input_fields(example.inputs),
                example.completion,
                tuple(found),
                groups,
            )

    def _examples(self, places: Sequence[int]) -> Iterator[Example]:
        """Yield the examples without their answers."""
        for row in self._tests.read_at(places):
            if row is not None:
                yield Example(row["id"], row["inputs"], row["completion"], row["meta"])

    def _read(self, of: _AnswerFiles, places: Iterable[int]) -> Iterator[ShownAnswer]:
        """Yield one contender's answers to some examples."""
        places = list(places)
        rows = (
            of.scores.read_at(places),
            of.predictions.read_at(places),
            of.details.read_at(places),
        )
        for row, answer, results in zip(*rows, strict=True):
            scored, answer = from_dict(ScoredRow, row or {}), answer or {"prediction": ""}
            wrong = find_error_class(scored, self._metric, self._names)
            right = is_right(scored.scores, self._metric)
            yield ShownAnswer(
                of.name,
                answer["prediction"],
                right,
                scored.verdict,
                answer.get("error"),
                None if right else wrong,
                results,
            )


def _find_folder(run: RunDir, contender: ContenderResult) -> ContenderDir:
    """Return the directory of a contender's answers: that of the first seed, where there are
    several."""
    folder = run.contender(contender.name)
    return folder.seed(contender.seeds[0]) if contender.seeds else folder


def is_right(scores: Mapping[str, Any], metric: str) -> bool:
    """Return whether the primary metric gives an answer full marks."""
    return float(scores.get(metric, 0.0)) >= 1.0


def choose_spread(patterns: Sequence[Pattern], limit: int) -> list[int]:
    """Return the indices of the examples to show, in order, given who was right on each."""
    groups: dict[Pattern, list[int]] = {}
    for index, pattern in enumerate(patterns):
        groups.setdefault(pattern, []).append(index)
    mixed = [group for pattern, group in groups.items() if any(pattern) and not all(pattern)]
    mixed.sort(key=len, reverse=True)
    chosen = _pick_round_robin(mixed, limit)
    nobody = [i for pattern, group in groups.items() if not any(pattern) for i in group]
    return chosen + _pick_evenly(nobody, limit - len(chosen))


def list_input_fields(inputs: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return an example's inputs as (field, text) pairs; chat turns by their role."""
    turns = inputs.get("messages")
    if isinstance(turns, list):
        return tuple((str(turn["role"]), str(turn["content"])) for turn in turns)
    return tuple((key, str(value)) for key, value in inputs.items() if value not in ("", None))


def _pick_evenly(group: Sequence[int], limit: int) -> list[int]:
    """Return at most `limit` members at even distances, the first one among them."""
    take = min(limit, len(group))
    return [group[i * len(group) // take] for i in range(take)]


def _pick_round_robin(groups: Sequence[Sequence[int]], limit: int) -> list[int]:
    """Return one member of each group in turn, those of a group at even distances."""
    turns = [(turn, place) for place, group in enumerate(groups) for turn in range(len(group))]
    places = [place for _, place in sorted(turns)[:limit]]
    members = [iter(_pick_evenly(group, places.count(place))) for place, group in enumerate(groups)]
    return [next(members[place]) for place in places]
