"""Progress of a run: bars in a terminal, plain lines elsewhere, always on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO


class Step(Protocol):
    """A stage under way."""

    def __call__(self, done: int, note: str = "") -> None:
        """`done` units of the stage's total are done."""
        ...


class Progress(Protocol):
    """What a run tells while it works."""

    def say(self, line: str) -> None:
        """One line of news or warning."""
        ...

    def stage(self, title: str, total: int) -> Step:
        """A new stage of `total` units."""
        ...

    def ask(self, question: str) -> bool:
        """What somebody at the terminal says to a question; no, where nobody is."""
        ...


class Silent:
    """Says nothing: the default of the Python API."""

    def say(self, line: str) -> None:
        return None

    def stage(self, title: str, total: int) -> Step:
        return lambda done, note="": None

    def ask(self, question: str) -> bool:
        return False


class Lines:
    """Plain lines for logs: when a stage begins, ends, and at most every 20 seconds."""

    EVERY_SECONDS = 20.0

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr

    def say(self, line: str) -> None:
        print(line, file=self.stream, flush=True)

    def stage(self, title: str, total: int) -> Step:
        began = last = time.monotonic()

        def step(done: int, note: str = "") -> None:
            nonlocal last
            now = time.monotonic()
            if done < total and now - last < self.EVERY_SECONDS:
                return
            last = now
            self.say(f"{title}: {done}/{total} in {now - began:.0f} s" + (f", {note}" * bool(note)))

        return step

    def ask(self, question: str) -> bool:
        return False


class Bars:
    """Rich progress bars."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self.console = Console(stderr=True)
        self.bars = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            TextColumn("[dim]{task.fields[note]}"),
            console=self.console,
        )

    def say(self, line: str) -> None:
        self.bars.console.print(line, markup=False, highlight=False)

    def stage(self, title: str, total: int) -> Step:
        task = self.bars.add_task(title, total=total, note="")
        return lambda done, note="": self.bars.update(task, completed=done, note=note)

    def ask(self, question: str) -> bool:
        if not sys.stdin.isatty():
            return False
        from rich.prompt import Confirm

        self.bars.stop()
        try:
            return Confirm.ask(question, console=self.console, default=False)
        except EOFError:
            return False
        finally:
            self.bars.start()


@contextmanager
def for_terminal() -> Iterator[Progress]:
    """Bars when stderr is a terminal, plain lines otherwise."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    shown = Bars()
    with shown.bars:
        yield shown
