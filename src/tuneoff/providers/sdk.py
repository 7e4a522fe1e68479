"""What the official SDKs have in common: errors by status, headers that say when to come back,
and keys that must not be told.

The SDKs of OpenAI and Together come from one generator, so their exceptions look alike; they are
told apart by what they carry (`status_code`, `response`), not by their classes.
"""

from __future__ import annotations

import email.utils
import ipaddress
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from tuneoff.errors import (
    BusyError,
    ConfigError,
    LostError,
    ProviderError,
    RefusedError,
    UnreachableError,
)
from tuneoff.providers.reach import Reach, why_no_connection

HIDDEN = "[key]"
LONGEST_MESSAGE = 500
# A definite no; whatever else is no success may have been carried out.
REFUSALS = (400, 401, 402, 403, 404, 405, 406, 410, 411, 413, 414, 415, 422)
LONGEST_PAUSE = 600.0
UNREADABLE = (OSError, ValueError, TypeError, AttributeError, LookupError)
_RUN = re.compile(r"[^\s'\"]+")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def key_of(variable: str, base_url: str | None, needed: bool) -> str:
    """The key from the environment, which is the only place one is looked for.

    Raises:
        ConfigError: it is needed and not there, or cannot be one.
    """
    key = os.environ.get(variable, "").strip()
    if not key and needed:
        where = f" for {base_url}" if base_url else ""
        raise ConfigError(f"{variable} is not set{where}; export your key, or give a base_url.")
    if not key.isascii() or any(character.isspace() for character in key):
        raise ConfigError(f"{variable} holds something that is no key; export it again.")
    return key


@contextmanager
def calling(reach: Reach, key: str, what: str) -> Iterator[None]:
    """Around one call of an SDK: what goes wrong becomes one of our errors.

    Raises:
        RefusedError, BusyError, LostError: as the provider answered, or did not.
    """
    try:
        yield
    except ProviderError:
        raise
    except Exception as error:
        found = _unreachable(error, reach, key, what) or _translated(error, reach.url, key, what)
        if found is None:
            raise
        if isinstance(found, RefusedError):
            reach.answered()
        elif not isinstance(found, UnreachableError):
            reach.seen = True
        found.tell = reach.tell
        raise found from None
    else:
        reach.answered()


def _unreachable(error: Exception, reach: Reach, key: str, what: str) -> UnreachableError | None:
    broken = None
    if not isinstance(getattr(error, "status_code", None), int):
        broken = why_no_connection(error, reach.url)
    if broken is None:
        return None
    why, certain = broken
    advice = ""
    if not reach.seen:
        here = "start the server, or mend base_url"
        away = "is this machine online, and is the address right?"
        advice = f" (nothing has answered there yet: {here if is_here(reach.url) else away})"
    why = hidden(why.splitlines()[0], key)[:LONGEST_MESSAGE]
    return UnreachableError(f"{reach.url}: {what}: {why}{advice}", reach.seen, certain)


def _translated(error: Exception, url: str, key: str, what: str) -> ProviderError | None:
    status, details = getattr(error, "status_code", None), _details(error)
    text = f"{url}: {what}: {_message(error, details, key)}"
    if status == 404 and not urlsplit(url).path.strip("/"):
        text += " (the address of such an API mostly ends in /v1)"
    if isinstance(status, int) and status >= 400:
        code, param = details.get("code"), details.get("param")
        if status in REFUSALS or code == "insufficient_quota":
            return RefusedError(text, status, code, param)
        if status in (429, 503):
            headers = error.response.headers  # type: ignore[attr-defined]
            return BusyError(text, retry_after(headers), status)
        return LostError(text, status)
    if isinstance(error, UnicodeEncodeError):
        return RefusedError(f"{url}: {what}: half a surrogate pair is no text", 400)
    # No status: the connection broke, time ran out, or what came is not what the API describes.
    # The SDK does not check that: it hands out text where an object should be, and objects whose
    # parts are missing.
    if hasattr(error, "request") or isinstance(error, UNREADABLE):
        return LostError(text)
    return None


def _details(error: Exception) -> Mapping[str, Any]:
    """The `error` object of a response's body; of the two SDKs one has taken it out already."""
    body = getattr(error, "body", None)
    inner = body.get("error", body) if isinstance(body, dict) else None
    return inner if isinstance(inner, dict) else {}


def _message(error: Exception, details: Mapping[str, Any], key: str) -> str:
    if isinstance(error, json.JSONDecodeError | TypeError | AttributeError | LookupError):
        return "its answer is not what the API describes"
    first = (str(details.get("message") or error).strip() or type(error).__name__).splitlines()[0]
    return hidden(first, key)[:LONGEST_MESSAGE]


def hidden(text: str, key: str) -> str:
    """A text that a server sent, without the key that it may have sent back: whole, its end alone,
    or its end after stars or dots."""
    if len(key) < 8:
        return text
    text = text.replace(key, HIDDEN).replace(key[-8:], HIDDEN)
    end = key[-4:]
    masked = re.compile(rf"(?:[*•…]|\.\.\.){re.escape(end)}")

    def struck(run: re.Match[str]) -> str:
        """A run of signs without its part up to the last masked end. Looked for run by run: a
        pattern that begins with any sign takes quadratic time."""
        *_, last = [None, *masked.finditer(run[0])]
        return run[0] if last is None else HIDDEN + run[0][last.end() :]

    return _RUN.sub(struck, text) if end in text else text


def hidden_in(value: Any, key: str) -> Any:
    """Return what a server sent, texts within it without the key that it may have sent back."""
    if isinstance(value, str):
        return hidden(value, key)
    if isinstance(value, dict):
        return {hidden(str(name), key): hidden_in(inner, key) for name, inner in value.items()}
    return [hidden_in(inner, key) for inner in value] if isinstance(value, list) else value


def retry_after(headers: Mapping[str, str]) -> float | None:
    """How many seconds a provider asks to wait: `retry-after-ms`, or `Retry-After` as seconds or
    as a date; None where it says nothing that can be read."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return _bounded(milliseconds / 1000)
    written = headers.get("retry-after")
    seconds = _number(written)
    if seconds is None and written:
        seconds = _until(written)
    return None if seconds is None else _bounded(seconds)


def pause_of(headers: Mapping[str, str]) -> float | None:
    """How long to wait because a rate limit is used up (`x-ratelimit-…` headers; Together counts
    requests alone, without saying so); None if not."""
    waits = [
        _seconds(headers.get(f"x-ratelimit-reset{what}", ""))
        for what in ("-requests", "-tokens", "")
        if _number(headers.get(f"x-ratelimit-remaining{what}")) == 0
    ]
    return _bounded(max(waits)) if waits else None


def _until(written: str) -> float | None:
    """Seconds until a date; None if it is none (or one of the year 99999)."""
    date = email.utils.parsedate_tz(written)
    try:
        return email.utils.mktime_tz(date) - time.time() if date else None
    except (ValueError, OverflowError):
        return None


def _seconds(written: str) -> float:
    """`6m0s`, `120ms` or a plain number as seconds."""
    plain = _number(written)
    if plain is not None:
        return plain
    return sum(float(count) * _UNITS[unit] for count, unit in _DURATION.findall(written))


def _number(written: str | None) -> float | None:
    try:
        return float(written) if written else None
    except ValueError:
        return None


def _bounded(seconds: float) -> float:
    return min(max(seconds, 0.0), LONGEST_PAUSE) if seconds == seconds else 0.0


def is_here(base_url: str) -> bool:
    """Whether an address is this machine's own."""
    host = urlsplit(base_url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
