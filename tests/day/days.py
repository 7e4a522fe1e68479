"""Sets the day that tests take for today, in this process and in those it starts."""

from __future__ import annotations

import datetime
import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

VARIABLE = "TUNEOFF_TEST_DAY"


def travel(patch: pytest.MonkeyPatch, day: str) -> None:
    """Sets the day here, and in the Python processes that start until the patch is undone.

    These import `sitecustomize.py` beside this file when they start, and so `set_here`.
    """
    from tuneoff import environment

    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    here = str(Path(__file__).parent)
    patch.setenv("PYTHONPATH", os.pathsep.join([here, *(p for p in paths if p and p != here)]))
    patch.setenv(VARIABLE, day)
    patch.setattr(environment, "now", lambda: move(day))


def move(day: str) -> datetime.datetime:
    """Return the time of day that it is, on another day, in UTC."""
    there = datetime.date.fromisoformat(day)
    return datetime.datetime.combine(there, datetime.datetime.now().time()).astimezone(datetime.UTC)


def set_here() -> None:
    """Sets the day of a process that was started on it."""
    day = os.environ.get(VARIABLE)
    if day and importlib.util.find_spec("tuneoff"):
        from tuneoff import environment

        environment.now = lambda: move(day)
