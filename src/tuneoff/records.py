"""What is written down: examples, predictions, scores of rows.

Plain frozen dataclasses, turned into JSON and back by pydantic's `TypeAdapter`
(`from_dict`, `to_json`). A value that was not measured is None, never 0. Units are in
the names. What `results.json` holds is in `results.py`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, TypeVar, cast

from pydantic import TypeAdapter

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
Verdict = Literal["converged", "overfitting", "stopped early", "still improving"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Example:
    """One input with its reference answer.

    `inputs` holds the bare content by field (`{"sentence": ...}`, `{"question": ...,
    "context": ...}`, or `{"messages": [{"role", "content"}, ...]}` for chat data): no
    instruction, no headings. `prompts.py` alone turns it into messages and text.
    An earlier turn of the assistant may have `weight: 0` beside its content.
    `meta` holds facts used for scoring and breakdowns, for instance `db_id`.
    """

    id: str
    inputs: Mapping[str, Any]
    completion: str
    meta: Mapping[str, Any] = field(default_factory=dict)

    def sha256(self) -> str:
        """Hash of the content alone: equal for all contenders, whatever their prompt."""
        content = json.dumps([self.content(), self.completion], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(content.encode()).hexdigest()

    def content(self) -> Mapping[str, Any]:
        """Return the inputs as a model sees them: the `weight` of a turn says what a hosted job
        learns, and is no content."""
        turns = self.inputs.get("messages")
        if not isinstance(turns, list):
            return self.inputs
        return {**self.inputs, "messages": [without_weight(turn) for turn in turns]}


def without_weight(turn: Mapping[str, Any]) -> dict[str, Any]:
    """Return a turn as a model sees it."""
    return {key: value for key, value in turn.items() if key != "weight"}


@dataclass(frozen=True, slots=True)
class Prediction:
    """One contender's answer to one test example.

    `seconds` is the wall time of the answer's batch divided by the batch's size; of a provider's
    answer that of its request, while no more than `concurrency` requests were under way (None: not
    known, or an own model's).
    `error` is set when no answer could be had; such a row counts as wrong. `sample` tells repeated
    answers to one example apart; on disk, 0 is left out.
    """

    id: str
    prediction: str
    tokens_in: int | None = None
    tokens_out: int | None = None
    seconds: float | None = None
    finish_reason: str | None = None
    error: str | None = None
    concurrency: int | None = None
    sample: int = 0


@dataclass(frozen=True, slots=True)
class ScoredRow:
    """Every metric of one prediction. `verdict` is `right`, `wrong`, or the reason; a row whose
    reference cannot be used has no scores, and `left out: ` with the reason as its verdict.
    `sample` is that of the prediction."""

    id: str
    scores: Mapping[str, bool | float]
    verdict: str
    sample: int = 0


@dataclass(frozen=True, slots=True)
class LossRow:
    """One row of `loss.jsonl`; losses are nats per supervised token."""

    step: int
    examples_seen: int
    train: float | None = None
    validation: float | None = None


@dataclass(frozen=True, slots=True)
class TrainingRecord:
    """`training.json`: what training a contender took. Counts are over all epochs."""

    examples: int
    epochs: float
    steps: int
    tokens_raw: int | None
    tokens_templated: int | None
    tokens_billed: int | None
    tokens_computed: int | None
    seconds: float | None
    peak_memory_bytes: int | None
    best_step: int | None
    overfitting_step: int | None
    verdict: Verdict | None
    trainable_parameters: int | None = None
    learning_rate: float | None = None
    learning_rates_tried: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PromptRecord:
    """`prompt.json`: what a contender's test prompts were.

    `prompt_sha256` is the hash of their turns (or plain texts), which is equal for hosted and open
    models; `rendered_sha256` that of the texts which an open model's chat template made of them.
    `rendering_notes` say, as clauses, what was done so that it rendered every turn.
    """

    prompt_sha256: str | None
    rendered_sha256: str | None = None
    rendering_notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ServingRecord:
    """`serving.json`: how fast a model answers, and on what (a provider's: from where) that was
    measured.

    `alone_seconds` are those of test prompts, by id, in the order in which they were asked, one at
    a time. The first one prepares kernels, or the connection, and counts only where there is no
    other: `seconds_p50` and `seconds_p95` are of the `alone` ones that count; p95 is None of fewer
    than 20. `requests_per_second` is that of the `saturated` test examples as an own model answered
    them, as many at once as fit. Of another `backend` than transformers, `agreement` is the share
    of `compared` test prompts whose answers are the same, to the letter, as transformers' greedy
    ones; None where that was not measured.
    """

    machine: str
    accelerator: str | None
    alone: int
    seconds_p50: float | None
    seconds_p95: float | None
    saturated: int
    requests_per_second: float | None
    backend: str = "transformers"
    agreement: float | None = None
    compared: int | None = None
    alone_seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BaselineRecord:
    """`baseline.json`: a baseline's name and, where it always gives the same `answer`, what `share`
    of the training examples has it. `data_sha256` is the hash of the examples that it was made
    of."""

    name: str
    data_sha256: str
    answer: str | None = None
    share: float | None = None


@dataclass(frozen=True, slots=True)
class PlannedRecord:
    """`planned.json`: what one training was planned to cost, for a file of this hash."""

    file_sha256: str
    training_usd: float | None


@cache
def _adapter(kind: Hashable) -> TypeAdapter[Any]:
    return TypeAdapter[Any](cast("Any", kind))


def to_dict(record: Any) -> dict[str, Any]:
    """A record as plain JSON-able values."""
    value = _adapter(cast("Hashable", type(record))).dump_python(record, mode="json")
    plain: dict[str, Any] = _finite(value)
    return plain


def to_row(record: Prediction | ScoredRow) -> dict[str, Any]:
    """Return a row of a file of answers or scores; the first sample's does not name it."""
    value = to_dict(record)
    if not record.sample:
        del value["sample"]
    return value


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: a loss that is not a number is written as null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return value


def to_json(record: Any, indent: int | None = None) -> str:
    """A record as JSON text; without `indent` on one line."""
    return json.dumps(to_dict(record), ensure_ascii=False, indent=indent)


def from_dict(kind: type[T], value: Mapping[str, Any]) -> T:
    """The record of plain values.

    Raises:
        pydantic.ValidationError: a field is missing, unknown or of another type.
    """
    record: T = _adapter(cast("Hashable", kind)).validate_python(value)
    return record
