"""The day it is, which the tests of a session, of one test and of their processes can set."""

from __future__ import annotations

import datetime
import subprocess
import sys
from collections.abc import Callable

from tuneoff import environment

ASKED = "from tuneoff import environment; print(environment.today(), environment.now())"


def test_a_day_holds_here_and_in_processes(on_day: Callable[[str], None]) -> None:
    for day in ("2027-11-01", "2026-12-31"):
        on_day(day)
        command = [sys.executable, "-c", ASKED]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        assert told[0] == str(environment.today()) == day
        assert environment.now().utcoffset() == datetime.timedelta()
        assert told[-1].endswith("+00:00")
