"""The order of contenders. Hosted jobs are submitted first and awaited last, so they run while this
machine trains. This holds for every executor."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from tuneoff.contenders.base import Contender, ContenderContext, load_contender
from tuneoff.contenders.job_polling import is_job_running
from tuneoff.contenders.variants import TrainingVariant, format_failure
from tuneoff.errors import BudgetError
from tuneoff.providers.retries import use_short_retries


class Executor(Protocol):
    """Does contenders' work, one or several at once."""

    def load_contender(self, settings: Any) -> Contender:
        """Return what tunes and answers for a contender."""
        ...

    def map(self, carry_out: Callable[[Any], None], contenders: Sequence[Any]) -> None:
        """Call `carry_out` with every contender.

        Raises:
            BudgetError: a contender could pass the budget.
        """
        ...


class SequentialExecutor:
    """Runs contenders in this process, one after another."""

    def load_contender(self, settings: Any) -> Contender:
        return load_contender(settings.id)

    def map(self, carry_out: Callable[[Any], None], contenders: Sequence[Any]) -> None:
        for settings in contenders:
            carry_out(settings)


def start_remote_jobs(
    chosen: Sequence[Any], work: Mapping[str, ContenderContext], executor: Executor
) -> None:
    """Start remote jobs, so that they run while this machine works.

    Nobody waits long for a busy provider: the job is tried again when the contender's turn comes.
    """
    for settings in chosen:
        begin = getattr(executor.load_contender(settings), "begin", None)
        if begin is None:
            continue
        contender_work = work[settings.name]
        try:
            with use_short_retries():
                begin(settings, contender_work)
        except Exception as error:
            text = format_failure(TrainingVariant(settings), error)
            contender_work.progress.say(f"warning: {settings.name}: not begun yet: {text}")


def run_contenders(
    carry_out: Callable[[Any], None],
    chosen: Sequence[Any],
    work: Mapping[str, ContenderContext],
    executor: Executor,
) -> None:
    """Run the contenders; those with remote jobs come last.

    A running job reserves its maximum cost. If that leaves too little budget for another contender,
    wait for the job to finish, then retry.

    Raises:
        BudgetError: a contender could pass the budget; every started job was followed to its end.
    """
    finished: set[str] = set()

    def run_one(settings: Any) -> None:
        carry_out(settings)
        finished.add(settings.name)

    ordered = sorted(chosen, key=lambda c: hasattr(executor.load_contender(c), "begin"))
    try:
        executor.map(run_one, ordered)
    except BudgetError:
        left = [c for c in ordered if c.name not in finished]
        begun = [c for c in left if _has_unfinished_job(work[c.name])]
        if not begun:
            raise
        for settings in begun:
            with contextlib.suppress(BudgetError):
                executor.map(run_one, [settings])
        executor.map(run_one, [c for c in left if c.name not in finished])


def _has_unfinished_job(work: ContenderContext) -> bool:
    """Return whether there is a job that was not followed to its end."""
    return bool(work.directory.job().get("job_id")) and work.directory.training() is None


def prompt_for_running_jobs(
    chosen: Sequence[Any], work: Mapping[str, ContenderContext], executor: Executor
) -> None:
    """Ask after Ctrl-C what should become of each running job.

    Pressed again, nothing more is asked: the remaining jobs are named and continue.
    """
    for index, settings in enumerate(chosen):
        interrupted = getattr(executor.load_contender(settings), "interrupted", None)
        if interrupted is None:
            continue
        try:
            interrupted(settings, work[settings.name])
        except KeyboardInterrupt:
            _report_running_jobs(chosen[index:], work)
            raise
        except Exception as error:  # the user is still asked about the others' jobs
            work[settings.name].progress.say(format_failure(TrainingVariant(settings), error))


def _report_running_jobs(left: Sequence[Any], work: Mapping[str, ContenderContext]) -> None:
    """Report the jobs that continue."""
    for settings in left:
        contender_work = work[settings.name]
        if contender_work.replay is None and is_job_running(contender_work):
            id = contender_work.directory.job()["job_id"]
            contender_work.progress.say(
                f"{settings.name}: job {id} goes on; the same command follows it again."
            )
