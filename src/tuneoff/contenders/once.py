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

from tuneoff.contenders import Ticket
from tuneoff.errors import BusyError, LostError, ProviderError, RefusedError
from tuneoff.providers import FILE_BAD, FILE_PENDING, FILE_UPLOADED, FileState
from tuneoff.providers.calls import TRIES, is_impatient, most_tries, repeated, wait_or_raise

T = TypeVar("T")
# A create call whose answer was lost may still be running, and listings lag: search this long.
SETTLED_SECONDS, UPLOADED_SECONDS, LOOK_AGAIN_SECONDS = 20.0, 5.0, 2.0

# Polling intervals while a provider processes a file. Some servers leave a file at `uploaded`.
FIRST_LOOK_SECONDS, LAST_LOOK_SECONDS, SLOWER = 0.5, 15.0, 1.5
PROCESSED_SECONDS, STAYS_UPLOADED_SECONDS, IMPATIENT_SECONDS = 1800.0, 10.0, 3.0
# Statuses of a server that has no route to look at a file.
UNKNOWN_ROUTE = (404, 405, 501)


def found_or_created(
    find: Callable[[], T | None],
    create: Callable[[], T],
    authorized: Callable[[], Ticket],
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
    for attempt in range(TRIES):
        if look_until is not None:
            existing = _looked_for(find, look_until)
            if existing is not None:
                return existing
        ticket = authorized()
        before, look_until = look_until, time.time() + SETTLED_SECONDS
        note(look_until)
        try:
            return create()
        except (RefusedError, BusyError, LostError) as error:
            if error.certain:
                look_until = before
                note(look_until)
            if isinstance(error, RefusedError) or attempt + 1 >= most_tries(error, TRIES):
                if look_until is None:
                    ticket.give_back()
                    refused()
                raise
            wait_or_raise(error, attempt)
    raise AssertionError("TRIES is 1 or more")


def found_or_uploaded(
    find: Callable[[], str | None], upload: Callable[[], str], begun: bool
) -> str:
    """Return the id of a file that is there already, or upload it.

    Args:
        find: searches for the file by its name.
        begun: an earlier upload was started, so the file may exist and not be listed yet.

    Raises:
        ProviderError: the upload was rejected, or no answer came.
    """
    for attempt in range(TRIES):
        until = time.time() + (UPLOADED_SECONDS if begun else 0.0)
        existing = _looked_for(find, until)
        if existing is not None:
            return existing
        begun = True
        try:
            return upload()
        except (BusyError, LostError) as error:
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
        RefusedError: the file can never be used.
        ProviderError: the provider cannot be reached, or has not finished within half an hour.
    """
    waited, pause, reported = 0.0, FIRST_LOOK_SECONDS, ""
    while True:
        state = _look_at_file(look)
        if state.status in FILE_BAD:
            why = f": {state.error}" if state.error else f" (it is {state.status})"
            raise RefusedError(f"{url}: file {name} is refused{why}", 400)
        if state.status not in (*FILE_PENDING, FILE_UPLOADED):
            return
        if state.status == FILE_UPLOADED and waited >= STAYS_UPLOADED_SECONDS:
            return
        if waited >= (IMPATIENT_SECONDS if is_impatient() else PROCESSED_SECONDS):
            raise ProviderError(
                f"{url}: file {name} is still {state.status} after {waited:.0f} s; the same "
                "command goes on with it later"
            )
        if state.status != reported:
            reported = state.status
            say(f"file {name} is {reported} at {url}; waiting until it is processed")
        time.sleep(pause)
        waited, pause = waited + pause, min(LAST_LOOK_SECONDS, pause * SLOWER)


def _look_at_file(look: Callable[[], FileState]) -> FileState:
    """Return a file's state; an unknown state where the server has no route for it."""
    try:
        return repeated(look)
    except RefusedError as error:
        if error.status in UNKNOWN_ROUTE:
            return FileState(None)
        raise


def _looked_for(find: Callable[[], T | None], until: float) -> T | None:
    """Search until something is found or the time is over; return it or None."""
    until = min(until, time.time() + SETTLED_SECONDS)  # the clock may have been set back
    while True:
        is_last = time.time() >= until
        existing = repeated(find)
        if existing is not None or is_last:
            return existing
        time.sleep(min(LOOK_AGAIN_SECONDS, max(0.0, until - time.time())))
