"""Hosted APIs: one file each, found by its id. What they all offer is drawn here.

A provider's file has `connect(base_url, key_variable, tape)`, which gives a `Provider`; and, before
there is a key, `check(settings)`, which refuses what its jobs do not take (ConfigError), and
`schedule(epochs, examples, validation)`, which says what they go over and bill.

Every call raises one of three errors, whatever the SDK underneath calls it: `RefusedError` (no
for good), `BusyError` (not carried out), `LostError` (nobody knows; of those `UnreachableError`:
no connection could be made). Nothing is tried twice here: what may be repeated, and what must
first be looked for, is the caller's to know (`providers/calls.py`).
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from tuneoff import discovery

if TYPE_CHECKING:
    from tuneoff.providers.reach import Reach
    from tuneoff.providers.recording import Tape

NEEDS = ("check", "connect", "schedule")
# Waited on until they change; any other state that is not an end is shown and waited on, too.
WAITING = (
    "validating_files", "queued", "running", "paused", "compressing", "uploading", "cancelling",
)  # fmt: skip
FINISHED = ("succeeded", "failed", "cancelled")
BATCH_WAITING = ("validating", "in_progress", "finalizing", "cancelling")
BATCH_FINISHED = ("completed", "failed", "expired", "cancelled")
# An uploaded file while its provider looks through it (OpenAI, Azure, Together), and when it can
# never be used. Some servers call a file `uploaded` for good, others only at first.
FILE_PENDING = ("pending", "queued", "running", "processing", "validating", "importing")
FILE_UPLOADED = "uploaded"
FILE_BAD = ("error", "failed", "deleting", "deleted", "invalid_format", "invalid", "cancelled")
CHAT_URL: Final = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer with the tokens that are billed for it (None: the server does not say).

    `seconds` is how long its request took, without any that were refused before it, or how long
    that took when it was recorded; None: whoever asked knows as well.
    Of `tokens_in`, `cached_tokens_in` cost the cached price and `written_tokens_in` that of cache
    writes. `pause_seconds` is how long the provider's rate limit asks to wait before the next
    request.
    """

    text: str
    tokens_in: int | None = None
    tokens_out: int | None = None
    finish_reason: str | None = None
    seconds: float | None = None
    pause_seconds: float | None = None
    cached_tokens_in: int = 0
    written_tokens_in: int = 0


