"""A hosted job while it runs: looked at until its end, or left, or cancelled."""

from __future__ import annotations

import contextlib
import secrets
import time
from typing import Any

from tuneoff.contender_settings import HostedSettings
from tuneoff.contenders import Work
from tuneoff.errors import BusyError, LostError, ProviderError, RefusedError
from tuneoff.providers import FINISHED, WAITING, Job, Provider
from tuneoff.providers.calls import repeated

FIRST_LOOK_SECONDS, LAST_LOOK_SECONDS = 0.5, 30.0
SLOWER = 1.3
# About the time at which the provider expects the job to end.
NEAR_LOOK_SECONDS = 2.0
# A job runs for hours, and is paid for: a provider that is away for a while is waited for.
LOOKING_TRIES, CANCEL_TRIES = 25, 4


def followed(settings: HostedSettings, work: Work, provider: Provider, job: Job) -> Job:
    """The job when it is at its end; what happens meanwhile is told.

    Raises:
        ProviderError: the provider is out of reach; the job goes on there.
    """
    teller, wait, status = _Teller(settings.name, work), FIRST_LOOK_SECONDS, ""
    while True:
        if job.status != status:
            status = job.status
            _note_status(work, status)
            if status not in FINISHED:
                odd = "" if status in WAITING else " (a state that is not known here; waiting on)"
                work.progress.say(f"{settings.name}: job {job.id} is {status}{odd}")
            wait = FIRST_LOOK_SECONDS
        teller.tell(provider, job)
        if status in FINISHED:
            return job
        pause = until_next_look(wait, job.estimated_finish, time.time())
        time.sleep(pause * (0.75 + secrets.randbelow(500) / 1000))
        wait = min(LAST_LOOK_SECONDS, wait * SLOWER)
        job = _looked_at(provider, job)


def is_under_way(work: Work) -> bool:
    """Whether there is a job that has not come to its end, as far as is known here."""
    facts = work.directory.job()
    return bool(facts.get("job_id")) and facts.get("status") not in FINISHED


def left_or_cancelled(settings: HostedSettings, work: Work, provider: Provider) -> None:
    """Asks what is to become of the job under way, and says what has. One that was sent off hours
    ago may be through: it is looked at first, once, for somebody waits for the process to end."""
    id = str(work.directory.job()["job_id"])
    with contextlib.suppress(ProviderError):
        status = provider.job(id).status
        if status in FINISHED:
            _note_status(work, status)
            work.progress.say(f"{settings.name}: job {id} at {provider.url} is {status}")
            return
    question = f"Cancel job {id} at {provider.url}? Otherwise it goes on there, and costs"
    if work.progress.ask(question):
        _cancel(settings, work, provider, id)
        return
    work.progress.say(
        f"{settings.name}: job {id} goes on at {provider.url}; the same command follows it again."
    )


def until_next_look(wait: float, expected: float | None, now: float) -> float:
    """Seconds: `wait`, or less when the job's end is expected sooner. Past that end it grows again,
    for an expectation may be wrong. `expected` and `now` are seconds of the epoch."""
    if expected is None:
        return wait
    left = expected - now
    return min(wait, max(NEAR_LOOK_SECONDS, left if left > 0 else -left * (SLOWER - 1)))


def _cancel(settings: HostedSettings, work: Work, provider: Provider, id: str) -> None:
    """Cancels a job; somebody waits for the process to end."""
    try:
        job = repeated(lambda: provider.cancel(id), CANCEL_TRIES)
    except RefusedError as error:  # it is at its end, or was cancelled by a try that was lost
        work.progress.say(f"{settings.name}: {error}")
    except ProviderError as error:
        work.progress.say(
            f"{settings.name}: {error}; job {id} goes on there: cancel it there, or by the same "
            "command."
        )
    else:
        _note_status(work, job.status)
        work.progress.say(f"{settings.name}: job {id} is cancelled.")


def _looked_at(provider: Provider, job: Job) -> Job:
    try:
        return repeated(lambda: provider.job(job.id), LOOKING_TRIES)
    except (BusyError, LostError) as error:
        raise ProviderError(
            f"{error}; job {job.id} goes on there, and the same command follows it again"
        ) from None


def _note_status(work: Work, status: str) -> None:
    work.directory.write_job({**work.directory.job(), "status": status})


class _Teller:
    """Tells each of a job's events once: steps as a bar, everything else as a line."""

    def __init__(self, name: str, work: Work) -> None:
        self._name, self._work = name, work
        self._told: set[str] = set()
        self._step: Any = None

    def tell(self, provider: Provider, job: Job) -> None:
        """What is new. Events are news, not work: if they cannot be had, nothing is lost."""
        try:
            events = provider.events(job.id)
        except (BusyError, LostError, RefusedError):
            return
        for event in events:
            if event.id in self._told:
                continue
            self._told.add(event.id)
            if event.step is None or not event.steps:
                self._work.progress.say(f"{self._name}: {event.message}")
                continue
            title = f"{self._name}: training"
            self._step = self._step or self._work.progress.stage(title, event.steps)
            self._step(event.step, event.message.partition(": ")[2] or event.message)
