"""The input of scoring, one row per test example, and the protocol of a scorer.

A row is a prediction next to its reference, from any source. Times are in seconds, memory is in
bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from tuneoff import plugins
from tuneoff.errors import warn_renamed
from tuneoff.records import Example, Prediction, ScoredRow
from tuneoff.scoring.answer_text import (
    UNFINISHED_THOUGHT,
    has_thought_end,
    has_unopened_thought_end,
    strip_thoughts,
)

# A version grows when the rule may score the same answer differently. docs/scoring.md lists the
# changes. Stored scores without versions are of version 1.
RULES = {"answer_text": 2, "valid_format": 2, "set_match": 2, "real_numbers": 2, "ties": 2}
NEEDS = ("METRICS", "PRIMARY", "score_rows")

MetricKind = Literal["yes/no", "fraction"]
ScoringMode = Literal["strict", "official"]
MAX_VERDICT_LENGTH = 80
# The start of the verdict on a row whose reference cannot be used.
LEFT_OUT_PREFIX = "left out: "


@dataclass(frozen=True, slots=True)
class ScoringInput:
    """A prediction to score, with its reference."""

    id: str
    reference: str
    prediction: str
    """The answer without its thoughts; empty if a thought never ends."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None
    """Why there is no answer, which counts as wrong; else None."""
    inputs: Mapping[str, Any] = field(default_factory=dict)
    """The example's inputs, if they are known."""
    is_truncated: bool = False
    """Whether the answer was cut off in a thought that its prompt began, so that nothing in it
    shows the thought."""
    sample: int = 0
    """The number of this answer among repeated answers to one example."""
    raw_prediction: str = field(init=False)
    """The answer as it came."""
    is_unfinished: bool = field(init=False)
    """Whether a thought never ends."""

    def __post_init__(self) -> None:
        answer = None if self.is_truncated else strip_thoughts(self.prediction, self.reference)
        object.__setattr__(self, "raw_prediction", self.prediction)
        object.__setattr__(self, "is_unfinished", answer is None)
        object.__setattr__(self, "prediction", answer or "")

    @property
    def given(self) -> str:
        """Return `raw_prediction`, under the name that it had before."""
        warn_renamed("given of a row", "raw_prediction")
        return self.raw_prediction

    @property
    def is_cut(self) -> bool:
        """Return `is_truncated`, under the name that it had before."""
        warn_renamed("is_cut of a row", "is_truncated")
        return self.is_truncated


class QuestionBudget(Protocol):
    """The budget that pays a judge's questions.

    It reserves at most a number of tokens for each question, and is told the outcome
    (`contenders.base.BudgetGuard` and `Reservation`, as far as they are needed here).
    """

    def authorize(self, what: str, key: str | None = None, *, input: int, output: int) -> Any: ...


@dataclass(frozen=True, slots=True)
class Options:
    """How to score. All but `metrics` matters only to scorers that execute or call a model."""

    databases: Path | None = None
    """The folder of `<db_id>/*.sqlite`."""
    derived: Path | None = None
    """A folder of derived databases that complete their test suites."""
    mode: ScoringMode = "strict"
    workers: int | None = None
    """The number of child processes; None: one per core, at most four."""
    metrics: tuple[str, ...] | None = None
    """The metrics to compute; None: all."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Example id → why its reference cannot be used; a run does not score these rows."""
    judgements: Path | None = None
    """The file of a judge's paid replies."""
    budget: QuestionBudget | None = None
    """The budget of a judge's questions; None: they are not counted."""
    grader_budgets: Mapping[str, QuestionBudget] = field(default_factory=dict)
    """Metric → the budget of a grader that calls a model."""
    details: Callable[[Mapping[str, Any]], None] | None = None
    """Called with both query results for each executed answer that is wrong."""
    time_limit_seconds: float = 5.0
    """Per query."""
    memory_limit_bytes: int = 1_000_000_000
    """Per child process that executes queries."""
    row_limit: int = 100_000
    """The most rows of a query's result."""


class Scorer(Protocol):
    """The names that a scorer module defines.

    `score_rows` streams: it keeps the order of the rows and yields one result for each. An unusable
    reference costs its own row (`left_out`), not the others. A scorer may also have `failing(rows,
    options)`, which yields (id, reason) for each unusable reference before there are answers, and
    `doubts(rows)`, which returns warnings about references that it rates low.
    """

    METRICS: Mapping[str, MetricKind]
    """Every metric that a row may get."""
    PRIMARY: str
    """The metric that decides."""

    def score_rows(self, rows: Iterable[ScoringInput], options: Options) -> Iterator[ScoredRow]: ...


