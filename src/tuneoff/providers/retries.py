"""Retries, backoff and rate limits for calls that sometimes fail.

Calls that are safe to repeat (reading, listing) go through `retry`. Requests for answers share a
`AdaptiveLimiter`, which adapts the number of concurrent requests to what the provider takes.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from tuneoff.errors import ProviderError, RateLimitedError, UnknownOutcomeError, UnreachableError

T = TypeVar("T")
_short_retries: ContextVar[bool] = ContextVar("brief", default=False)
MAX_TRIES = 8
# A server that has never answered is more likely off, or elsewhere, than about to come back.
MAX_FIRST_TRIES = 4
# For calls that are tried again later anyway.
SHORT_TRIES, SHORT_PAUSE_SECONDS = 3, 2.0
# The user is told after this many failures of one call.
REPORT_AFTER_TRIES = 2
MIN_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 0.5, 60.0
# For this many tries the provider's `Retry-After` is trusted alone.
RETRY_AFTER_TRIES = 5
# Jitter must differ between processes, so it is not seeded.
_RANDOM = random.Random()


def compute_backoff(attempt: int, error: ProviderError | None = None) -> float:
    """Return the backoff before a try (the first is 0), in seconds.

    It is what the provider asks for, else it doubles each time. It has jitter, so that many callers
    do not return together. If the provider keeps asking for an immediate retry, backoff applies all
    the same.
    """
    requested = error.retry_after if isinstance(error, RateLimitedError) else None
    backoff_tries = attempt if requested is None else max(0, attempt - RETRY_AFTER_TRIES)
    longest = min(MAX_BACKOFF_SECONDS, MIN_BACKOFF_SECONDS * 2.0**backoff_tries)
    own = _RANDOM.uniform(0.5, 1.0) * longest
    if requested is None:
        return own
    return max(requested + _RANDOM.uniform(0, 0.1) * (1 + requested), own if backoff_tries else 0.0)


def retry(call: Callable[[], T], tries: int = MAX_TRIES) -> T:
    """Retry a call that may be carried out twice without harm, and return its result.

    Raises:
        RejectedError: the provider rejected it.
        RateLimitedError, UnknownOutcomeError: it did not answer in this many tries.
    """
    for attempt in range(tries):
        try:
            return call()
        except (RateLimitedError, UnknownOutcomeError) as error:
            wait_or_raise(error, attempt, tries)
    raise AssertionError("tries is 1 or more")


def wait_or_raise(
    error: RateLimitedError | UnknownOutcomeError, attempt: int, tries: int = MAX_TRIES
) -> None:
    """Pause after a try that failed (the first is 0), or raise its error if it was the last."""
    max_tries = compute_max_tries(error, tries)
    if attempt + 1 >= max_tries:
        raise error
    report_retry(error, attempt + 1, max_tries, attempt)
    time.sleep(compute_backoff(attempt, error))


def compute_max_tries(error: ProviderError, usual: int) -> int:
    """Return the maximum tries of a call that failed with this error."""
    if _short_retries.get():
        requested_pause = getattr(error, "retry_after", None) or 0.0
        usual = min(usual, 1 if requested_pause > SHORT_PAUSE_SECONDS else SHORT_TRIES)
    strange = isinstance(error, UnreachableError) and not error.seen
    return min(usual, MAX_FIRST_TRIES) if strange else usual


@contextmanager
def use_short_retries() -> Iterator[None]:
    """Use few tries for calls of this thread, and wait for no provider's long pause."""
    token = _short_retries.set(True)
    try:
        yield
    finally:
        _short_retries.reset(token)


def has_short_retries() -> bool:
    """Return whether this thread is inside `use_short_retries`."""
    return _short_retries.get()


def report_retry(error: ProviderError, failed: int, max_tries: int, attempt: int) -> None:
    """Report a failing call and for how long it is retried, once, after its second failure.

    Args:
        failed: how many of at most `max_tries` tries have failed.
        attempt: the next argument of `compute_backoff`.
    """
    if failed != REPORT_AFTER_TRIES or error.tell is None:
        return
    left = max_tries - failed
    pauses = (MIN_BACKOFF_SECONDS * 2.0**exponent for exponent in range(attempt, attempt + left))
    seconds = math.ceil(sum(min(MAX_BACKOFF_SECONDS, exponent) for exponent in pauses))
    # A provider that names a pause is trusted, so our own pauses are not shown.
    has_retry_after = isinstance(error, RateLimitedError) and error.retry_after is not None
    waits = "" if has_retry_after else f", with {seconds} s of pauses at most"
    error.tell(f"{error}; trying again, up to {left} times{waits}")


class LimiterClosedError(Exception):
    """A request that was given up before it was sent, because the run is being stopped."""


class AdaptiveLimiter:
    """Limits concurrent requests, adapting to the provider's rate limit.

    One more is allowed after each round of answers, half as many after a rate-limit error, never
    more than `most`. While the provider asks for a pause, no request begins.
    """

    def __init__(self, most: int) -> None:
        self.max_concurrency = most
        self.limit = float(most)
        self._active = 0
        self._not_before = self._halved = 0.0
        self._closed = False
        self.answers = 0
        self._free = threading.Condition()

    @contextmanager
    def hold_slot(self) -> Iterator[None]:
        """Hold one slot for a request under way.

        Raises:
            LimiterClosedError: no more requests may begin.
        """
        with self._free:
            while True:
                if self._closed:
                    raise LimiterClosedError
                wait = self._not_before - time.monotonic()
                if wait <= 0 and self._active < max(1, int(self.limit)):
                    break
                self._free.wait(wait if wait > 0 else None)
            self._active += 1
        try:
            yield
        finally:
            with self._free:
                self._active -= 1
                self._free.notify()

    def close(self) -> None:
        """Let no more requests begin; those under way finish."""
        with self._free:
            self._closed = True
            self._free.notify_all()

    def sleep(self, seconds: float) -> None:
        """Wait for this long, or until the limiter is closed."""
        until = time.monotonic() + seconds
        with self._free:
            while not self._closed and (left := until - time.monotonic()) > 0:
                self._free.wait(left)

    def record_answer(self, pause_seconds: float | None = None) -> None:
        """Count an answered request, and wait for the pause that the provider may still ask for."""
        with self._free:
            self.answers += 1
            self.limit = min(self.max_concurrency, self.limit + 1 / max(1.0, self.limit))
            self._pause(pause_seconds)
            self._free.notify()

    def back_off(self, pause_seconds: float) -> None:
        """Halve the limit after a rate-limit error, and pause.

        Requests that were sent together are rejected together, so the limit is halved once for all.
        """
        with self._free:
            now = time.monotonic()
            if now >= self._halved:
                self.limit = max(1.0, self.limit / 2)
            self._pause(pause_seconds)
            self._halved = max(self._halved, now + pause_seconds)

    def _pause(self, seconds: float | None) -> None:
        if seconds:
            self._not_before = max(self._not_before, time.monotonic() + seconds)
            # Threads that wait without a timeout must look at the clock now.
            self._free.notify_all()
