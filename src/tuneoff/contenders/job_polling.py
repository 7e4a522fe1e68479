"""Waiting for a hosted fine-tuning job: poll it to its end, detach from it, or cancel it."""

from __future__ import annotations

import contextlib
import secrets
import time
from typing import Any

from tuneoff.config.contenders import HostedConfig
from tuneoff.contenders.base import ContenderContext
from tuneoff.errors import ProviderError, RateLimitedError, RejectedError, UnknownOutcomeError
from tuneoff.providers.base import JOB_FINISHED, JOB_WAITING, Job, Provider
from tuneoff.providers.retries import retry

MIN_POLL_SECONDS, MAX_POLL_SECONDS = 0.5, 30.0
POLL_BACKOFF = 1.3
# Polling interval around the time at which the provider expects the job to end.
NEAR_END_POLL_SECONDS = 2.0
# A job runs for hours and is paid for, so a provider that is away for a while is waited for.
POLL_TRIES, CANCEL_TRIES = 25, 4


def wait_for_job(
    settings: HostedConfig, work: ContenderContext, provider: Provider, job: Job
) -> Job:
    """Wait for a job to end and return it, reporting its events meanwhile.

    Raises:
        ProviderError: the provider cannot be reached; the job continues there.
    """
    teller, wait, status = _EventReporter(settings.name, work), MIN_POLL_SECONDS, ""
    while True:
        if job.status != status:
            status = job.status
            _save_status(work, status)
            if status not in JOB_FINISHED:
                note = (
                    "" if status in JOB_WAITING else " (a state that is not known here; waiting on)"
                )
                work.progress.say(f"{settings.name}: job {job.id} is {status}{note}")
            wait = MIN_POLL_SECONDS
        teller.tell(provider, job)
        if status in JOB_FINISHED:
            return job
        pause = compute_poll_seconds(wait, job.estimated_finish, time.time())
        time.sleep(pause * (0.75 + secrets.randbelow(500) / 1000))
        wait = min(MAX_POLL_SECONDS, wait * POLL_BACKOFF)
        job = _fetch_job(provider, job)


def is_job_running(work: ContenderContext) -> bool:
    """Return whether there is a job that has not ended, as far as is known here."""
    facts = work.directory.job()
    return bool(facts.get("job_id")) and facts.get("status") not in JOB_FINISHED


def cancel_or_detach(settings: HostedConfig, work: ContenderContext, provider: Provider) -> None:
    """Ask whether to cancel a running job, do so or detach from it, and report which.

    A job submitted hours ago may have ended. Its status is fetched once first, without retries,
    because the user is waiting for the process to end.
    """
    id = str(work.directory.job()["job_id"])
    with contextlib.suppress(ProviderError):
        status = provider.job(id).status
        if status in JOB_FINISHED:
            _save_status(work, status)
            work.progress.say(f"{settings.name}: job {id} at {provider.url} is {status}")
            return
    question = f"Cancel job {id} at {provider.url}? Otherwise it goes on there, and costs"
    if work.progress.ask(question):
        _cancel_job(settings, work, provider, id)
        return
    work.progress.say(
        f"{settings.name}: job {id} goes on at {provider.url}; the same command follows it again."
    )


def compute_poll_seconds(wait: float, expected: float | None, now: float) -> float:
    """Return the seconds until the next poll: `wait`, or less near the job's expected end.

    Past the expected end the interval grows again, because an expectation may be wrong.

    Args:
        expected: when the provider expects the job to end, in seconds of the epoch.
        now: the current time in seconds of the epoch.
    """
    if expected is None:
        return wait
    left = expected - now
    return min(wait, max(NEAR_END_POLL_SECONDS, left if left > 0 else -left * (POLL_BACKOFF - 1)))


def _cancel_job(
    settings: HostedConfig, work: ContenderContext, provider: Provider, id: str
) -> None:
    """Cancel a job with few retries, because the user is waiting for the process to end."""
    try:
        job = retry(lambda: provider.cancel(id), CANCEL_TRIES)
    except RejectedError as error:  # it has ended, or a try whose answer was lost cancelled it
        work.progress.say(f"{settings.name}: {error}")
    except ProviderError as error:
        work.progress.say(
            f"{settings.name}: {error}; job {id} goes on there: cancel it there, or by the same "
            "command."
        )
    else:
        _save_status(work, job.status)
        work.progress.say(f"{settings.name}: job {id} is cancelled.")


def _fetch_job(provider: Provider, job: Job) -> Job:
    """Return a job's current state, retrying for as long as a paid job deserves."""
    try:
        return retry(lambda: provider.job(job.id), POLL_TRIES)
    except (RateLimitedError, UnknownOutcomeError) as error:
        raise ProviderError(
            f"{error}; job {job.id} goes on there, and the same command follows it again"
        ) from None


def _save_status(work: ContenderContext, status: str) -> None:
    """Save a job's status in `job.json`."""
    work.directory.write_job({**work.directory.job(), "status": status})


class _EventReporter:
    """Reports each of a job's events once: steps move a progress bar, everything else is a line."""

    def __init__(self, name: str, work: ContenderContext) -> None:
        self._name, self._work = name, work
        self._told: set[str] = set()
        self._step: Any = None

    def tell(self, provider: Provider, job: Job) -> None:
        """Report new events. They are not essential, so an error while reading them is ignored."""
        try:
            events = provider.events(job.id)
        except (RateLimitedError, UnknownOutcomeError, RejectedError):
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
