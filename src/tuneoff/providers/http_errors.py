"""What the official SDKs share: errors by HTTP status, headers that say when to retry, and
redaction of keys.

The SDKs of OpenAI and Together come from one generator, so their exceptions look alike. They are
recognized by their attributes (`status_code`, `response`), not by their classes. `ConnectionStatus`
knows whether a provider's server answers, and shows one line while it does not.
"""

from __future__ import annotations

import email.utils
import ipaddress
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from tuneoff.errors import (
    ConfigError,
    ProviderError,
    RateLimitedError,
    RejectedError,
    UnknownOutcomeError,
    UnreachableError,
)

# Seconds between two lines about a server that comes and goes.
REPORT_AGAIN_SECONDS = 60.0
# Names of HTTP libraries for a connection that could not be made.
CONNECTION_ERRORS = ("ConnectError", "ConnectTimeout")


class ConnectionStatus:
    """The status of one connection's server. May be used by many threads."""

    def __init__(self, url: str) -> None:
        self.url = url
        # Whether it has ever answered anything.
        self.seen = False
        self._say: Callable[[str], None] | None = None
        self._told: float | None = None
        self._over = False
        self._lock = threading.Lock()

    def set_listener(self, say: Callable[[str], None], seen: bool) -> None:
        """Set who hears about outages, and whether the server has answered an earlier command."""
        self._say, self.seen = say, self.seen or seen

    def answered(self) -> None:
        """Record that the server answered, be it with a rejection."""
        self.seen = self._over = True

    def tell(self, line: str) -> None:
        """Report an outage, unless it was reported already."""
        with self._lock:
            now = time.monotonic()
            new = self._told is None or (self._over and now - self._told >= REPORT_AGAIN_SECONDS)
            if not new or self._say is None:
                return
            self._told, self._over = now, False
        self._say(line)


def explain_no_connection(error: BaseException, url: str) -> tuple[str, bool] | None:
    """Return why no connection to `url` was made, and whether certainly nothing was executed.

    None where a connection was made. After a redirect it is not certain: the redirect leads
    elsewhere, or turns the request into a GET.
    """
    chain = list(_walk_causes(error))
    broken = next((cause for cause in chain if type(cause).__name__ in CONNECTION_ERRORS), None)
    if broken is None:
        return None
    try:
        method, request_url = broken.request.method, str(broken.request.url)  # type: ignore[attr-defined]
    except (AttributeError, RuntimeError):  # httpx raises this where it knows no request
        return None
    if urlsplit(request_url)[:2] != urlsplit(url)[:2]:
        return None
    deepest = next((cause for cause in reversed(chain) if isinstance(cause, OSError)), chain[-1])
    why = str(getattr(deepest, "strerror", None) or deepest) or "no connection"
    return why, method == "POST"


def _walk_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and the chain of its causes, up to an error that was being handled."""
    current: BaseException | None = error
    while current is not None and not isinstance(current, ProviderError | KeyboardInterrupt):
        yield current
        current = current.__cause__ or (
            None if current.__suppress_context__ else current.__context__
        )


REDACTED = "[key]"
MAX_MESSAGE_LENGTH = 500
# Statuses of a final rejection. A request with any other error may have been carried out.
REJECTED_STATUSES = (400, 401, 402, 403, 404, 405, 406, 410, 411, 413, 414, 415, 422)
MAX_PAUSE_SECONDS = 600.0
UNREADABLE = (OSError, ValueError, TypeError, AttributeError, LookupError)
_RUN = re.compile(r"[^\s'\"]+")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def load_key(variable: str, base_url: str | None, needed: bool) -> str:
    """Return the key from the environment, the only place where one is looked for.

    Raises:
        ConfigError: it is needed and missing, or cannot be a key.
    """
    key = os.environ.get(variable, "").strip()
    if not key and needed:
        where = f" for {base_url}" if base_url else ""
        raise ConfigError(f"{variable} is not set{where}; export your key, or give a base_url.")
    if not key.isascii() or any(character.isspace() for character in key):
        raise ConfigError(f"{variable} holds something that is no key; export it again.")
    return key


@contextmanager
def translate_errors(reach: ConnectionStatus, key: str, what: str) -> Iterator[None]:
    """Translate the errors of one SDK call into ours while inside.

    Raises:
        RejectedError, RateLimitedError, UnknownOutcomeError: as the provider answered, or did not.
    """
    try:
        yield
    except ProviderError:
        raise
    except Exception as error:
        translated = _build_unreachable_error(error, reach, key, what) or _translate_error(
            error, reach.url, key, what
        )
        if translated is None:
            raise
        if isinstance(translated, RejectedError):
            reach.answered()
        elif not isinstance(translated, UnreachableError):
            reach.seen = True
        translated.tell = reach.tell
        raise translated from None
    else:
        reach.answered()


def _build_unreachable_error(
    error: Exception, reach: ConnectionStatus, key: str, what: str
) -> UnreachableError | None:
    """Return the error of a connection that could not be made; None for any other error."""
    failure = None
    if not isinstance(getattr(error, "status_code", None), int):
        failure = explain_no_connection(error, reach.url)
    if failure is None:
        return None
    why, certain = failure
    advice = ""
    if not reach.seen:
        here = "start the server, or mend base_url"
        away = "is this machine online, and is the address right?"
        advice = f" (nothing has answered there yet: {here if is_loopback(reach.url) else away})"
    why = redact(why.splitlines()[0], key)[:MAX_MESSAGE_LENGTH]
    return UnreachableError(f"{reach.url}: {what}: {why}{advice}", reach.seen, certain)


def _translate_error(error: Exception, url: str, key: str, what: str) -> ProviderError | None:
    """Return an SDK's error as one of ours; None for an error that is not the SDK's."""
    status, details = getattr(error, "status_code", None), _get_details(error)
    text = f"{url}: {what}: {_build_message(error, details, key)}"
    if status == 404 and not urlsplit(url).path.strip("/"):
        text += " (the address of such an API mostly ends in /v1)"
    if isinstance(status, int) and status >= 400:
        code, param = details.get("code"), details.get("param")
        if status in REJECTED_STATUSES or code == "insufficient_quota":
            return RejectedError(text, status, code, param)
        if status in (429, 503):
            headers = error.response.headers  # type: ignore[attr-defined]
            return RateLimitedError(text, parse_retry_after(headers), status)
        return UnknownOutcomeError(text, status)
    if isinstance(error, UnicodeEncodeError):
        return RejectedError(f"{url}: {what}: half a surrogate pair is no text", 400)
    # No status: the connection broke, timed out, or the answer is not what the API describes. The
    # SDK does not check that: it returns text instead of an object, and objects whose parts are
    # missing.
    if hasattr(error, "request") or isinstance(error, UNREADABLE):
        return UnknownOutcomeError(text)
    return None


def _get_details(error: Exception) -> Mapping[str, Any]:
    """Return the `error` object of a response's body; one of the SDKs has unpacked it already."""
    body = getattr(error, "body", None)
    inner = body.get("error", body) if isinstance(body, dict) else None
    return inner if isinstance(inner, dict) else {}


