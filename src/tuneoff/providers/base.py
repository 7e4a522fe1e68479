"""Hosted APIs, one file each, found by its id. This module defines what they all offer.

A provider's file has `connect(base_url, key_variable, tape)`, which returns a `Provider`. Two more
functions need no key: `check(settings)` raises ConfigError for options that the provider's jobs do
not take, and `schedule(epochs, examples, validation)` returns what a job processes and bills.

Every call raises one of three errors, whatever the SDK calls it: `RejectedError` (rejected for
good), `RateLimitedError` (not carried out), `UnknownOutcomeError` (its subclass `UnreachableError`:
no connection could be made). Nothing is retried here. The caller knows what may be retried, and
what must first be searched for (`providers/retries.py`).
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from tuneoff import plugins

if TYPE_CHECKING:
    from tuneoff.providers.cassette import Cassette
    from tuneoff.providers.http_errors import ConnectionStatus

NEEDS = ("check", "connect", "schedule")
# States of a job that has not ended. Any other state that is not an end is shown and waited on,
# too.
JOB_WAITING = (
    "validating_files", "queued", "running", "paused", "compressing", "uploading", "cancelling",
)  # fmt: skip
JOB_FINISHED = ("succeeded", "failed", "cancelled")
BATCH_WAITING = ("validating", "in_progress", "finalizing", "cancelling")
BATCH_FINISHED = ("completed", "failed", "expired", "cancelled")
# States of an uploaded file while its provider checks it (OpenAI, Azure, Together), and when it can
# never be used. Some servers leave a file at `uploaded`, others show it only at first.
FILE_PENDING = ("pending", "queued", "running", "processing", "validating", "importing")
FILE_UPLOADED = "uploaded"
FILE_FAILED = ("error", "failed", "deleting", "deleted", "invalid_format", "invalid", "cancelled")
CHAT_URL: Final = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer with the tokens that are billed for it."""

    text: str
    tokens_in: int | None = None
    """Prompt tokens, cached ones included; None: the server does not say."""
    tokens_out: int | None = None
    """Answer tokens, reasoning included; None: the server does not say."""
    finish_reason: str | None = None
    seconds: float | None = None
    """How long the request took, without attempts that were rejected before it, or how long it took
    when it was recorded. None: the caller's own measurement is as good."""
    pause_seconds: float | None = None
    """How long the provider's rate limit asks to wait before the next request."""
    cached_tokens_in: int = 0
    """Tokens of `tokens_in` billed at the price of cached input."""
    written_tokens_in: int = 0
    """Tokens of `tokens_in` billed at the price of cache writes."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """What a job processes and bills."""

    epochs: int
    """Passes over the training examples."""
    validations: int = 0
    """Passes over the validation examples; 0 where they are free."""

    def billed(self, training: int, validation: int) -> int:
        """Return the tokens billed in all, given the tokens of both sets."""
        return training * self.epochs + validation * self.validations


@dataclass(frozen=True, slots=True)
class Estimate:
    """A provider's estimate of what a job will cost."""

    usd: float | None = None
    tokens: int | None = None
    warning: str | None = None
    """What else the provider says about the job."""


@dataclass(frozen=True, slots=True)
class JobSpec:
    """A fine-tuning job as it is requested. Options that a provider lacks are rejected by its
    `check`."""

    model: str
    training_file: str
    validation_file: str | None
    suffix: str
    metadata: Mapping[str, str]
    """Identifies the job, where the provider's jobs have metadata."""
    since: float
    """When the job was first going to be created, in seconds of the epoch."""
    epochs: int | str = "auto"
    batch_size: int | str = "auto"
    learning_rate_multiplier: float | str = "auto"
    seed: int | None = None
    learning_rate: float | None = None
    method: str | None = None
    early_stopping: bool = False
    keep_checkpoints: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """A fine-tuning job as the provider shows it. Times are in seconds of the epoch."""

    id: str
    status: str
    model: str | None = None
    """The tuned model, once there is one."""
    error: str | None = None
    trained_tokens: int | None = None
    billed_usd: float | None = None
    """What the provider says it billed; 0 for what it never bills. None: only the tokens are known.
    """
    epochs: float | None = None
    batch_size: int | None = None
    created_at: float | None = None
    estimated_finish: float | None = None
    finished_at: float | None = None
    training_file: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    result_files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a job; `step` of `steps`, if it is about one."""

    id: str
    message: str
    step: int | None = None
    steps: int | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model saved during a job. Losses are in nats per token; None where not measured."""

    model: str
    step: int
    train: float | None = None
    validation: float | None = None