def build_scoring_inputs(
    test: Sequence[Example], predictions: Mapping[str, Prediction]
) -> list[ScoringInput]:
    """Return the answered examples as rows to score.

    If some answers end a thought that they did not begin, the prompts begin it. An answer that was
    cut off before such an end is all thought.
    """
    begun = any(
        has_unopened_thought_end(p.prediction) and not has_thought_end(e.completion)
        for e in test
        if (p := predictions.get(e.id)) is not None
    )
    return [
        ScoringInput(
            e.id,
            e.completion,
            p.prediction,
            e.meta,
            p.error,
            e.inputs,
            is_truncated=begun
            and p.finish_reason == "length"
            and not (has_thought_end(p.prediction) or has_thought_end(e.completion)),
        )
        for e in test
        if (p := predictions.get(e.id)) is not None
    ]


def explain_no_answer(row: ScoringInput) -> str | None:
    """Return the verdict on a row without an answer; None if there is one to score."""
    if row.error is not None:
        return shorten_text(row.error) or "no answer"
    if row.is_unfinished:
        return UNFINISHED_THOUGHT
    return None if row.prediction.strip() else "no answer"


def build_unanswered(
    row: ScoringInput, verdict: str, metrics: Mapping[str, MetricKind]
) -> ScoredRow:
    """Return a row without an answer, wrong by every metric."""
    return ScoredRow(row.id, build_lowest_scores(metrics), verdict)


def build_left_out(id: str, reason: str) -> ScoredRow:
    """Return a row whose reference cannot be used, without any score."""
    return ScoredRow(id, {}, f"{LEFT_OUT_PREFIX}{reason}")


def find_reason_left_out(row: ScoredRow) -> str | None:
    """Return why a row was left out; None if it was scored."""
    return (
        row.verdict.removeprefix(LEFT_OUT_PREFIX)
        if row.verdict.startswith(LEFT_OUT_PREFIX)
        else None
    )


def build_lowest_scores(metrics: Mapping[str, MetricKind]) -> dict[str, bool | float]:
    """Return the lowest score of every metric."""
    return {name: False if kind == "yes/no" else 0.0 for name, kind in metrics.items()}


class ThoughtCounter:
    """Counts the rows whose thoughts change the score."""

    def __init__(self, mode: ScoringMode) -> None:
        self._official = mode == "official"
        self._rows = self._thoughts = self._unfinished = 0

    def add(self, row: ScoringInput) -> None:
        self._rows += 1
        self._unfinished += row.is_unfinished
        self._thoughts += row.prediction != row.raw_prediction

    def warnings(self) -> list[str]:
        """Return warnings about thoughts, if there are any."""
        if self._official and self._thoughts:
            return [
                f"{self._thoughts} of {self._rows} answers hold a thought, which official mode "
                "scores as part of the answer; mode strict takes it off."
            ]
        if self._unfinished and not self._official:
            return [
                f"{self._unfinished} of {self._rows} answers are {UNFINISHED_THOUGHT} and count "
                "as no "
                "answer; give the model more new tokens, or turn its thinking off."
            ]
        return []


def shorten_text(text: str) -> str:
    """Return a text on one line of at most `MAX_VERDICT_LENGTH` characters."""
    line = " ".join(text.split())
    return line if len(line) <= MAX_VERDICT_LENGTH else line[: MAX_VERDICT_LENGTH - 1] + "…"


def list_scorer_ids() -> tuple[str, ...]:
    """Return the ids of tuneoff's own scorers, sorted."""
    return tuple(plugins.list_ids("tuneoff.scoring", NEEDS))


def load_scorer(id: str) -> Scorer:
    """Return the scorer with this id.

    Raises:
        ConfigError: there is no such scorer, or it lacks a required name.
    """
    return cast("Scorer", plugins.find("tuneoff.scoring", id, "scorer", NEEDS))


def get_primary_metric(scorer: Scorer, options: Options) -> str:
    """Return the primary metric under these options.

    This is `PRIMARY`, unless the scorer has a function `primary(options)`, because its primary
    metric needs something that may be missing (SQL without databases).
    """
    chosen = getattr(scorer, "primary", None)
    return str(chosen(options)) if chosen is not None else scorer.PRIMARY
