"""Response models, as in the OpenAPI document.

Every response is validated before it is sent, so the document is always right about responses.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from pydantic import ConfigDict
from typing_extensions import TypedDict

Status = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]
Finish = Literal["stop", "length"]


class _Shape(TypedDict):
    """A response model; other keys are not allowed."""


_Shape.__pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[attr-defined]


class ErrorFacts(_Shape):
    """What is wrong: `param` is the wrong field, `code` is for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(_Shape):
    """The body of every response that is not 2xx."""

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
    """Confirms a deletion."""

    id: str
    object: Literal["file", "model"]
    deleted: Literal[True]


class Numbers(_Shape):
    """Hyperparameters of a job; `auto` until it starts."""

    n_epochs: int | Literal["auto"]
    batch_size: int | Literal["auto"]
    learning_rate_multiplier: float | Literal["auto"]


class SupervisedNumbers(_Shape):
    """The `supervised` part of a method."""

    hyperparameters: Numbers


class JobMethod(_Shape):
    """The fine-tuning method of a job."""

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
    """An event of a job."""

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
    """Losses at a checkpoint; null if not measured."""

    step: int
    train_loss: float | None
    valid_loss: float | None
    full_valid_loss: float | None


class Checkpoint(_Shape):
    """A checkpoint of a job, which can be requested like any model."""

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
    """A model; a tuned one has its base, and whether that is served now."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    base: NotRequired[str]
    served: NotRequired[bool]


class ModelList(_Shape):
    """All models."""

    object: Literal["list"]
    data: list[Model]


class PromptTokensDetails(_Shape):
    """Prompt tokens that were read from the prefix cache."""

    cached_tokens: int


class Usage(_Shape):
    """Tokens of a request and its answers."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class TokenLogprob(_Shape):
    """A token with its log-probability; `bytes` may be part of a character."""

    token: str
    logprob: float
    bytes: list[int] | None


class ChosenLogprob(TokenLogprob):
    """A token of the answer, with the likeliest alternatives."""

    top_logprobs: list[TokenLogprob]


class Logprobs(_Shape):
    """Log-probabilities of a whole answer."""

    content: list[ChosenLogprob]
    refusal: None


class Answer(_Shape):
    """The assistant's message."""

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
    """Progress of a batch."""

    total: int
    completed: int
    failed: int


class BatchError(_Shape):
    """What is wrong with one line of a request file."""

    code: str
    message: str
    param: str | None
    line: int | None


class BatchErrors(_Shape):
    """Why a batch failed."""

    object: Literal["list"]
    data: list[BatchError]


class ReasoningTokens(_Shape):
    """Hidden reasoning tokens of the answers: always 0."""

    reasoning_tokens: int


class BatchUsage(_Shape):
    """Tokens of all requests and answers of a batch."""

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
    """A file of requests that is answered in the background."""

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


def describe_errors(*codes: int) -> dict[int | str, dict[str, Any]]:
    """Return error responses of these codes for FastAPI's `responses`."""
    return {code: {"model": ErrorBody, "description": "Refused"} for code in codes}
