"""What is paid for is created once, whatever is lost or killed.

A create whose answer was lost, or a process that was killed, may have left something at the
provider that nobody here has heard of. So until when that could come to light is written down
before each create, and is looked for first; only if there certainly is nothing is it created.
Files cost nothing; their names hold their content's hash, and tell whether they are there.
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
# A create whose answer was lost may still be under way, and listings lag: so long it is looked for.
SETTLED_SECONDS, UPLOADED_SECONDS, LOOK_AGAIN_SECONDS = 20.0, 5.0, 2.0

# A file is looked at until its provider has processed it, less and less often. One that is only
# called uploaded may stay so.
FIRST_LOOK_SECONDS, LAST_LOOK_SECONDS, SLOWER = 0.5, 15.0, 1.5
PROCESSED_SECONDS, STAYS_UPLOADED_SECONDS, IMPATIENT_SECONDS = 1800.0, 10.0, 3.0
# What a server answers that has no route for looking at a file.
UNKNOWN_ROUTE = (404, 405, 501)


def found_or_created(
    find: Callable[[], T | None],
    create: Callable[[], T],
    authorized: Callable[[], Ticket],
    look_until: float | None,
    note: Callable[[float | None], None],
    refused: Callable[[], None],
) -> T:
    """What an earlier try created, or a new one.

    Args:
        find: looks for what an earlier try created; may be repeated.
        create: creates it; is never repeated without looking.
        authorized: leave for it, the same however often it is asked for.
        look_until: seconds of the epoch until when something that was created may come to light;
            None: there is certainly nothing.
        note: writes `look_until` down.
        refused: writes down that there is none and that the leave was given back.

    Raises:
        ProviderError: it was refused, or no answer came.
        BudgetError: it could pass the budget.
    """
    for attempt in range(TRIES):
        if look_until is not None:
            found = _looked_for(find, look_until)
            if found is not None:
                return found
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
    """The id of a file that is there already, or of a new one.

    Args:
        find: looks for the file by its name.
        begun: an upload of it was begun before, so it may be there and not be listed yet.

    Raises:
        ProviderError: it was refused, or no answer came.
    """
    for attempt in range(TRIES):
        until = time.time() + (UPLOADED_SECONDS if begun else 0.0)
        found = _looked_for(find, until)
        if found is not None:
            return found
        begun = True
        try:
            return upload()
        except (BusyError, LostError) as error:
            wait_or_raise(error, attempt)
    raise AssertionError("TRIES is 1 or more")


def wait_until_processed(
    look: Callable[[], FileState], url: str, name: str, say: Callable[[str], None]
) -> None:
    """Waits until a provider has processed a file, so that it takes a job or batch of it.

    A server that shows no status, or does not know the question, is not waited for.

    Args:
        look: looks at the file; may be repeated.
        url: where the provider is.
        name: the file's name.
        say: tells the user that it is waited for.

    Raises:
        RefusedError: the file can never be used.
        ProviderError: the provider is out of reach, or is not through in half an hour.
    """
    waited, pause, told = 0.0, FIRST_LOOK_SECONDS, ""
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
        if state.status != told:
            told = state.status
            say(f"file {name} is {told} at {url}; waiting until it is processed")
        time.sleep(pause)
        waited, pause = waited + pause, min(LAST_LOOK_SECONDS, pause * SLOWER)


def _look_at_file(look: Callable[[], FileState]) -> FileState:
    try:
        return repeated(look)
    except RefusedError as error:
        if error.status in UNKNOWN_ROUTE:
            return FileState(None)
        raise


def _looked_for(find: Callable[[], T | None], until: float) -> T | None:
    until = min(until, time.time() + SETTLED_SECONDS)  # the clock may have been set back
    while True:
        last = time.time() >= until
        found = repeated(find)
        if found is not None or last:
            return found
        time.sleep(min(LOOK_AGAIN_SECONDS, max(0.0, until - time.time())))
