"""What goes into scoring: one row per test example, and how to score it.

A row is a prediction next to its reference, wherever either came from. Times are
seconds, memory is bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from tuneoff.records import Example, Prediction, ScoredRow
from tuneoff.scoring.answer_text import (
    UNFINISHED,
    ends_thought,
    ends_unopened_thought,
    strip_thoughts,
)

Kind = Literal["yes/no", "fraction"]
Mode = Literal["strict", "official"]
VERDICT_LENGTH = 80
# How the verdict begins on a row that nobody can be right or wrong about.
LEFT_OUT = "left out: "


@dataclass(frozen=True, slots=True)
class Row:
    """A prediction to judge.

    `prediction` becomes the answer without its thoughts, and is empty where a thought never ends
    (`is_unfinished`); `given` keeps what came. `error` says why there is no answer; it then counts
    as wrong. `inputs` are the example's, where they are known. `is_cut` says that the answer was
    cut in a thought that its prompt began, so that nothing in it shows the thought. `sample`
    tells repeated answers to one example apart.
    """

    id: str
    reference: str
    prediction: str
    meta: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None
    inputs: Mapping[str, Any] = field(default_factory=dict)
    is_cut: bool = False
    sample: int = 0
    given: str = field(init=False)
    is_unfinished: bool = field(init=False)

    def __post_init__(self) -> None:
        answer = None if self.is_cut else strip_thoughts(self.prediction, self.reference)
        object.__setattr__(self, "given", self.prediction)
        object.__setattr__(self, "is_unfinished", answer is None)
        object.__setattr__(self, "prediction", answer or "")


class Purse(Protocol):
    """What a judge's questions are paid from: gives leave for each, at most so many tokens, and
    gets told what came of it (`contenders.Guard` and `Ticket`, as far as they are needed here)."""

    def authorize(self, what: str, key: str | None = None, *, input: int, output: int) -> Any: ...


@dataclass(frozen=True, slots=True)
class Options:
    """How to score. All but `metrics` matters only to scorers that execute answers.

    `databases` is the folder of `<db_id>/*.sqlite`, `derived` another one with databases that
    complete their suites; limits are per query; `workers` is the number of child processes
    (None: one per core, at most four); `metrics` are the ones to compute (None: all); `left_out`
    says why the references of some examples cannot be used, by id: a run does not score their
    rows; `judgements` is the file in which a judge's paid answers are kept, `purse` what they are
    paid from (None: they are not counted), `grader_purses` the same of graders that ask a model,
    by metric; `details` is called with the results of both queries
    for each row whose answer was executed and found wrong.
    """

    databases: Path | None = None
    derived: Path | None = None
    mode: Mode = "strict"
    workers: int | None = None
    metrics: tuple[str, ...] | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)
    judgements: Path | None = None
    purse: Purse | None = None
    grader_purses: Mapping[str, Purse] = field(default_factory=dict)
    details: Callable[[Mapping[str, Any]], None] | None = None
    time_limit_seconds: float = 5.0
    memory_limit_bytes: int = 1_000_000_000
    row_limit: int = 100_000


class Scorer(Protocol):
    """What a scorer module has.

    `METRICS` names every metric that a row may get; `PRIMARY` is the one that decides.
    `score_rows` streams: it keeps the order of the rows and gives one result for each. One whose
    reference cannot be used costs its own row (`left_out`), not the others'. A scorer may have
    `failing(rows, options)`, which gives the id of each such row, and why, before there are
    answers, and `doubts(rows)`, sentences about references that it thinks little of.
    """

    METRICS: Mapping[str, Kind]
    PRIMARY: str

    def score_rows(self, rows: Iterable[Row], options: Options) -> Iterator[ScoredRow]: ...


def build_rows(test: Sequence[Example], predictions: Mapping[str, Prediction]) -> list[Row]:
    """Return the answered examples as rows to score. Where some answers end a thought that they did
    not begin, the prompts begin it. An answer that was cut before such an end is all thought."""
    begun = any(
        ends_unopened_thought(p.prediction) and not ends_thought(e.completion)
        for e in test
        if (p := predictions.get(e.id)) is not None
    )
    return [
        Row(
            e.id,
            e.completion,
            p.prediction,
            e.meta,
            p.error,
            e.inputs,
            is_cut=begun
            and p.finish_reason == "length"
            and not (ends_thought(p.prediction) or ends_thought(e.completion)),
        )
        for e in test
        if (p := predictions.get(e.id)) is not None
    ]


def no_answer(row: Row) -> str | None:
    """The verdict on a row that has no answer; None when there is one to judge."""
    if row.error is not None:
        return shortened(row.error) or "no answer"
    if row.is_unfinished:
        return UNFINISHED
    return None if row.prediction.strip() else "no answer"


def unanswered(row: Row, verdict: str, metrics: Mapping[str, Kind]) -> ScoredRow:
    """A row without an answer: wrong by every metric."""
    return ScoredRow(row.id, all_wrong(metrics), verdict)


def leave_out(id: str, reason: str) -> ScoredRow:
    """Return a row whose reference cannot be used: it has no score by any metric."""
    return ScoredRow(id, {}, f"{LEFT_OUT}{reason}")


def find_reason_left_out(row: ScoredRow) -> str | None:
    """Return why a row was left out; None of one that was scored."""
    return row.verdict.removeprefix(LEFT_OUT) if row.verdict.startswith(LEFT_OUT) else None


def all_wrong(metrics: Mapping[str, Kind]) -> dict[str, bool | float]:
    """The lowest score of every metric."""
    return {name: False if kind == "yes/no" else 0.0 for name, kind in metrics.items()}


class ThoughtCounter:
    """Counts the rows whose thoughts change what is scored, and says so."""

    def __init__(self, mode: Mode) -> None:
        self._official = mode == "official"
        self._rows = self._thoughts = self._unfinished = 0

    def add(self, row: Row) -> None:
        self._rows += 1
        self._unfinished += row.is_unfinished
        self._thoughts += row.prediction != row.given

    def warnings(self) -> list[str]:
        """Returns what to tell the user; empty where there is nothing to tell."""
        if self._official and self._thoughts:
            return [
                f"{self._thoughts} of {self._rows} answers hold a thought, which official mode "
                "scores as part of the answer; mode strict takes it off."
            ]
        if self._unfinished and not self._official:
            return [
                f"{self._unfinished} of {self._rows} answers are {UNFINISHED} and count as no "
                "answer; give the model more new tokens, or turn its thinking off."
            ]
        return []


def shortened(text: str) -> str:
    """Text on one line of at most `VERDICT_LENGTH` characters."""
    line = " ".join(text.split())
    return line if len(line) <= VERDICT_LENGTH else line[: VERDICT_LENGTH - 1] + "…"
