"""Reads the metadata of a logged request: its time, its model, its user, its conversation."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

Places = Sequence[Mapping[str, Any]]

# Keys of the time of a request, or else of its response.
TIME_KEYS = (
    "request_created_at", "requested_at", "startTime", "start_time", "timestamp", "@timestamp",
    "created_at", "createdAt", "created", "time", "date", "response_created_at",
)  # fmt: skip
MODEL_KEYS = ("model", "response_model", "request_model", "provided_model_name")
USER_KEYS = (
    "user",
    "user_id",
    "userId",
    "end_user",
    "input_user",
    "request_user_id",
    "safety_identifier",
)
CONVERSATION_KEYS = (
    "conversation",
    "conversation_id",
    "session",
    "session_id",
    "sessionId",
    "thread_id",
    "Helicone-Session-Id",
)
# Keys of objects beside the request where tools keep their users' metadata.
METADATA_KEYS = ("metadata", "request_properties", "properties", "tags")
# Min seconds since 1970 of a time (in 2001). Smaller numbers are durations.
MIN_SECONDS = 1e9
# Numbers above these are milliseconds, microseconds, nanoseconds: as seconds they lie after the
# year 5138.
MIN_MILLISECONDS, MIN_MICROSECONDS, MIN_NANOSECONDS = 1e11, 1e14, 1e17
# Larger numbers are not nanoseconds either.
MAX_NANOSECONDS = MIN_NANOSECONDS * 1e3


def find_time(places: Places) -> float | None:
    """Return when a request was made, in seconds since 1970; None if it is not known."""
    for place in places:
        for key in TIME_KEYS:
            seconds = read_time(place.get(key))
            if seconds is not None:
                return seconds
    return None


def read_time(value: Any) -> float | None:
    """Return a time in seconds since 1970; None if the value is not a time.

    Args:
        value: a number of seconds, milli-, micro- or nanoseconds, or ISO 8601 (without a zone:
            UTC).
    """
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            value = _read_iso(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    for bound, unit in ((MIN_NANOSECONDS, 1e9), (MIN_MICROSECONDS, 1e6), (MIN_MILLISECONDS, 1e3)):
        if bound <= value < MAX_NANOSECONDS:
            value = value / unit
            break
    return float(value) if MIN_SECONDS <= value < MIN_MILLISECONDS else None


def _read_iso(text: str) -> float | None:
    """Return an ISO 8601 time in seconds since 1970; None if it is not one."""
    try:
        time = datetime.datetime.fromisoformat(text.strip().removesuffix(" UTC"))
        return (time if time.tzinfo else time.replace(tzinfo=datetime.UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def find_models(places: Places) -> tuple[str, ...]:
    """Return the names of the model that answered, each once."""
    return tuple(dict.fromkeys(_find_texts(places, MODEL_KEYS)))


def find_user(places: Places) -> str | None:
    """Return who asked; None if it is not known."""
    return next(_find_texts(_add_metadata(places), USER_KEYS), None)


def find_conversation(places: Places) -> str | None:
    """Return the id of a request's conversation; None if it is not known."""
    return next(_find_texts(_add_metadata(places), CONVERSATION_KEYS), None)


def has_value(value: Any) -> bool:
    """Return whether a value is present and not empty."""
    return value is not None and value is not False and value not in ("", [], {}, "none")


def _add_metadata(places: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the places, each followed by its objects of users' metadata."""
    objects = []
    for place in places:
        objects += [
            place,
            *(place[key] for key in METADATA_KEYS if isinstance(place.get(key), dict)),
        ]
    return objects


def _find_texts(places: Iterable[Mapping[str, Any]], keys: Sequence[str]) -> Iterator[str]:
    """Yield the values under keys as texts."""
    for place in places:
        for key in keys:
            value = place.get(key)
            if value is None:
                continue
            if isinstance(value, dict):  # the responses API: {"id": "conv_…"}
                value = value.get("id")
            if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
                yield str(value)
