"""Progress of a run: a live view in a terminal (`live.py`), plain lines elsewhere, always on
stderr."""

from __future__ import annotations

import sys
import time
from typing import Protocol, TextIO

WAITING, AWAY, OVER_BUDGET = "waiting", "at its provider", "over budget"
# What is no news.
IDLE = (WAITING, AWAY)


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
        """A new stage of `total` units; `title` is `CONTENDER: what is done`."""
        ...

    def status(self, name: str, words: str) -> None:
        """How a contender stands while nothing is done for it: that it waits, or its score."""
        ...

    def spent(self, known: float, uncertain: float, budget: float | None) -> None:
        """USD that the run has cost so far: certainly, perhaps, and at most."""
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

    def status(self, name: str, words: str) -> None:
        return None

    def spent(self, known: float, uncertain: float, budget: float | None) -> None:
        return None

    def ask(self, question: str) -> bool:
        return False


class Lines(Silent):
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

    def status(self, name: str, words: str) -> None:
        if words not in IDLE:
            self.say(f"{name}: {words}")
