"""The tuned models of an account: when each ends, and what is still there of it."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from tuneoff import machine
from tuneoff.costs.pricebook import book
from tuneoff.errors import ProviderError, RefusedError
from tuneoff.migration.new_jobs import judge_new_jobs
from tuneoff.providers import Provider, TunedModel, connect
from tuneoff.providers.calls import impatient, repeated

CHECKPOINT = ":ckpt-"
# So many files are looked at, so many at once: an account may have thousands.
MOST_FILES, LOOKS_AT_ONCE = 1000, 8
GONE = ("deleting", "deleted")
NOT_THERE = 404


@dataclass(frozen=True, slots=True)
class Source:
    """Where the tuned models are."""

    provider: str = "openai"
    base_url: str | None = None
    key_variable: str | None = None

    def connect(self) -> Provider:
        """Return the provider; raises ConfigError without a key."""
        return connect(self.provider, self.base_url, self.key_variable)

    def written(self) -> dict[str, str]:
        """Return it as a contender's keys."""
        found = {"provider": self.provider, "base_url": self.base_url}
        found["key_variable"] = self.key_variable
        return {key: value for key, value in found.items() if value is not None}

    def is_in_book(self) -> bool:
        """Say whether the price book's days hold there: at the provider's own address."""
        return self.base_url is None or self.provider == "azure"


@dataclass(frozen=True, slots=True)
class Ending:
    """The day from which a model answers no more, who says so, and what its provider names
    instead."""

    day: datetime.date | None = None
    said_by: str | None = None
    replacement: str | None = None


def list_models(source: Source, today: datetime.date | None = None) -> dict[str, Any]:
    """List an account's tuned models, those that end first at the top, and say whether it can
    tune new ones. Nothing is downloaded, and no job is created.

    Returns:
        `models`: of each `model`, `base`, `ends`, `ends_source` (`provider`, `price book`),
        `days_left`, `replacement`, `checkpoints`, `listed`, `job`, and of both files the id
        (`training_file`) and whether it is there (`training_file_there`; None: not known).
        `new_jobs`: see `judge_new_jobs`.
    """
    today = today or machine.today()
    with closing(source.connect()) as provider:
        models = find_models(provider, source, today)
        has_jobs = repeated(provider.has_jobs)
        there = _look_at_files(provider, source, [each for each, _ in models])
    rows = [_row(each, checkpoints, source, there, today) for each, checkpoints in models]
    return {
        "models": rows,
        "new_jobs": judge_new_jobs(
            source.provider, source.base_url, True if rows and has_jobs is False else has_jobs,
            [row["base"] for row in rows], book(), today,
        ),
    }  # fmt: skip


def find_models(
    provider: Provider, source: Source, today: datetime.date
) -> list[tuple[TunedModel, list[str]]]:
    """Return an account's tuned models with their checkpoints, those that end first at the top.

    A model that only a job shows counts when its day is past; before, its owner deleted it.
    """
    every = repeated(provider.tuned_models)
    listed = [each for each in every if each.listed]
    ended = [each for each in every if not each.listed and has_ended(each, source, today)]
    names = {each.model for each in (*listed, *ended)}
    checkpoints: dict[str, list[TunedModel]] = {}
    for each in listed:
        whole = each.model.partition(CHECKPOINT)[0]
        if whole != each.model and whole in names:
            checkpoints.setdefault(whole, []).append(each)
    of_others = {each.model for some in checkpoints.values() for each in some}
    found = [each for each in (*listed, *ended) if each.model not in of_others]
    found.sort(key=lambda each: (find_end(each, source).day or datetime.date.max, each.model))
    return [(each, _in_order(checkpoints.get(each.model, ()))) for each in found]


def _in_order(checkpoints: Sequence[TunedModel]) -> list[str]:
    """Return the names of checkpoints by their steps."""

    def step(name: str) -> tuple[int, str]:
        last = name.rpartition("-")[2]
        return (int(last) if last.isdecimal() else 0), name

    return sorted((each.model for each in checkpoints), key=step)


def find_end(model: TunedModel, source: Source) -> Ending:
    """Return when a model ends by its provider's word, else by the price book's."""
    known = book().end_of(source.provider, model.base, tuned=True) if source.is_in_book() else None
    replacement = known.replacement if known else None
    if model.ends is not None:
        return Ending(model.ends, "provider", replacement)
    if known is not None:
        return Ending(known.ends, "price book", replacement)
    return Ending()


def has_ended(model: TunedModel, source: Source, today: datetime.date) -> bool:
    """Say whether a model's day has come."""
    day = find_end(model, source).day
    return day is not None and day <= today


def _look_at_files(
    provider: Provider, source: Source, models: Sequence[TunedModel]
) -> Mapping[str, bool]:
    """Say of files whether they are there; those of which it is not known are left out."""
    wanted = [id for each in models for id in (each.training_file, each.validation_file) if id]
    ids = list(dict.fromkeys(wanted))[:MOST_FILES]
    with ThreadPoolExecutor(LOOKS_AT_ONCE) as pool:
        looked = pool.map(lambda id: _is_there(provider, id), ids)
        found = {id: there for id, there in zip(ids, looked, strict=True) if there is not None}
    # A server that knows none of them may not know the question.
    own = source.base_url is not None and source.provider != "azure"
    return {} if own and not any(found.values()) else found


def _is_there(provider: Provider, id: str) -> bool | None:
    try:
        with impatient():
            return repeated(lambda: provider.file_state(id)).status not in GONE
    except RefusedError as error:
        return False if error.status == NOT_THERE else None
    except ProviderError:
        return None


def _row(
    model: TunedModel,
    checkpoints: list[str],
    source: Source,
    there: Mapping[str, bool],
    today: datetime.date,
) -> dict[str, Any]:
    end = find_end(model, source)
    return {
        "model": model.model,
        "base": model.base,
        "ends": end.day.isoformat() if end.day else None,
        "ends_source": end.said_by,
        "days_left": (end.day - today).days if end.day else None,
        "replacement": end.replacement,
        "checkpoints": checkpoints,
        "listed": model.listed,
        "job": model.job,
        "training_file": model.training_file,
        "training_file_there": there.get(model.training_file or ""),
        "validation_file": model.validation_file,
        "validation_file_there": there.get(model.validation_file or ""),
    }
