"""What a logged request says about itself: its time, its model, its user, its conversation."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

Places = Sequence[Mapping[str, Any]]

# The keys under which tools write when a request was made, or else answered.
TIMES = (
    "request_created_at", "requested_at", "startTime", "start_time", "timestamp", "@timestamp",
    "created_at", "createdAt", "created", "time", "date", "response_created_at",
)  # fmt: skip
MODELS = ("model", "response_model", "request_model", "provided_model_name")
USERS = (
    "user",
    "user_id",
    "userId",
    "end_user",
    "input_user",
    "request_user_id",
    "safety_identifier",
)
CONVERSATIONS = (
    "conversation",
    "conversation_id",
    "session",
    "session_id",
    "sessionId",
    "thread_id",
    "Helicone-Session-Id",
)
# Objects beside the request in which tools keep what their users add.
ADDED = ("metadata", "request_properties", "properties", "tags")
# Smaller numbers of seconds are no times of a log, but durations: this is in 2001.
EARLIEST = 1e9
# Numbers above these are milliseconds, microseconds, nanoseconds: as seconds they lie after 5138.
MILLI, MICRO, NANO = 1e11, 1e14, 1e17
# Larger numbers are no nanoseconds either.
LATEST = NANO * 1e3


def find_time(places: Places) -> float | None:
    """Returns when a request was made, in seconds since 1970; None where no place says so."""
    for place in places:
        for key in TIMES:
            seconds = read_time(place.get(key))
            if seconds is not None:
                return seconds
    return None


def read_time(value: Any) -> float | None:
    """Returns a time in seconds since 1970; None where it is none.

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
    for bound, unit in ((NANO, 1e9), (MICRO, 1e6), (MILLI, 1e3)):
        if bound <= value < LATEST:
            value = value / unit
            break
    return float(value) if EARLIEST <= value < MILLI else None


def _read_iso(text: str) -> float | None:
    try:
        time = datetime.datetime.fromisoformat(text.strip().removesuffix(" UTC"))
        return (time if time.tzinfo else time.replace(tzinfo=datetime.UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def find_models(places: Places) -> tuple[str, ...]:
    """Returns the names of the model that answered, each once."""
    return tuple(dict.fromkeys(_texts(places, MODELS)))


def find_user(places: Places) -> str | None:
    """Returns who asked; None where no place says so."""
    return next(_texts(_with_added(places), USERS), None)


def find_conversation(places: Places) -> str | None:
    """Returns which conversation a request belongs to; None where no place says so."""
    return next(_texts(_with_added(places), CONVERSATIONS), None)


def says_something(value: Any) -> bool:
    """Says whether a value is there and not empty."""
    return value is not None and value is not False and value not in ("", [], {}, "none")


def _with_added(places: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    found = []
    for place in places:
        found += [place, *(place[key] for key in ADDED if isinstance(place.get(key), dict))]
    return found


def _texts(places: Iterable[Mapping[str, Any]], keys: Sequence[str]) -> Iterator[str]:
    for place in places:
        for key in keys:
            value = place.get(key)
            if value is None:
                continue
            if isinstance(value, dict):  # the responses API: {"id": "conv_…"}
                value = value.get("id")
            if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
                yield str(value)