@dataclass(frozen=True, slots=True)
class StepLoss:
    """A row of a job's metrics."""

    step: int
    train: float | None = None
    validation: float | None = None


@dataclass(frozen=True, slots=True)
class TunedModel:
    """A model that an account has tuned."""

    model: str
    base: str
    training_file: str | None = None
    """Id of the training file."""
    validation_file: str | None = None
    """Id of the validation file."""
    job: str | None = None
    """Id of the job."""
    ends: datetime.date | None = None
    """The day from which the model no longer answers."""
    listed: bool = True
    """The account's list of models has it. A job's model that is not listed was deleted, or has
    ended."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Requests that are answered together."""

    id: str
    status: str
    error: str | None = None
    total: int = 0
    done: int = 0
    files: tuple[str, ...] = ()
    """Files of the answers and errors so far."""
    tokens_in: int | None = None
    """Billed prompt tokens of all requests; None: only the answers report them."""
    tokens_out: int | None = None
    """Billed answer tokens of all requests; None: only the answers report them."""


@dataclass(frozen=True, slots=True)
class BatchRow:
    """The result of one request of a batch: an answer, or an error."""

    id: str
    status: int | None
    """HTTP status; None: the request was never carried out."""
    reply: Reply | None = None
    error: str | None = None
    code: str | None = None
    param: str | None = None


@dataclass(frozen=True, slots=True)
class FileState:
    """How far a provider is with an uploaded file."""

    status: str | None
    """The provider's word in lower case; None where it does not say."""
    error: str | None = None
    """What is wrong with a file that can never be used."""
    size: int | None = None
    """Size in bytes."""


class Batches(Protocol):
    """Answers through batches, which cost less and take longer."""

    url: str

    def file_state(self, id: str) -> FileState:
        """Return how far the provider is with a file of requests."""
        ...

    def find_file(self, name: str) -> str | None:
        """Return the id of an uploaded file of requests of this name; None if there is none."""
        ...

    def upload(self, path: Path) -> str:
        """Upload a file of requests under its own name and return its id."""
        ...

    def request(
        self,
        id: str,
        model: str,
        messages: Sequence[Mapping[str, str]],
        max_tokens: int | None,
        reasoning_effort: str | None = None,
        temperature: float | None = None,
    ) -> dict[str, Any]:
        """Return one line of a file of requests, as `Provider.chat` would send it."""
        ...

    def adapted(self, row: BatchRow) -> bool:
        """Return whether later requests will omit what this one was rejected for."""
        ...

    def find(self, metadata: Mapping[str, str], since: float) -> Batch | None:
        """Find the batch that an earlier try created, even if its answer was lost; else return
        None."""
        ...

    def create(self, file: str, metadata: Mapping[str, str]) -> Batch:
        """Create a batch and return it. From here on it costs money."""
        ...

    def batch(self, id: str) -> Batch:
        """Return a batch's current state."""
        ...

    def rows(self, batch: Batch) -> Iterator[BatchRow]:
        """Yield the results of a finished batch in any order; unprocessed requests are left out."""
        ...


