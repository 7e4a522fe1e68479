"""Carrying out calls that fail now and then: how many at once, when again, and when to give up.

What is safe to repeat (asking, looking, listing) goes through `repeated`. Requests for answers
share a `Limiter`, which finds out how many at once the provider takes.
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

from tuneoff.errors import BusyError, LostError, ProviderError, UnreachableError

T = TypeVar("T")
_brief: ContextVar[bool] = ContextVar("brief", default=False)
TRIES = 8
# A server that has never answered is more likely off, or elsewhere, than about to come back.
FIRST_TRIES = 4
# Of a call whose time comes again.
BRIEF_TRIES, BRIEF_PAUSE_SECONDS = 3, 2.0
# After so many failures of one call whoever waits is told.
TELL_AFTER = 2
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 60.0
# So often the time that a provider names is taken at its word.
PATIENT_TRIES = 5
# Jitter must differ between processes, so it is not seeded.
_RANDOM = random.Random()


def pause_before(attempt: int, error: ProviderError | None = None) -> float:
    """Seconds to wait before a try (the first is 0): what the provider asks for, else twice as
    long each time; a random part of it is added or left out, so that many callers do not come
    back together. Who is told to come back at once, again and again, waits all the same."""
    asked = error.retry_after if isinstance(error, BusyError) else None
    told = attempt if asked is None else max(0, attempt - PATIENT_TRIES)
    longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0**told)
    own = _RANDOM.uniform(0.5, 1.0) * longest
    if asked is None:
        return own
    return max(asked + _RANDOM.uniform(0, 0.1) * (1 + asked), own if told else 0.0)


def repeated(call: Callable[[], T], tries: int = TRIES) -> T:
    """What a call gives that may be carried out twice without harm.

    Raises:
        RefusedError: the provider's answer is no.
        BusyError, LostError: it did not answer in so many tries.
    """
    for attempt in range(tries):
        try:
            return call()
        except (BusyError, LostError) as error:
            wait_or_raise(error, attempt, tries)
    raise AssertionError("tries is 1 or more")


def wait_or_raise(error: BusyError | LostError, attempt: int, tries: int = TRIES) -> None:
    """Pauses after a try that failed (the first is 0), or raises its error if it was the last."""
    most = most_tries(error, tries)
    if attempt + 1 >= most:
        raise error
    tell(error, attempt + 1, most, attempt)
    time.sleep(pause_before(attempt, error))


def most_tries(error: ProviderError, usual: int) -> int:
    """How many tries a call gets that failed so."""
    if _brief.get():
        told = getattr(error, "retry_after", None) or 0.0
        usual = min(usual, 1 if told > BRIEF_PAUSE_SECONDS else BRIEF_TRIES)
    strange = isinstance(error, UnreachableError) and not error.seen
    return min(usual, FIRST_TRIES) if strange else usual


@contextmanager
def impatient() -> Iterator[None]:
    """While inside, calls of this thread are given up soon, and no provider's long pause is waited
    for."""
    token = _brief.set(True)
    try:
        yield
    finally:
        _brief.reset(token)


def is_impatient() -> bool:
    """Tells whether this thread is inside `impatient`."""
    return _brief.get()


def tell(error: ProviderError, failed: int, most: int, attempt: int) -> None:
    """Says what goes wrong, and for how long it is tried again, when a call has failed twice.

    Args:
        failed: how many tries have failed, of at most `most`.
        attempt: what `pause_before` will be asked for next.
    """
    if failed != TELL_AFTER or error.tell is None:
        return
    left = most - failed
    pauses = (FIRST_PAUSE_SECONDS * 2.0**each for each in range(attempt, attempt + left))
    seconds = math.ceil(sum(min(LONGEST_PAUSE_SECONDS, each) for each in pauses))
    # A provider that says when to come back is taken at its word.
    told = isinstance(error, BusyError) and error.retry_after is not None
    waits = "" if told else f", with {seconds} s of pauses at most"
    error.tell(f"{error}; trying again, up to {left} times{waits}")


class ClosedError(Exception):
    """A request that was given up before it was sent, because the whole is being stopped."""


class Limiter:
    """How many requests may be under way: one more after each round of answers, half as many when
    the provider is busy, never more than `most`. While it asks for a pause nobody begins."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.allowed = float(most)
        self._active = 0
        self._not_before = self._halved = 0.0
        self._closed = False
        self.answers = 0
        self._free = threading.Condition()

    @contextmanager
    def slot(self) -> Iterator[None]:
        """While inside, a request is under way.

        Raises:
            ClosedError: no more are to begin.
        """
        with self._free:
            while True:
                if self._closed:
                    raise ClosedError
                wait = self._not_before - time.monotonic()
                if wait <= 0 and self._active < max(1, int(self.allowed)):
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
        """Lets no more requests begin; those under way come to their end."""
        with self._free:
            self._closed = True
            self._free.notify_all()

    def sleep(self, seconds: float) -> None:
        """Waits so long, or until it is closed."""
        until = time.monotonic() + seconds
        with self._free:
            while not self._closed and (left := until - time.monotonic()) > 0:
                self._free.wait(left)

    def answered(self, pause_seconds: float | None = None) -> None:
        """A request was answered; the provider may ask for a pause all the same."""
        with self._free:
            self.answers += 1
            self.allowed = min(self.most, self.allowed + 1 / max(1.0, self.allowed))
            self._pause(pause_seconds)
            self._free.notify()

    def busy(self, pause_seconds: float) -> None:
        """The provider has too much to do. Requests that were sent together are refused
        together, so the number is halved once for all of them."""
        with self._free:
            now = time.monotonic()
            if now >= self._halved:
                self.allowed = max(1.0, self.allowed / 2)
            self._pause(pause_seconds)
            self._halved = max(self._halved, now + pause_seconds)

    def _pause(self, seconds: float | None) -> None:
        if seconds:
            self._not_before = max(self._not_before, time.monotonic() + seconds)
            # Whoever waits without a time must look at the clock now.
            self._free.notify_all()
