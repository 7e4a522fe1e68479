"""Lists an account's tuned models: when each ends, and which of its files still exist."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from tuneoff import environment
from tuneoff.bakeoff.migration.new_jobs import judge_new_jobs
from tuneoff.costs.price_book import build_price_book
from tuneoff.errors import ProviderError, RejectedError
from tuneoff.providers.base import Provider, TunedModel, connect
from tuneoff.providers.retries import retry, use_short_retries

CHECKPOINT_MARK = ":ckpt-"
# Max files that are looked up, and how many at once: an account may have thousands.
MAX_FILES, MAX_LOOKUPS = 1000, 8
GONE_STATUSES = ("deleting", "deleted")
HTTP_NOT_FOUND = 404


@dataclass(frozen=True, slots=True)
class ProviderAccount:
    """The provider account that has the tuned models."""

    provider: str = "openai"
    base_url: str | None = None
    key_variable: str | None = None

    def connect(self) -> Provider:
        """Return the provider; raise ConfigError without a key."""
        return connect(self.provider, self.base_url, self.key_variable)

    def written(self) -> dict[str, str]:
        """Return the account as a contender's keys."""
        keys = {"provider": self.provider, "base_url": self.base_url}
        keys["key_variable"] = self.key_variable
        return {key: value for key, value in keys.items() if value is not None}

    def is_in_book(self) -> bool:
        """Return whether the price book's days apply: at the provider's own address."""
        return self.base_url is None or self.provider == "azure"


@dataclass(frozen=True, slots=True)
class EndDate:
    """The end of a model."""

    day: datetime.date | None = None
    """The first day on which it no longer answers."""
    said_by: str | None = None
    """Who says so: `provider` or `price book`."""
    replacement: str | None = None
    """The model that its provider names instead."""


def list_models(source: ProviderAccount, today: datetime.date | None = None) -> dict[str, Any]:
    """Return an account's tuned models, and whether it can tune new ones.

    Those that end first come first. Nothing is downloaded, and no job is created.

    Returns:
        `models`: of each `model`, `base`, `ends`, `ends_source` (`provider`, `price book`),
            `days_left`, `replacement`, `checkpoints`, `listed`, `job`, and of both files the id
            (`training_file`) and whether it exists (`training_file_there`; None: not known).
            `new_jobs`: see `judge_new_jobs`.
    """
    today = today or environment.today()
    with closing(source.connect()) as provider:
        models = find_models(provider, source, today)
        has_jobs = retry(provider.has_jobs)
        there = _check_files(provider, source, [each for each, _ in models])
    rows = [_build_row(each, checkpoints, source, there, today) for each, checkpoints in models]
    return {
        "models": rows,
        "new_jobs": judge_new_jobs(
            source.provider, source.base_url, True if rows and has_jobs is False else has_jobs,
            [row["base"] for row in rows], build_price_book(), today,
        ),
    }  # fmt: skip


def find_models(
    provider: Provider, source: ProviderAccount, today: datetime.date
) -> list[tuple[TunedModel, list[str]]]:
    """Return an account's tuned models with their checkpoints, those that end first at the top.

    A model that only a job shows counts if its end is past; before its end, its owner deleted it.
    """
    every = retry(provider.tuned_models)
    listed = [each for each in every if each.listed]
    ended = [each for each in every if not each.listed and has_ended(each, source, today)]
    names = {each.model for each in (*listed, *ended)}
    checkpoints: dict[str, list[TunedModel]] = {}
    for each in listed:
        whole = each.model.partition(CHECKPOINT_MARK)[0]
        if whole != each.model and whole in names:
            checkpoints.setdefault(whole, []).append(each)
    of_others = {each.model for some in checkpoints.values() for each in some}
    models = [each for each in (*listed, *ended) if each.model not in of_others]
    models.sort(key=lambda each: (find_end(each, source).day or datetime.date.max, each.model))
    return [(each, _sort_by_step(checkpoints.get(each.model, ()))) for each in models]


def _sort_by_step(checkpoints: Sequence[TunedModel]) -> list[str]:
    """Return the names of checkpoints by their steps."""

    def step(name: str) -> tuple[int, str]:
        last = name.rpartition("-")[2]
        return (int(last) if last.isdecimal() else 0), name

    return sorted((each.model for each in checkpoints), key=step)


def find_end(model: TunedModel, source: ProviderAccount) -> EndDate:
    """Return when a model ends, by its provider, else by the price book."""
    known = (
        build_price_book().find_model_end(source.provider, model.base, tuned=True)
        if source.is_in_book()
        else None
    )
    replacement = known.replacement if known else None
    if model.ends is not None:
        return EndDate(model.ends, "provider", replacement)
    if known is not None:
        return EndDate(known.ends, "price book", replacement)
    return EndDate()


def has_ended(model: TunedModel, source: ProviderAccount, today: datetime.date) -> bool:
    """Return whether a model has ended."""
    day = find_end(model, source).day
    return day is not None and day <= today


def _check_files(
    provider: Provider, source: ProviderAccount, models: Sequence[TunedModel]
) -> Mapping[str, bool]:
    """Return whether files exist, by id; unknown ones are left out."""
    wanted = [id for each in models for id in (each.training_file, each.validation_file) if id]
    ids = list(dict.fromkeys(wanted))[:MAX_FILES]
    with ThreadPoolExecutor(MAX_LOOKUPS) as pool:
        looked = pool.map(lambda id: _has_file(provider, id), ids)
        by_id = {id: there for id, there in zip(ids, looked, strict=True) if there is not None}
    # A server that knows none of them may not have this route.
    own = source.base_url is not None and source.provider != "azure"
    return {} if own and not any(by_id.values()) else by_id


def _has_file(provider: Provider, id: str) -> bool | None:
    """Return whether a file exists; None if that is not known."""
    try:
        with use_short_retries():
            return retry(lambda: provider.file_state(id)).status not in GONE_STATUSES
    except RejectedError as error:
        return False if error.status == HTTP_NOT_FOUND else None
    except ProviderError:
        return None


def _build_row(
    model: TunedModel,
    checkpoints: list[str],
    source: ProviderAccount,
    there: Mapping[str, bool],
    today: datetime.date,
) -> dict[str, Any]:
    """Return a model's facts as plain values."""
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