def _build_message(error: Exception, details: Mapping[str, Any], key: str) -> str:
    """Return the first line of an error's message, with the key redacted."""
    if isinstance(error, json.JSONDecodeError | TypeError | AttributeError | LookupError):
        return "its answer is not what the API describes"
    first = (str(details.get("message") or error).strip() or type(error).__name__).splitlines()[0]
    return redact(first, key)[:MAX_MESSAGE_LENGTH]


def redact(text: str, key: str) -> str:
    """Redact a key in a text that a server sent.

    The server may have sent back the whole key, its end alone, or its end after stars or dots.
    """
    if len(key) < 8:
        return text
    text = text.replace(key, REDACTED).replace(key[-8:], REDACTED)
    end = key[-4:]
    masked = re.compile(rf"(?:[*•…]|\.\.\.){re.escape(end)}")

    def struck(run: re.Match[str]) -> str:
        """Redact a run of characters up to its last masked end.

        Runs are searched one by one: a pattern that begins with any character takes quadratic time.
        """
        *_, last = [None, *masked.finditer(run[0])]
        return run[0] if last is None else REDACTED + run[0][last.end() :]

    return _RUN.sub(struck, text) if end in text else text


def redact_values(value: Any, key: str) -> Any:
    """Redact a key in every text within a value that a server sent."""
    if isinstance(value, str):
        return redact(value, key)
    if isinstance(value, dict):
        return {redact(str(name), key): redact_values(inner, key) for name, inner in value.items()}
    return [redact_values(inner, key) for inner in value] if isinstance(value, list) else value


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a provider asks to wait; None where it says nothing readable.

    Read from `retry-after-ms`, or from `Retry-After` as seconds or as a date.
    """
    milliseconds = _parse_number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return _clamp_pause(milliseconds / 1000)
    written = headers.get("retry-after")
    seconds = _parse_number(written)
    if seconds is None and written:
        seconds = _compute_seconds_until(written)
    return None if seconds is None else _clamp_pause(seconds)


def parse_rate_limit_pause(headers: Mapping[str, str]) -> float | None:
    """Return the seconds to wait because a rate limit is used up; None if it is not.

    Read from the `x-ratelimit-…` headers. Together counts requests alone, without saying so.
    """
    waits = [
        _parse_duration(headers.get(f"x-ratelimit-reset{what}", ""))
        for what in ("-requests", "-tokens", "")
        if _parse_number(headers.get(f"x-ratelimit-remaining{what}")) == 0
    ]
    return _clamp_pause(max(waits)) if waits else None


def _compute_seconds_until(written: str) -> float | None:
    """Return the seconds until a date; None if it is no date, or one of the year 99999."""
    date = email.utils.parsedate_tz(written)
    try:
        return email.utils.mktime_tz(date) - time.time() if date else None
    except (ValueError, OverflowError):
        return None


def _parse_duration(written: str) -> float:
    """Return a duration such as `6m0s`, `120ms` or a plain number in seconds."""
    plain = _parse_number(written)
    if plain is not None:
        return plain
    return sum(float(count) * _UNITS[unit] for count, unit in _DURATION.findall(written))


def _parse_number(written: str | None) -> float | None:
    """Return a written number; None where there is none."""
    try:
        return float(written) if written else None
    except ValueError:
        return None


def _clamp_pause(seconds: float) -> float:
    """Return a pause between 0 and the maximum; 0 for NaN."""
    return min(max(seconds, 0.0), MAX_PAUSE_SECONDS) if seconds == seconds else 0.0


def is_loopback(base_url: str) -> bool:
    """Return whether an address is this machine's own."""
    host = urlsplit(base_url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
