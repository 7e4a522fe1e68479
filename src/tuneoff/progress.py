"""Progress of a run, always on stderr: a live view in a terminal (`cli/live_view.py`), plain lines
elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Protocol, TextIO

WAITING, AT_PROVIDER, OVER_BUDGET = "waiting", "at its provider", "over budget"
# Statuses that are not worth a line of their own.
IDLE = (WAITING, AT_PROVIDER)


class Step(Protocol):
    """Reports the progress of a stage."""

    def __call__(self, done: int, note: str = "") -> None:
        """Report that `done` units of the stage's total are done."""
        ...


class Progress(Protocol):
    """Receives the progress of a run."""

    def say(self, line: str) -> None:
        """Show one line of news or warning."""
        ...

    def stage(self, title: str, total: int) -> Step:
        """Begin a stage of `total` units; return its step. `title` is `CONTENDER: what is done`."""
        ...

    def status(self, name: str, words: str) -> None:
        """Show a contender's status while nothing is done for it: that it waits, or its score."""
        ...

    def spent(self, known: float, uncertain: float, budget: float | None) -> None:
        """Show the USD that the run has cost so far: known, uncertain, and the budget."""
        ...

    def ask(self, question: str) -> bool:
        """Ask a question at the terminal; return whether the answer is yes. Without a terminal it
        is no."""
        ...


class SilentProgress:
    """Shows nothing: the default of the Python API."""

    def say(self, line: str) -> None:
        return None

    def stage(self, title: str, total: int) -> Step:
        """Return a step that does nothing."""
        return lambda done, note="": None

    def status(self, name: str, words: str) -> None:
        return None

    def spent(self, known: float, uncertain: float, budget: float | None) -> None:
        return None

    def ask(self, question: str) -> bool:
        """Return False."""
        return False


class LineProgress(SilentProgress):
    """Prints plain lines for logs: when a stage begins, ends, and at most every 20 seconds."""

    EVERY_SECONDS = 20.0

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr

    def say(self, line: str) -> None:
        """Print a line."""
        print(line, file=self.stream, flush=True)

    def stage(self, title: str, total: int) -> Step:
        """Return a step that prints a line at the end, and at most every 20 seconds."""
        began = last = time.monotonic()

        def step(done: int, note: str = "") -> None:
            nonlocal last
            now = time.monotonic()
            if done < total and now - last < self.EVERY_SECONDS:
                return
            last = now
            self.say(f"{title}: {done}/{total} in {now - began:.0f} s" + (f", {note}" * bool(note)))

        return step

    def status(self, name: str, words: str) -> None:
        """Print a status that is news."""
        if words not in IDLE:
            self.say(f"{name}: {words}")
