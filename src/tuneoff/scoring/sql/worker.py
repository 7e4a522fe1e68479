"""The child process of the SQL sandbox: judges what it is sent (`protocol.py`)."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any

from tuneoff.scoring.sql import sandbox
from tuneoff.scoring.sql.judging import judge
from tuneoff.scoring.sql.protocol import DatabaseFile, Request
from tuneoff.scoring.sql.reference import ReferenceFails
from tuneoff.scoring.sql.sandbox import Stopped

# A step shorter than this is not worth a line.
_SILENT_SECONDS = 0.02


class _Lines:
    """Writes lines, and knows when it last did."""

    def __init__(self) -> None:
        self._written = time.monotonic()

    def write(self, value: dict[str, Any]) -> None:
        os.write(1, json.dumps(value).encode() + b"\n")
        self._written = time.monotonic()

    def step(self, so_far: Mapping[str, bool], now: bool) -> None:
        if now or time.monotonic() - self._written > _SILENT_SECONDS:
            self.write({"so_far": dict(so_far)})


def _timeout(*_: object) -> None:
    raise Stopped("timeout")


def _judged(value: dict[str, Any], lines: _Lines) -> dict[str, Any]:
    request = Request(**value)
    # On each database: a reference runs, is ranked, and runs over a copy; a prediction runs; both
    # are compared with the reference's result, with and without ties.
    sandbox.limit_cpu(request.seconds * (2 + 10 * len(request.databases)))
    try:
        return judge(request, lines.step)
    except ReferenceFails as failure:
        return {"reference_failure": failure.args}
    except MemoryError:
        os._exit(1)  # what is left of this process is not to be trusted
    except Exception as error:  # a mistake of ours must not look like a wrong answer
        return {"internal_error": f"{type(error).__name__}: {error}"}


def main(memory_bytes: int) -> None:
    """Judges requests until there are no more."""
    sandbox.limit_heap(memory_bytes // 2)
    sandbox.limit_process(memory_bytes)
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, _timeout)
    lines = _Lines()
    lines.write({"ready": True})
    for batch in sys.stdin.buffer:
        for value in json.loads(batch):
            value["databases"] = tuple(DatabaseFile(*each) for each in value["databases"])
            value["metrics"] = tuple(value["metrics"])
            lines.write(_judged(value, lines))
