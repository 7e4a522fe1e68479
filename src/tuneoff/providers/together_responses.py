"""Conversion of Together's objects into ours: jobs, events, metrics.

The SDK's three classes of a job (created, listed, retrieved) have different fields. States, event
kinds and metric names that its types do not list are passed through.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tuneoff.providers.base import JOB_FINISHED, Event, Job, JobSpec, StepLoss, normalize_job_status
from tuneoff.providers.http_errors import redact

MAX_CLOCK_SKEW_SECONDS = 120
NANODOLLARS_PER_USD = 1_000_000_000
STATUS_NAMES = {
    "pending": "queued",
    "cancel_requested": "cancelling",
    "completed": "succeeded",
    "error": "failed",
    "user_error": "failed",
}
_STEP_NAMES = ("train/global_step", "eval/global_step", "global_step", "step")
_TRAIN_LOSS_NAMES = ("train/loss", "train_loss", "loss")
_VALIDATION_LOSS_NAMES = ("eval/loss", "eval_loss", "eval/eval_loss", "validation/loss")


def parse_job(sdk_job: Any, key: str) -> Job:
    """Return the SDK's job, of any of its three classes, as ours."""
    given_status = str(getattr(sdk_job.status, "value", sdk_job.status))
    name = getattr(sdk_job, "x_model_output_name", None) or getattr(sdk_job, "output_name", None)
    events = sdk_job.events or []
    ends = (getattr(sdk_job, "finished_at", None), getattr(sdk_job, "completed_at", None))
    # The model's name is shown before the model exists.
    model = None if _find_error(events, key) else name
    status = STATUS_NAMES.get(given_status.lower()) or normalize_job_status(
        given_status, model, any(ends)
    )
    failed = status == "failed"
    price = parse_number(sdk_job.total_price)
    billed = None if price is None or failed else price / NANODOLLARS_PER_USD
    if failed and any(_get_event_kind(event) == "refund" for event in events):
        billed = 0.0
    early = getattr(sdk_job, "early_stopped", None)
    epochs = getattr(sdk_job, "epochs_completed", None) if early else sdk_job.n_epochs
    finished = status in JOB_FINISHED
    return Job(
        id=sdk_job.id,
        status=status,
        model=name if status == "succeeded" else None,
        error=_find_error(events, key) if failed else None,
        # For a failed job this is what it would have processed.
        trained_tokens=None if failed else sdk_job.token_count,
        billed_usd=billed,
        epochs=parse_number(epochs),
        # Examples are packed: a batch holds more of them than its size says.
        batch_size=None,
        created_at=_parse_time(sdk_job.created_at),
        finished_at=_parse_time(sdk_job.updated_at) if finished else None,
        training_file=sdk_job.training_file,
    )


def is_job_of_spec(sdk_job: Any, job: Job, spec: JobSpec) -> bool:
    """Return whether a listed job is this spec's."""
    if job.training_file != spec.training_file or sdk_job.model != spec.model:
        return False
    if job.created_at and job.created_at < spec.since - MAX_CLOCK_SKEW_SECONDS:
        return False
    named = sdk_job.suffix or sdk_job.x_model_output_name
    return named is None or spec.suffix in named


def parse_event(sdk_event: Any, key: str) -> Event:
    """Return the SDK's event as ours."""
    message = redact(str(sdk_event.message or _get_event_kind(sdk_event)), key)
    identity = f"{sdk_event.created_at} {_get_event_kind(sdk_event)} {message}"
    # Of the many kinds, only those that count steps move the progress bar.
    step = sdk_event.step if sdk_event.total_steps else None
    return Event(identity, message, step, sdk_event.total_steps or None)


def _get_event_kind(event: Any) -> str:
    """Return an event's kind in lower case."""
    kind = getattr(event, "type", None)
    return str(getattr(kind, "value", kind) or "").lower()


def _find_error(events: Sequence[Any], key: str) -> str | None:
    """Return the message of the last error event, with the key redacted; None if there is none."""
    messages = [event.message for event in events if _get_event_kind(event).endswith("error")]
    return redact(messages[-1], key) if messages else None


def _parse_time(value: Any) -> float | None:
    """Return a time in seconds of the epoch; None where there is none."""
    if isinstance(value, str):
        value = datetime.datetime.fromisoformat(value)
    return value.timestamp() if isinstance(value, datetime.datetime) else None


def parse_losses(rows: Iterable[Mapping[str, Any]]) -> list[StepLoss]:
    """Return losses by step; training and validation come in separate rows."""
    train: dict[int, float] = {}
    validation: dict[int, float] = {}
    for row in rows:
        step = _get_first(row, _STEP_NAMES)
        for losses, names in ((train, _TRAIN_LOSS_NAMES), (validation, _VALIDATION_LOSS_NAMES)):
            loss = _get_first(row, names)
            if step is not None and loss is not None:
                losses[int(step)] = loss
    steps = sorted(train.keys() | validation.keys())
    return [StepLoss(step, train.get(step), validation.get(step)) for step in steps]


def _get_first(row: Mapping[str, Any], names: Sequence[str]) -> float | None:
    """Return the first of these metrics that is a number."""
    values = (parse_number(row.get(name)) for name in names)
    return next((value for value in values if value is not None and value == value), None)


def parse_number(value: Any) -> float | None:
    """Return a number; None for anything else."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
