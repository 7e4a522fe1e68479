"""The dataclasses that are stored: examples, predictions, scores of rows.

Plain frozen dataclasses; pydantic's `TypeAdapter` converts them to JSON and back (`from_dict`,
`to_json`). A value that was not measured is None, never 0. Units are in the names. The contents of
`results.json` are in `results.py`.
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
    """One input with its reference answer."""

    id: str
    inputs: Mapping[str, Any]
    """The bare content by field, without instruction or headings: `{"sentence": ...}`,
    `{"question": ..., "context": ...}`, or `{"messages": [{"role", "content"}, ...]}` for chat
    data. Only `prompts.py` turns it into messages and text. An earlier turn of the assistant may
    have `weight: 0`."""
    completion: str
    """The reference answer."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """Facts for scoring and breakdowns, for instance `db_id`."""

    def sha256(self) -> str:
        """Return the hash of the content alone: the same for every contender and prompt."""
        content = json.dumps([self.content(), self.completion], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(content.encode()).hexdigest()

    def content(self) -> Mapping[str, Any]:
        """Return the inputs as a model sees them, without the `weight` of turns.

        A weight says what a hosted job learns from; it is not content.
        """
        turns = self.inputs.get("messages")
        if not isinstance(turns, list):
            return self.inputs
        return {**self.inputs, "messages": [drop_weight(turn) for turn in turns]}


def drop_weight(turn: Mapping[str, Any]) -> dict[str, Any]:
    """Return a turn as a model sees it, without its `weight`."""
    return {key: value for key, value in turn.items() if key != "weight"}


@dataclass(frozen=True, slots=True)
class Prediction:
    """One contender's answer to one test example."""

    id: str
    prediction: str
    tokens_in: int | None = None
    tokens_out: int | None = None
    seconds: float | None = None
    """The wall time of the answer's batch divided by the batch's size; of a provider's answer, the
    time of its request."""
    finish_reason: str | None = None
    error: str | None = None
    """Why there is no answer. Such a row counts as wrong."""
    concurrency: int | None = None
    """Max requests in flight at a provider meanwhile. None: not known, or an own model."""
    sample: int = 0
    """The number of the answer among several to one example. On disk, 0 is omitted."""


@dataclass(frozen=True, slots=True)
class ScoredRow:
    """Every metric of one prediction."""

    id: str
    scores: Mapping[str, bool | float]
    """The scores by metric; empty where the reference cannot be used."""
    verdict: str
    """`right`, `wrong` or the reason; `left out: ` and the reason where the reference cannot be
    used."""
    sample: int = 0
    """The `sample` of the prediction."""


@dataclass(frozen=True, slots=True)
class LossRow:
    """One row of `loss.jsonl`. Losses are in nats per supervised token."""

    step: int
    examples_seen: int
    train: float | None = None
    validation: float | None = None


@dataclass(frozen=True, slots=True)
class TrainingRecord:
    """`training.json`: the statistics of a contender's training. Counts are over all epochs."""

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
    """`prompt.json`: the test prompts of a contender."""

    prompt_sha256: str | None
    """The hash of the prompts' turns (or plain texts), which is the same for hosted and open
    models."""
    rendered_sha256: str | None = None
    """The hash of the texts that an open model's chat template renders."""
    rendering_notes: tuple[str, ...] = ()
    """Clauses: what was changed so that the template renders every turn."""


@dataclass(frozen=True, slots=True)
class ServingRecord:
    """`serving.json`: a model's measured latency and throughput."""

    machine: str
    """The machine that it was measured on; for a provider, the machine that asked."""
    accelerator: str | None
    alone: int
    """The number of timed requests, one at a time, that count."""
    seconds_p50: float | None
    """Their median, in seconds."""
    seconds_p95: float | None
    """Their 95th percentile, in seconds; None with fewer than 20."""
    saturated: int
    """The number of test examples that the throughput was measured on."""
    requests_per_second: float | None
    """The throughput of an own model, with as many requests at once as fit."""
    backend: str = "transformers"
    """The engine that answered."""
    agreement: float | None = None
    """The share of `compared` test prompts where another backend's answer equals transformers'
    greedy one, to the letter. None where that was not measured."""
    compared: int | None = None
    alone_seconds: Mapping[str, float] = field(default_factory=dict)
    """Seconds of each timed request by the prompt's id, in order. The first one prepares kernels,
    or the connection, and counts only if it is the only one."""


@dataclass(frozen=True, slots=True)
class BaselineRecord:
    """`baseline.json`: what a baseline was made of."""

    name: str
    data_sha256: str
    """The hash of the examples that it was made of."""
    answer: str | None = None
    """The answer that it always gives; None where answers differ."""
    share: float | None = None
    """The share of the training examples that have this answer."""


@dataclass(frozen=True, slots=True)
class PlannedRecord:
    """`planned.json`: the planned cost of one training, for the bake-off file with this hash."""

    file_sha256: str
    training_usd: float | None


@cache
def _get_adapter(kind: Hashable) -> TypeAdapter[Any]:
    """Return the cached TypeAdapter of a dataclass."""
    return TypeAdapter[Any](cast("Any", kind))


def to_dict(record: Any) -> dict[str, Any]:
    """Return a record as plain values for JSON."""
    value = _get_adapter(cast("Hashable", type(record))).dump_python(record, mode="json")
    plain: dict[str, Any] = _replace_nonfinite(value)
    return plain


def to_row(record: Prediction | ScoredRow) -> dict[str, Any]:
    """Return a row of a file of answers or scores, without `sample` where it is 0."""
    value = to_dict(record)
    if not record.sample:
        del value["sample"]
    return value


def _replace_nonfinite(value: Any) -> Any:
    """Return a value with NaN and infinity replaced by None, which JSON has no numbers for."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _replace_nonfinite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_replace_nonfinite(inner) for inner in value]
    return value


def to_json(record: Any, indent: int | None = None) -> str:
    """Return a record as JSON text; without `indent` on one line."""
    return json.dumps(to_dict(record), ensure_ascii=False, indent=indent)


def from_dict(kind: type[T], value: Mapping[str, Any]) -> T:
    """Return the record that plain values describe.

    Raises:
        pydantic.ValidationError: a field is missing, unknown or of another type.
    """
    record: T = _get_adapter(cast("Hashable", kind)).validate_python(value)
    return record
