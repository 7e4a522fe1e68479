"""What OpenAI's SDK returns, as our own types."""

from __future__ import annotations

import base64
import contextlib
import csv
import datetime
import io
import math
import re
from collections.abc import Mapping
from typing import Any

from tuneoff.providers.base import (
    FILE_FAILED,
    FileState,
    Job,
    JobSpec,
    StepLoss,
    normalize_job_status,
)

# Maximum clock skew between two machines. It matters only for jobs that show neither metadata nor
# suffix.
MAX_CLOCK_SKEW_SECONDS = 600
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]+={0,2}\s*")
_STEP = re.compile(r"Step (\d+)/(\d+)")


def parse_job(sdk_job: Any) -> Job:
    """Return the SDK's job as ours; servers leave out what they do not have.

    Raises:
        ValueError: it is no job.
    """
    if not (isinstance(sdk_job.id, str) and sdk_job.id and isinstance(sdk_job.status, str)):
        raise ValueError("what came is no fine-tuning job")
    numbers = sdk_job.hyperparameters or _find_hyperparameters(sdk_job)
    model = sdk_job.fine_tuned_model or None
    status = normalize_job_status(sdk_job.status, model, bool(sdk_job.finished_at))
    error = _parse_error(sdk_job.error)
    if error is None and status == "failed" and sdk_job.status.lower() != status:
        error = f"its state is {sdk_job.status!r}, and it shows no model"
    return Job(
        id=sdk_job.id,
        status=status,
        model=model,
        error=error,
        trained_tokens=sdk_job.trained_tokens,
        # A failed job is not billed.
        billed_usd=0.0 if status == "failed" and not sdk_job.trained_tokens else None,
        epochs=parse_number(getattr(numbers, "n_epochs", None)),
        batch_size=_parse_integer(getattr(numbers, "batch_size", None)),
        created_at=_parse_time(sdk_job.created_at),
        estimated_finish=parse_number(sdk_job.estimated_finish),
        finished_at=_parse_time(sdk_job.finished_at),
        training_file=sdk_job.training_file,
        metadata=sdk_job.metadata or {},
        result_files=tuple(sdk_job.result_files or ()),
    )


def _parse_error(error: Any) -> str | None:
    """Return an error's message, whatever its shape; None where it has none."""
    if isinstance(error, str):
        return error or None
    fields = error if isinstance(error, Mapping) else {"message": getattr(error, "message", None)}
    return str(fields["message"]) if fields.get("message") else None


def _parse_time(value: Any) -> float | None:
    """Return a time in seconds of the epoch; some servers write it as ISO 8601."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return datetime.datetime.fromisoformat(value).timestamp()
    return parse_number(value) or None


def parse_file_state(sdk_file: Any) -> FileState:
    """Return the state of a file as the SDK shows it; servers may leave out its status."""
    status = sdk_file.status.lower() if isinstance(sdk_file.status, str) else None
    details = getattr(sdk_file, "status_details", None)
    error = str(details) if details and status in FILE_FAILED else None
    return FileState(status or None, error, _parse_integer(getattr(sdk_file, "bytes", None)))


def _find_hyperparameters(sdk_job: Any) -> Any:
    """Return a job's hyperparameters where the job shows them under `method`."""
    method = sdk_job.method
    return getattr(getattr(method, "supervised", None), "hyperparameters", None)


def parse_step(message: str) -> tuple[int, int] | tuple[()]:
    """Return the two numbers of `Step 3/40: training loss=0.7`; empty for other messages."""
    match = _STEP.match(message)
    return (int(match[1]), int(match[2])) if match else ()


def is_match(sdk_job: Any, spec: JobSpec) -> bool:
    """Return whether a job without metadata may be this spec's, by its suffix and creation time.

    A suffix that is shown must be the same: unless the user chose it, it holds letters of the
    idempotency key.
    """
    suffix = getattr(sdk_job, "user_provided_suffix", None) or getattr(sdk_job, "suffix", None)
    old = sdk_job.created_at and sdk_job.created_at < spec.since - MAX_CLOCK_SKEW_SECONDS
    # A job of a model alias shows the dated model behind it.
    same = sdk_job.training_file == spec.training_file and sdk_job.model.startswith(spec.model)
    return same and suffix in (None, spec.suffix) and not old


def decode_text(content: bytes) -> str:
    """Return a result file's text, which comes plain or, from OpenAI, encoded as base64."""
    text = content.decode("utf-8", errors="replace")
    if _BASE64.fullmatch(text) and "," not in text:
        with contextlib.suppress(ValueError):
            return base64.b64decode(text).decode("utf-8", errors="replace")
    return text


def parse_losses(text: str) -> list[StepLoss]:
    """Return the steps of a result file; empty where it is no table of them."""
    losses = []
    for row in csv.DictReader(io.StringIO(text.lstrip("\ufeff"), newline="")):
        step = parse_number(row.get("step"))
        if step is None:
            return []
        validation = get_first(
            parse_number(row.get("full_valid_loss")), parse_number(row.get("valid_loss"))
        )
        losses.append(StepLoss(int(step), parse_number(row.get("train_loss")), validation))
    return losses


def parse_number(value: Any) -> float | None:
    """Return a finite number; None for anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _parse_integer(value: Any) -> int | None:
    """Return a number as an integer; None for anything else."""
    number = parse_number(value)
    return None if number is None else int(number)


def get_first(*values: float | None) -> float | None:
    """Return the first value that is not None."""
    return next((value for value in values if value is not None), None)
