"""Creating paid things exactly once, whatever is lost or killed.

A create call whose answer was lost, or a process that was killed, may have left something at the
provider that is unknown here. So before each create call, the time until which it could become
visible is saved. A later try searches for it first, and creates it only if there is certainly
nothing. Files cost nothing; their names hold their content's hash and show whether they exist.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from tuneoff.contenders.base import Reservation
from tuneoff.errors import ProviderError, RateLimitedError, RejectedError, UnknownOutcomeError
from tuneoff.providers.base import FILE_FAILED, FILE_PENDING, FILE_UPLOADED, FileState
from tuneoff.providers.retries import (
    MAX_TRIES,
    compute_max_tries,
    has_short_retries,
    retry,
    wait_or_raise,
)

T = TypeVar("T")
# A create call whose answer was lost may still be running, and listings lag: search this long.
LISTING_LAG_SECONDS, UPLOAD_LAG_SECONDS, LISTING_POLL_SECONDS = 20.0, 5.0, 2.0

# Polling intervals while a provider processes a file. Some servers leave a file at `uploaded`.
MIN_POLL_SECONDS, MAX_POLL_SECONDS, POLL_BACKOFF = 0.5, 15.0, 1.5
MAX_PROCESSING_SECONDS, MAX_UPLOADED_SECONDS, SHORT_WAIT_SECONDS = 1800.0, 10.0, 3.0
# Statuses of a server that has no route to look at a file.
UNKNOWN_ROUTE_STATUSES = (404, 405, 501)


def find_or_create(
    find: Callable[[], T | None],
    create: Callable[[], T],
    authorized: Callable[[], Reservation],
    look_until: float | None,
    note: Callable[[float | None], None],
    refused: Callable[[], None],
) -> T:
    """Return what an earlier try created, or create it.

    Args:
        find: searches for what an earlier try created; may be repeated.
        create: creates it; is never repeated without searching.
        authorized: returns the reservation, the same one on every call.
        look_until: until when a created object may become visible, in seconds of the epoch; None:
            there is certainly nothing.
        note: saves `look_until`.
        refused: saves that nothing was created and the reservation was released.

    Raises:
        ProviderError: the call was rejected, or no answer came.
        BudgetError: the call could pass the budget.
    """
    for attempt in range(MAX_TRIES):
        if look_until is not None:
            existing = _find_until(find, look_until)
            if existing is not None:
                return existing
        ticket = authorized()
        before, look_until = look_until, time.time() + LISTING_LAG_SECONDS
        note(look_until)
        try:
            return create()
        except (RejectedError, RateLimitedError, UnknownOutcomeError) as error:
            if error.not_executed:
                look_until = before
                note(look_until)
            if isinstance(error, RejectedError) or attempt + 1 >= compute_max_tries(
                error, MAX_TRIES
            ):
                if look_until is None:
                    ticket.release()
                    refused()
                raise
            wait_or_raise(error, attempt)
    raise AssertionError("TRIES is 1 or more")


def find_or_upload(find: Callable[[], str | None], upload: Callable[[], str], begun: bool) -> str:
    """Return the id of a file that is there already, or upload it.

    Args:
        find: searches for the file by its name.
        begun: an earlier upload was started, so the file may exist and not be listed yet.

    Raises:
        ProviderError: the upload was rejected, or no answer came.
    """
    for attempt in range(MAX_TRIES):
        until = time.time() + (UPLOAD_LAG_SECONDS if begun else 0.0)
        existing = _find_until(find, until)
        if existing is not None:
            return existing
        begun = True
        try:
            return upload()
        except (RateLimitedError, UnknownOutcomeError) as error:
            wait_or_raise(error, attempt)
    raise AssertionError("TRIES is 1 or more")


def wait_until_processed(
    look: Callable[[], FileState], url: str, name: str, say: Callable[[str], None]
) -> None:
    """Wait until a provider has processed a file, so that it accepts a job or batch of it.

    A server that shows no status, or has no route for it, is not waited for.

    Args:
        look: fetches the file's state; may be repeated.
        url: the provider's address.
        name: the file's name.
        say: tells the user about the wait.

    Raises:
        RejectedError: the file can never be used.
        ProviderError: the provider cannot be reached, or has not finished within half an hour.
    """
    waited, pause, reported = 0.0, MIN_POLL_SECONDS, ""
    while True:
        state = _fetch_file_state(look)
        if state.status in FILE_FAILED:
            why = f": {state.error}" if state.error else f" (it is {state.status})"
            raise RejectedError(f"{url}: file {name} is refused{why}", 400)
        if state.status not in (*FILE_PENDING, FILE_UPLOADED):
            return
        if state.status == FILE_UPLOADED and waited >= MAX_UPLOADED_SECONDS:
            return
        if waited >= (SHORT_WAIT_SECONDS if has_short_retries() else MAX_PROCESSING_SECONDS):
            raise ProviderError(
                f"{url}: file {name} is still {state.status} after {waited:.0f} s; the same "
                "command goes on with it later"
            )
        if state.status != reported:
            reported = state.status
            say(f"file {name} is {reported} at {url}; waiting until it is processed")
        time.sleep(pause)
        waited, pause = waited + pause, min(MAX_POLL_SECONDS, pause * POLL_BACKOFF)


def _fetch_file_state(look: Callable[[], FileState]) -> FileState:
    """Return a file's state; an unknown state where the server has no route for it."""
    try:
        return retry(look)
    except RejectedError as error:
        if error.status in UNKNOWN_ROUTE_STATUSES:
            return FileState(None)
        raise


def _find_until(find: Callable[[], T | None], until: float) -> T | None:
    """Search until something is found or the time is over; return it or None."""
    until = min(until, time.time() + LISTING_LAG_SECONDS)  # the clock may have been set back
    while True:
        is_last = time.time() >= until
        existing = retry(find)
        if existing is not None or is_last:
            return existing
        time.sleep(min(LISTING_POLL_SECONDS, max(0.0, until - time.time())))
