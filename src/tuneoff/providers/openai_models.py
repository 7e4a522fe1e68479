"""The tuned models of an account, from the models and jobs that OpenAI's API lists."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterable
from typing import Any

from tuneoff.providers.base import TunedModel

TUNED_PREFIX, CHECKPOINT_MARK = "ft:", ":ckpt-"


def join_models(listed: Iterable[Any], jobs: Iterable[Any]) -> list[TunedModel]:
    """Return the tuned models that are listed, then those of jobs that are no longer listed.

    Azure's names of tuned models have no `ft:`; there the jobs show which models are tuned. A model
    whose job is missing is described by its name alone.

    Args:
        listed: the SDK's models.
        jobs: the SDK's fine-tuning jobs.
    """
    listed_by_name = {listed_model.id: listed_model for listed_model in listed}
    job_by_model = {job.fine_tuned_model: job for job in jobs if job.fine_tuned_model}
    tuned = [
        name
        for name in listed_by_name
        if name.startswith(TUNED_PREFIX) or _strip_checkpoint(name) in job_by_model
    ]
    gone = [name for name in job_by_model if name not in listed_by_name]
    listed_models = [
        _build_tuned_model(name, job_by_model.get(_strip_checkpoint(name)), listed_by_name[name])
        for name in tuned
    ]
    return listed_models + [_build_tuned_model(name, job_by_model[name], None) for name in gone]


def _strip_checkpoint(name: str) -> str:
    """Return the model that a checkpoint (`…:ckpt-step-8`) belongs to; another name is its own."""
    return name.partition(CHECKPOINT_MARK)[0]


def _build_tuned_model(name: str, job: Any, listed: Any) -> TunedModel:
    """Return a tuned model from its listing and its job, either of which may be missing."""
    ends = parse_day(getattr(listed, "shutdown_date", None))
    if job is None:
        # `ft:BASE:ORGANIZATION:SUFFIX:ID`
        return TunedModel(name, name.split(":")[1], ends=ends)
    return TunedModel(
        name, job.model, job.training_file, job.validation_file, job.id, ends, listed is not None
    )


def parse_day(value: Any) -> datetime.date | None:
    """Return the day that a server names; None where it cannot be read.

    OpenAI writes `YYYY-MM-DD` (its deprecations page, November 2026). An ISO 8601 time and seconds
    of the epoch are read, too, as days in UTC.
    """
    with contextlib.suppress(ValueError, OverflowError, OSError):
        if isinstance(value, str):
            time = datetime.datetime.fromisoformat(value)
            return (time if time.tzinfo is None else time.astimezone(datetime.UTC)).date()
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
            return datetime.datetime.fromtimestamp(value, datetime.UTC).date()
    return None