@dataclass(frozen=True, slots=True)
class Schedule:
    """What a job goes over and bills: so many epochs of the training examples, and so many times
    the validation examples (0 where they are free)."""

    epochs: int
    validations: int = 0

    def billed(self, training: int, validation: int) -> int:
        """Tokens billed in all, given those of both sets."""
        return training * self.epochs + validation * self.validations


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a provider thinks that a job will cost. `warning` is what else it says of it."""

    usd: float | None = None
    tokens: int | None = None
    warning: str | None = None


@dataclass(frozen=True, slots=True)
class JobSpec:
    """A fine-tuning job as it is asked for. `metadata` makes it known again, where jobs have any;
    `since` (seconds of the epoch) is when it was first meant to be created. What a provider has no
    word for, its `check` refuses."""

    model: str
    training_file: str
    validation_file: str | None
    suffix: str
    metadata: Mapping[str, str]
    since: float
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
    """A fine-tuning job as the provider shows it. `model` is the tuned one, once there is one;
    times are seconds of the epoch. `billed_usd` is what the provider says it billed, 0 for what it
    never bills; None: only the tokens are known."""

    id: str
    status: str
    model: str | None = None
    error: str | None = None
    trained_tokens: int | None = None
    billed_usd: float | None = None
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
    """A model that was kept on the way. Losses are nats a token; None where not measured."""

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
    """A model that an account has tuned, and what is known of it: the ids of the files it was tuned
    on and of its job, and the day from which it answers no more. `listed`: the account's list of
    models has it; one of a job that the list lacks was deleted, or has ended."""

    model: str
    base: str
    training_file: str | None = None
    validation_file: str | None = None
    job: str | None = None
    ends: datetime.date | None = None
    listed: bool = True


@dataclass(frozen=True, slots=True)
class Batch:
    """Requests that are answered together. `files` hold the answers and errors that there are;
    tokens are what was billed for all of them (None: only the answers say it)."""

    id: str
    status: str
    error: str | None = None
    total: int = 0
    done: int = 0
    files: tuple[str, ...] = ()
    tokens_in: int | None = None
    tokens_out: int | None = None


@dataclass(frozen=True, slots=True)
class BatchRow:
    """What became of one request of a batch: an answer, or an error (without a status it was never
    carried out)."""

    id: str
    status: int | None
    reply: Reply | None = None
    error: str | None = None
    code: str | None = None
    param: str | None = None


@dataclass(frozen=True, slots=True)
class FileState:
    """How far a provider is with an uploaded file; `status` in lower case, None where it does not
    say. `error` is what is wrong with one that can never be used; `size` is its bytes."""

    status: str | None
    error: str | None = None
    size: int | None = None


class Batches(Protocol):
    """Answers through batches, which cost less and take longer."""

    url: str

    def file_state(self, id: str) -> FileState:
        """Returns how far the provider is with a file of requests."""
        ...

    def find_file(self, name: str) -> str | None:
        """The id of an uploaded file of requests of this name."""
        ...

    def upload(self, path: Path) -> str:
        """Uploads a file of requests under its own name; its id."""
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
        """One line of a file of requests, as `Provider.chat` would ask it."""
        ...

    def adapted(self, row: BatchRow) -> bool:
        """Whether requests leave something out from now on that this one was refused for."""
        ...

    def find(self, metadata: Mapping[str, str], since: float) -> Batch | None:
        """The batch that an earlier try created, though its answer was lost."""
        ...

    def create(self, file: str, metadata: Mapping[str, str]) -> Batch:
        """Creates a batch: from here on it costs money."""
        ...

    def batch(self, id: str) -> Batch:
        """A batch as it is now."""
        ...

    def rows(self, batch: Batch) -> Iterator[BatchRow]:
        """What became of a finished batch's requests, in any order; those that were not come to
        are left out."""
        ...


class Provider(Protocol):
    """What a provider offers. Names of files are their identity: they hold a content's hash."""

    url: str
    reach: Reach

    def find_file(self, name: str) -> str | None:
        """The id of an uploaded training file of this name."""
        ...

    def upload(self, path: Path) -> str:
        """Uploads a training file under its own name; its id."""
        ...

    def file_state(self, id: str) -> FileState:
        """Returns how far the provider is with a training file."""
        ...

    def find_job(self, spec: JobSpec, taken: Sequence[str]) -> Job | None:
        """The job that an earlier try of this spec created, though its answer was lost; never one
        of the `taken`."""
        ...

    def estimate(self, spec: JobSpec) -> Estimate | None:
        """What the provider thinks that a job will cost; None where it does not say."""
        ...

    def create_job(self, spec: JobSpec) -> Job:
        """Creates a job: from here on it costs money."""
        ...

    def job(self, id: str) -> Job:
        """A job as it is now."""
        ...

    def cancel(self, id: str) -> Job:
        """Ends a job."""
        ...

    def events(self, id: str) -> list[Event]:
        """What happened to a job lately, the oldest first."""
        ...

    def checkpoints(self, id: str) -> list[Checkpoint]:
        """The models that a job kept, the earliest first."""
        ...

    def losses(self, job: Job) -> list[StepLoss]:
        """A finished job's metrics by step; none where the provider gives none."""
        ...

    def tuned_models(self) -> list[TunedModel]:
        """Returns what the account has tuned: what is listed first, then what only jobs show."""
        ...

    def has_jobs(self) -> bool | None:
        """Returns whether the account shows any fine-tuning job; None where it may not be seen."""
        ...

    def job_facts(self, id: str) -> dict[str, Any]:
        """Returns a job with all that the provider shows of it, and without the key."""
        ...

    def result_text(self, id: str) -> str:
        """Returns the text of a job's file of results, without the key."""
        ...

    def download(self, id: str) -> bytes:
        """The content of a file that is still there."""
        ...

    def chat(
        self,
        model: str,
        messages: Sequence[Mapping[str, str]],
        max_tokens: int | None = None,
        reasoning_effort: str | None = None,
        temperature: float | None = None,
    ) -> Reply:
        """Return one answer.

        Args:
            max_tokens: what it may take, its reasoning included.
            reasoning_effort: how much it is to reason; left out, as much as it does by itself.
            temperature: sent as it is; left out it is 0, or the model's own where it reasons.
        """
        ...

    def batches(self) -> Batches | None:
        """Its batches; None where it has none."""
        ...

    def close(self) -> None:
        """Ends its connections."""
        ...


def read_end_of_job(status: str, model: str | None, has_finished: bool) -> str:
    """Returns a job's state in our words: of a job at its end one of `FINISHED`.

    A provider that shows when a job finished has one that is at its end, whatever it calls the
    state; the tuned model then tells whether it succeeded. Known ends need no time.

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
    return word if word in WAITING else status


def read_end_of_batch(status: str, ends: Mapping[str, Any]) -> str:
    """Returns a batch's state in our words: of a batch at its end one of `BATCH_FINISHED`.

    Of a state that is not known here, the time of an end tells that it is one.

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
    id: str, base_url: str | None = None, key_variable: str | None = None, tape: Tape | None = None
) -> Provider:
    """The provider of an id.

    Args:
        base_url: where it is, unless at its own address.
        key_variable: the environment variable with the key, unless the provider's own.
        tape: what stands between it and the network (`providers/recording.py`), if anything.

    Raises:
        ConfigError: there is no such provider, or no key.
        MissingExtraError: its SDK is not installed.
    """
    return cast(Provider, module_of(id).connect(base_url, key_variable, tape))


def module_of(id: str) -> Any:
    """A provider's module.

    Raises:
        ConfigError: there is no such provider.
    """
    return discovery.find(__name__, id, "provider", NEEDS)


def pages(first: Any, most: int) -> Iterator[Any]:
    """The items of a listing, over at most so many pages of it. A server that knows no pages gives
    the same one again, where the listing ends."""
    page, begins = first, set[str]()
    for _ in range(most):
        items = page.data or ()
        if items and items[0].id in begins:
            return
        begins.update(item.id for item in items[:1])
        yield from items
        if not page.has_next_page():
            return
        page = page.get_next_page()
