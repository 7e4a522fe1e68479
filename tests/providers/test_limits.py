"""Requests that share a provider: never more at once than it takes, fewer when it is busy, none
while it asks for a pause or after the end; and how long to wait before another try."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneoff.errors import (
    ProviderError,
    RateLimitedError,
    RejectedError,
    UnknownOutcomeError,
    UnreachableError,
)
from tuneoff.providers import http_errors, retries
from tuneoff.providers.http_errors import (
    REPORT_AGAIN_SECONDS,
    ConnectionStatus,
    explain_no_connection,
)
from tuneoff.providers.retries import AdaptiveLimiter, LimiterClosedError, compute_backoff, retry

WAIT_SECONDS = 30


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that stands still until a test moves it."""
    found = SimpleNamespace(now=1000.0)
    for module in (retries, http_errors):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: found.now))
    return found


class Inside:
    """Counts who is in a slot at the same time."""

    def __init__(self, limiter: AdaptiveLimiter) -> None:
        self.limiter, self.now, self.most = limiter, 0, 0
        self._lock = threading.Lock()

    def go(self, _: int = 0) -> None:
        with self.limiter.hold_slot():
            with self._lock:
                self.now += 1
                self.most = max(self.most, self.now)
            time.sleep(0.002)
            with self._lock:
                self.now -= 1


@pytest.mark.parametrize(("most", "allowed"), [(4, 4), (4, 2), (4, 1), (8, 3)])
def test_never_more_than_allowed_are_under_way(most: int, allowed: int) -> None:
    limiter = AdaptiveLimiter(most)
    limiter.limit = allowed + 0.9
    inside = Inside(limiter)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(inside.go, range(64)))
    assert inside.most == allowed
    assert inside.now == 0


def test_a_slot_is_free_again_after_an_error() -> None:
    limiter = AdaptiveLimiter(1)
    for _ in range(3):
        with pytest.raises(KeyError), limiter.hold_slot():
            raise KeyError
    with limiter.hold_slot():
        pass


def test_a_burst_of_refusals_halves_it_once(clock: SimpleNamespace) -> None:
    limiter = AdaptiveLimiter(16)
    for _ in range(16):
        limiter.back_off(2.0)
    assert limiter.limit == 8
    clock.now += 1.9
    limiter.back_off(2.0)
    assert limiter.limit == 8
    clock.now += 2.0
    limiter.back_off(2.0)
    assert limiter.limit == 4
    for _ in range(10):
        clock.now += 2.0
        limiter.back_off(2.0)
    assert limiter.limit == 1


def test_a_round_of_answers_allows_one_more(clock: SimpleNamespace) -> None:
    limiter = AdaptiveLimiter(16)
    limiter.back_off(1.0)
    for expected in (9, 10, 11):
        for _ in range(expected):
            limiter.record_answer()
        assert expected - 0.5 < limiter.limit < expected + 1
    for _ in range(1000):
        limiter.record_answer()
    assert limiter.limit == 16
    assert limiter.answers == 9 + 10 + 11 + 1000


@pytest.mark.parametrize("how", ["back_off", "record_answer"])
def test_nobody_begins_while_a_pause_is_asked_for(clock: SimpleNamespace, how: str) -> None:
    limiter, began = AdaptiveLimiter(4), threading.Event()
    getattr(limiter, how)(60.0)

    def go() -> None:
        with limiter.hold_slot():
            began.set()

    thread = threading.Thread(target=go, daemon=True)
    thread.start()
    assert not began.wait(0.1)
    clock.now += 61.0
    limiter.record_answer()  # whoever waits looks at the clock
    assert began.wait(WAIT_SECONDS)
    thread.join(WAIT_SECONDS)


def test_a_pause_is_at_least_as_long_as_asked_for() -> None:
    limiter = AdaptiveLimiter(4)
    began = time.monotonic()
    limiter.record_answer(0.2)
    limiter.back_off(0.1)  # a shorter one does not end it
    with limiter.hold_slot():
        assert time.monotonic() - began >= 0.2


def test_closed_nothing_begins_and_what_is_under_way_ends() -> None:
    """Who waits for a slot, or between two tries, is told at once."""
    limiter, inside, go_on = AdaptiveLimiter(1), threading.Event(), threading.Event()
    told: list[str] = []

    def under_way() -> None:
        with limiter.hold_slot():
            inside.set()
            go_on.wait(WAIT_SECONDS)
        told.append("done")

    def waiting() -> None:
        try:
            with limiter.hold_slot():
                told.append("began")
        except LimiterClosedError:
            told.append("closed")

    def between() -> None:
        limiter.sleep(600.0)
        told.append("slept")

    first = threading.Thread(target=under_way, daemon=True)
    first.start()
    assert inside.wait(WAIT_SECONDS)
    others = [threading.Thread(target=each, daemon=True) for each in (waiting, waiting, between)]
    for thread in others:
        thread.start()
    limiter.close()
    for thread in others:
        thread.join(WAIT_SECONDS)
    assert sorted(told) == ["closed", "closed", "slept"]
    go_on.set()
    first.join(WAIT_SECONDS)
    assert told[-1] == "done"
    with pytest.raises(LimiterClosedError), limiter.hold_slot():
        pass