class Provider(Protocol):
    """What a provider offers. A file's name is its identity: it holds the hash of the content."""

    url: str
    reach: ConnectionStatus

    def find_file(self, name: str) -> str | None:
        """Return the id of an uploaded training file of this name; None if there is none."""
        ...

    def upload(self, path: Path) -> str:
        """Upload a training file under its own name and return its id."""
        ...

    def file_state(self, id: str) -> FileState:
        """Return how far the provider is with a training file."""
        ...

    def find_job(self, spec: JobSpec, taken: Sequence[str]) -> Job | None:
        """Find the job that an earlier try of this spec created, even if its answer was lost.

        It is never one of the `taken` ids; None if there is none.
        """
        ...

    def estimate(self, spec: JobSpec) -> Estimate | None:
        """Return the provider's estimate of a job's cost; None where it gives none."""
        ...

    def create_job(self, spec: JobSpec) -> Job:
        """Create a job and return it. From here on it costs money."""
        ...

    def job(self, id: str) -> Job:
        """Return a job's current state."""
        ...

    def cancel(self, id: str) -> Job:
        """Cancel a job and return its state."""
        ...

    def events(self, id: str) -> list[Event]:
        """Return a job's latest events, the oldest first."""
        ...

    def checkpoints(self, id: str) -> list[Checkpoint]:
        """Return the models that a job saved, the earliest first."""
        ...

    def losses(self, job: Job) -> list[StepLoss]:
        """Return a finished job's metrics by step; empty where the provider gives none."""
        ...

    def tuned_models(self) -> list[TunedModel]:
        """Return the account's tuned models: listed ones first, then those that only jobs show."""
        ...

    def has_jobs(self) -> bool | None:
        """Return whether the account shows any fine-tuning job; None where listing is forbidden."""
        ...

    def job_facts(self, id: str) -> dict[str, Any]:
        """Return a job with everything that the provider shows, without the key."""
        ...

    def result_text(self, id: str) -> str:
        """Return the text of a job's result file, without the key."""
        ...

    def download(self, id: str) -> bytes:
        """Return the content of a file that still exists."""
        ...

    def chat(
        self,
        model: str,
        messages: Sequence[Mapping[str, str]],
        max_tokens: int | None = None,
        reasoning_effort: str | None = None,
        temperature: float | None = None,
    ) -> Reply:
        """Send one chat request and return its answer.

        Args:
            max_tokens: maximum tokens of the answer, reasoning included.
            reasoning_effort: how much the model should reason; None: its own default.
            temperature: sent as it is; None: 0, or the model's own where it reasons.
        """
        ...

    def batches(self) -> Batches | None:
        """Return the provider's batch API; None where it has none."""
        ...

    def close(self) -> None:
        """Close its connections."""
        ...


def normalize_job_status(status: str, model: str | None, has_finished: bool) -> str:
    """Return a job's state in our words; a job that has ended has one of `JOB_FINISHED`.

    If the provider shows when a job finished, the job has ended, whatever its state is called. The
    tuned model then tells whether it succeeded. States that are known ends need no time.

    Args:
        status: the provider's word.
        model: the tuned model, if there is one.
        has_finished: whether the provider shows a time at which the job finished.
    """
    word = status.strip().lower()
    if word in ("canceled", "cancelled") or (has_finished and word.startswith("cancel")):
        return "cancelled"
    if word == "failed" or (word == "succeeded" and not has_finished):
        return word
    if has_finished:
        return "succeeded" if model else "failed"
    return word if word in JOB_WAITING else status


def normalize_batch_status(status: str, ends: Mapping[str, Any]) -> str:
    """Return a batch's state in our words; a batch that has ended has one of `BATCH_FINISHED`.

    For an unknown state, the time of an end shows that it has ended.

    Args:
        status: the provider's word.
        ends: the time of each end, where the provider shows one.
    """
    word = status.strip().lower()
    word = "cancelled" if word == "canceled" else word
    if word in BATCH_FINISHED + BATCH_WAITING:
        return word
    return next((end for end in BATCH_FINISHED if ends.get(end)), status)


def connect(
    id: str,
    base_url: str | None = None,
    key_variable: str | None = None,
    tape: Cassette | None = None,
) -> Provider:
    """Connect to the provider of an id and return it.

    Args:
        base_url: its address, unless it is the usual one.
        key_variable: the environment variable with the key, unless it is the usual one.
        tape: the cassette between it and the network (`providers/cassette.py`), if any.

    Raises:
        ConfigError: there is no such provider, or no key.
        MissingExtraError: its SDK is not installed.
    """
    return cast(Provider, load_provider_module(id).connect(base_url, key_variable, tape))


def load_provider_module(id: str) -> Any:
    """Return a provider's module.

    Raises:
        ConfigError: there is no such provider.
    """
    return plugins.find("tuneoff.providers", id, "provider", NEEDS)


def iterate_pages(first: Any, max_pages: int) -> Iterator[Any]:
    """Yield the items of a listing, over at most `max_pages` pages.

    A server without pagination returns the same page again; the listing ends there.
    """
    page, begins = first, set[str]()
    for _ in range(max_pages):
        items = page.data or ()
        if items and items[0].id in begins:
            return
        begins.update(item.id for item in items[:1])
        yield from items
        if not page.has_next_page():
            return
        page = page.get_next_page()
