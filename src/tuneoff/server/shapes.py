"""The shapes of what the server answers, as its OpenAPI document has them.

Every answer is checked against its shape before it is sent, so the document cannot be wrong
about what comes.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from pydantic import ConfigDict
from typing_extensions import TypedDict

Status = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]
Finish = Literal["stop", "length"]


class _Shape(TypedDict):
    """Nothing comes but what a shape names."""


_Shape.__pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[attr-defined]


class ErrorFacts(_Shape):
    """What is wrong: `param` is the field that is, `code` is for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(_Shape):
    """Every answer that is not 2xx."""

    error: ErrorFacts


class File(_Shape):
    """An uploaded file, or one that a job wrote."""

    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: Literal["processed"]
    status_details: None
    expires_at: None


class FileList(_Shape):
    """A page of files."""

    object: Literal["list"]
    data: list[File]
    has_more: bool
    first_id: str | None
    last_id: str | None


class Deleted(_Shape):
    """Something is gone."""

    id: str
    object: Literal["file", "model"]
    deleted: Literal[True]


class Numbers(_Shape):
    """The numbers that a job is tuned with; `auto` until it begins."""

    n_epochs: int | Literal["auto"]
    batch_size: int | Literal["auto"]
    learning_rate_multiplier: float | Literal["auto"]


class SupervisedNumbers(_Shape):
    """Supervised fine-tuning's own part."""

    hyperparameters: Numbers


class JobMethod(_Shape):
    """How a job tunes."""

    type: Literal["supervised"]
    supervised: SupervisedNumbers


class JobError(_Shape):
    """Why a job failed."""

    code: str
    message: str
    param: str | None


class Job(_Shape):
    """A fine-tuning job."""

    id: str
    object: Literal["fine_tuning.job"]
    created_at: int
    status: Status
    model: str
    organization_id: str
    training_file: str
    validation_file: str | None
    hyperparameters: Numbers
    method: JobMethod
    seed: int
    metadata: dict[str, str] | None
    integrations: list[Any]
    error: JobError | None
    fine_tuned_model: str | None
    finished_at: int | None
    estimated_finish: int | None
    trained_tokens: int | None
    result_files: list[str]


class JobList(_Shape):
    """A page of jobs."""

    object: Literal["list"]
    data: list[Job]
    has_more: bool


class Event(_Shape):
    """Something that happened to a job."""

    id: str
    object: Literal["fine_tuning.job.event"]
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str
    type: Literal["message", "metrics"]
    data: dict[str, Any]


class EventList(_Shape):
    """A page of events."""

    object: Literal["list"]
    data: list[Event]
    has_more: bool


class CheckpointMetrics(_Shape):
    """Losses at a checkpoint; null where they were not measured."""

    step: int
    train_loss: float | None
    valid_loss: float | None
    full_valid_loss: float | None


class Checkpoint(_Shape):
    """A checkpoint of a job, which can be asked like any model."""

    id: str
    object: Literal["fine_tuning.job.checkpoint"]
    created_at: int
    fine_tuned_model_checkpoint: str
    fine_tuning_job_id: str
    step_number: int
    metrics: CheckpointMetrics


class CheckpointList(_Shape):
    """A page of checkpoints."""

    object: Literal["list"]
    data: list[Checkpoint]
    has_more: bool
    first_id: str | None
    last_id: str | None


class Model(_Shape):
    """A model; a tuned one says what it was tuned on, and whether that is served now."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    base: NotRequired[str]
    served: NotRequired[bool]


class ModelList(_Shape):
    """Every model."""

    object: Literal["list"]
    data: list[Model]


class PromptTokensDetails(_Shape):
    """Of a prompt's tokens, those whose keys and values were kept from earlier requests."""

    cached_tokens: int


class Usage(_Shape):
    """Tokens of a request and its answers."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class TokenLogprob(_Shape):
    """A token that could have been in a place; `bytes` may be a part of a character."""

    token: str
    logprob: float
    bytes: list[int] | None


class ChosenLogprob(TokenLogprob):
    """A token of the answer, with the likeliest in its place."""

    top_logprobs: list[TokenLogprob]


class Logprobs(_Shape):
    """Those of a whole answer."""

    content: list[ChosenLogprob]
    refusal: None


class Answer(_Shape):
    """What the assistant says."""

    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(_Shape):
    """One of the n answers to a conversation."""

    index: int
    finish_reason: Finish
    message: Answer
    logprobs: Logprobs | None


class ChatCompletion(_Shape):
    """The answers to a conversation."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class TextChoice(_Shape):
    """One of the n continuations of a text."""

    index: int
    finish_reason: Finish
    text: str
    logprobs: None


class TextCompletion(_Shape):
    """The continuations of a text."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage


class BatchCounts(_Shape):
    """How far a batch is."""

    total: int
    completed: int
    failed: int


class BatchError(_Shape):
    """What is wrong with a line of a file of requests."""

    code: str
    message: str
    param: str | None
    line: int | None


class BatchErrors(_Shape):
    """Why a batch failed."""

    object: Literal["list"]
    data: list[BatchError]


class ReasoningTokens(_Shape):
    """Those of the answers that are not shown: none."""

    reasoning_tokens: int


class BatchUsage(_Shape):
    """Tokens of all answers of a batch."""

    input_tokens: int
    input_tokens_details: PromptTokensDetails
    output_tokens: int
    output_tokens_details: ReasoningTokens
    total_tokens: int


BatchStatus = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling",
    "cancelled",
]  # fmt: skip


class Batch(_Shape):
    """A file of requests that is answered when there is time."""

    id: str
    object: Literal["batch"]
    endpoint: Literal["/v1/chat/completions"]
    model: None
    errors: BatchErrors | None
    input_file_id: str
    completion_window: Literal["24h"]
    status: BatchStatus
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    expires_at: int
    in_progress_at: int | None
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: BatchCounts
    usage: BatchUsage | None
    metadata: dict[str, str] | None


class BatchList(_Shape):
    """A page of batches."""

    object: Literal["list"]
    data: list[Batch]
    has_more: bool
    first_id: str | None
    last_id: str | None


class Health(_Shape):
    """The server answers."""

    status: Literal["ok"]


def errors(*codes: int) -> dict[int | str, dict[str, Any]]:
    """The answers of these codes, for FastAPI's `responses`."""
    return {code: {"model": ErrorBody, "description": "Refused"} for code in codes}