@given(st.integers(0, 60))
def test_pauses_double_and_end_at_the_longest(attempt: int) -> None:
    longest = min(retries.MAX_BACKOFF_SECONDS, retries.MIN_BACKOFF_SECONDS * 2**attempt)
    for error in (None, UnknownOutcomeError("x"), RateLimitedError("x"), RejectedError("x", 404)):
        assert longest / 2 <= compute_backoff(attempt, error) <= longest


@given(st.integers(0, 60), st.floats(0, 600))
def test_a_provider_that_names_a_time_is_not_asked_earlier(attempt: int, seconds: float) -> None:
    pause = compute_backoff(attempt, RateLimitedError("x", seconds, 429))
    assert pause >= seconds
    longest = seconds + 0.1 * (1 + seconds)
    if attempt > retries.RETRY_AFTER_TRIES:
        longest = max(longest, retries.MAX_BACKOFF_SECONDS)
    assert pause <= longest


def test_who_is_told_to_come_back_at_once_again_and_again_waits() -> None:
    at_once = RateLimitedError("x", 0.0, 429)
    assert all(compute_backoff(attempt, at_once) <= 0.1 for attempt in range(5))
    assert all(compute_backoff(attempt, at_once) > 1.0 for attempt in range(9, 40))


def test_pauses_differ() -> None:
    """Many callers do not come back together."""
    for error in (None, RateLimitedError("x", 2.0, 429)):
        assert len({compute_backoff(3, error) for _ in range(20)}) > 10


@pytest.mark.parametrize("error", [RateLimitedError("x", 0.0, 429), UnknownOutcomeError("x", 500)])
def test_what_may_be_repeated_is_tried_so_often(
    error: ProviderError, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "MIN_BACKOFF_SECONDS", 0.0)
    told = []

    def fails(times: int) -> str:
        told.append(times)
        if len(told) <= times:
            raise error
        return "there"

    assert retry(lambda: fails(3), tries=4) == "there"
    assert len(told) == 4
    told.clear()
    with pytest.raises(type(error)):
        retry(lambda: fails(4), tries=4)
    assert len(told) == 4


@pytest.mark.parametrize(
    ("seen", "tries"), [(True, retries.MAX_TRIES), (False, retries.MAX_FIRST_TRIES)]
)
def test_a_server_that_never_answered_gets_few_tries(
    seen: bool, tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "MIN_BACKOFF_SECONDS", 0.0)
    failed, told = [], list[str]()

    def fails() -> None:
        failed.append(1)
        error = UnreachableError("nobody there", seen)
        error.tell = told.append
        raise error

    with pytest.raises(UnreachableError):
        retry(fails)
    assert len(failed) == tries
    assert told == [
        f"nobody there; trying again, up to {tries - 2} times, with 0 s of pauses at most"
    ]


def test_an_outage_is_told_once(clock: SimpleNamespace) -> None:
    """From however many threads, until the server answers; and not at each of many short ones."""
    server, told = ConnectionStatus("http://there"), list[str]()
    server.tell("nobody hears it")
    server.set_listener(told.append, seen=False)
    for _ in range(3):
        server.tell("away")
    assert told == ["away"]
    server.answered()
    server.tell("away for a moment")
    assert told == ["away"]
    clock.now += REPORT_AGAIN_SECONDS
    server.tell("away again")
    server.tell("away still")
    assert told == ["away", "away again"]


URL = "http://there:81/v1"
POST = httpx.Request("POST", f"{URL}/chat/completions")
REFUSED = ConnectionRefusedError(111, "Refused")


@pytest.mark.parametrize(
    ("error", "cause", "found"),
    [
        (httpx.ConnectError("x", request=POST), socket.gaierror(-2, "Not known"), "Not known"),
        (httpx.ConnectError("x", request=POST), REFUSED, "Refused"),
        (httpx.ConnectTimeout("timed out", request=POST), None, "timed out"),
        (httpx.ReadError("x", request=POST), ConnectionResetError(104, "Reset"), None),
        (httpx.ReadTimeout("x", request=POST), None, None),
        (httpx.ConnectError("x"), REFUSED, None),  # of no request that is known
        # The server redirected what it may have carried out.
        (httpx.ConnectError("x", request=httpx.Request("POST", "http://other/v1")), REFUSED, None),
    ],
)
def test_no_connection_is_told_from_a_lost_one(
    error: Exception, cause: Exception | None, found: str | None
) -> None:
    outer = RuntimeError("Connection error.")
    outer.__cause__, error.__cause__ = error, cause
    assert explain_no_connection(outer, URL) == (None if found is None else (found, True))


def test_what_was_sent_and_became_a_get_may_have_been_carried_out() -> None:
    error = httpx.ConnectError("x", request=httpx.Request("GET", f"{URL}/jobs"))
    error.__cause__ = REFUSED
    assert explain_no_connection(error, URL) == ("Refused", False)


def test_what_was_handled_when_an_error_came_is_not_its_cause() -> None:
    lost = httpx.ConnectError("x", request=POST)
    later = RuntimeError("something else")
    later.__context__ = KeyboardInterrupt()
    later.__context__.__context__ = lost
    assert explain_no_connection(later, URL) is None
    told_apart = RuntimeError("something else")
    told_apart.__context__, told_apart.__suppress_context__ = lost, True
    assert explain_no_connection(told_apart, URL) is None


def test_a_refusal_is_not_tried_again() -> None:
    told = []

    def refuses() -> None:
        told.append(1)
        raise RejectedError("no", 403)

    with pytest.raises(RejectedError):
        retry(refuses)
    assert told == [1]
