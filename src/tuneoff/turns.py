"""Whose turn it is: what goes on elsewhere is sent off first and followed last, whoever does the
rest of the contenders' work, and however many of them at once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from tuneoff.contenders import Contender, Work, load_contender
from tuneoff.contenders.hosted_following import is_under_way
from tuneoff.contenders.trainings import Training, what_failed
from tuneoff.errors import BudgetError
from tuneoff.providers.calls import impatient


class Executor(Protocol):
    """Who does contenders' work, and how many of them at once."""

    def kind_of(self, settings: Any) -> Contender:
        """What tunes and answers for a contender."""
        ...

    def each(self, carry_out: Callable[[Any], None], contenders: Sequence[Any]) -> None:
        """Calls `carry_out` with every contender.

        Raises:
            BudgetError: one of them could pass the budget.
        """
        ...


class InTurn:
    """Here, one after another."""

    def kind_of(self, settings: Any) -> Contender:
        return load_contender(settings.id)

    def each(self, carry_out: Callable[[Any], None], contenders: Sequence[Any]) -> None:
        for settings in contenders:
            carry_out(settings)


def begin_all(chosen: Sequence[Any], work: Mapping[str, Work], executor: Executor) -> None:
    """Sends off what goes on elsewhere, while others' work is done here. Nobody waits long for a
    provider that is busy: a contender's turn comes, and it is tried again then."""
    for settings in chosen:
        begin = getattr(executor.kind_of(settings), "begin", None)
        if begin is None:
            continue
        mine = work[settings.name]
        try:
            with impatient():
                begin(settings, mine)
        except Exception as error:
            text = what_failed(Training(settings), error)
            mine.progress.say(f"warning: {settings.name}: not begun yet: {text}")


def carry_out_all(
    carry_out: Callable[[Any], None],
    chosen: Sequence[Any],
    work: Mapping[str, Work],
    executor: Executor,
) -> None:
    """What goes on elsewhere is waited for last. A job under way holds leave for the most that it
    can cost: where that is what others lack, it is followed to its end, and they are tried again.

    Raises:
        BudgetError: one of them could pass the budget; no job is left that nobody follows.
    """
    through: set[str] = set()

    def one(settings: Any) -> None:
        carry_out(settings)
        through.add(settings.name)

    ordered = sorted(chosen, key=lambda c: hasattr(executor.kind_of(c), "begin"))
    try:
        executor.each(one, ordered)
    except BudgetError:
        left = [c for c in ordered if c.name not in through]
        begun = [c for c in left if _is_begun(work[c.name])]
        if not begun:
            raise
        for settings in begun:
            with contextlib.suppress(BudgetError):
                executor.each(one, [settings])
        executor.each(one, [c for c in left if c.name not in through])


def _is_begun(work: Work) -> bool:
    """Whether there is a job that was not followed to its end."""
    return bool(work.directory.job().get("job_id")) and work.directory.training() is None


def ask_what_goes_on(chosen: Sequence[Any], work: Mapping[str, Work], executor: Executor) -> None:
    """After Ctrl-C: what is to become of each job that is under way. Pressed again, nobody is asked
    any more: those that are left are named, and go on."""
    for place, settings in enumerate(chosen):
        interrupted = getattr(executor.kind_of(settings), "interrupted", None)
        if interrupted is None:
            continue
        try:
            interrupted(settings, work[settings.name])
        except KeyboardInterrupt:
            _say_what_goes_on(chosen[place:], work)
            raise
        except Exception as error:  # the others' jobs are asked for all the same
            work[settings.name].progress.say(what_failed(Training(settings), error))


def _say_what_goes_on(left: Sequence[Any], work: Mapping[str, Work]) -> None:
    for settings in left:
        mine = work[settings.name]
        if mine.replay is None and is_under_way(mine):
            id = mine.directory.job()["job_id"]
            mine.progress.say(
                f"{settings.name}: job {id} goes on; the same command follows it again."
            )
