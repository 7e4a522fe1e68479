"""The tuned models of an account, from what OpenAI's API lists of its models and its jobs."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterable
from typing import Any

from tuneoff.providers import TunedModel

TUNED, CHECKPOINT = "ft:", ":ckpt-"


def join_models(listed: Iterable[Any], jobs: Iterable[Any]) -> list[TunedModel]:
    """Return the tuned models that are listed, then those of jobs that are listed no more.

    Azure's names of tuned models have no `ft:`; there the jobs tell which are tuned. A model whose
    job is not among the jobs is there with what its name says.

    Args:
        listed: the SDK's models.
        jobs: the SDK's fine-tuning jobs.
    """
    there = {each.id: each for each in listed}
    made = {job.fine_tuned_model: job for job in jobs if job.fine_tuned_model}
    tuned = [name for name in there if name.startswith(TUNED) or _whole(name) in made]
    gone = [name for name in made if name not in there]
    found = [_join(name, made.get(_whole(name)), there[name]) for name in tuned]
    return found + [_join(name, made[name], None) for name in gone]


def _whole(name: str) -> str:
    """Return the model that a checkpoint (`…:ckpt-step-8`) is of; another name is its own."""
    return name.partition(CHECKPOINT)[0]


def _join(name: str, job: Any, listed: Any) -> TunedModel:
    ends = read_day(getattr(listed, "shutdown_date", None))
    if job is None:
        # `ft:BASE:ORGANIZATION:SUFFIX:ID`
        return TunedModel(name, name.split(":")[1], ends=ends)
    return TunedModel(
        name, job.model, job.training_file, job.validation_file, job.id, ends, listed is not None
    )


def read_day(value: Any) -> datetime.date | None:
    """Return the day that a server names; None where there is none that can be read.

    OpenAI writes `YYYY-MM-DD` (its deprecations page, November 2026); a time written out and
    seconds of the epoch are read, too, as days in UTC.
    """
    with contextlib.suppress(ValueError, OverflowError, OSError):
        if isinstance(value, str):
            time = datetime.datetime.fromisoformat(value)
            return (time if time.tzinfo is None else time.astimezone(datetime.UTC)).date()
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
            return datetime.datetime.fromtimestamp(value, datetime.UTC).date()
    return None
