"""The child process of the SQL sandbox: judges the requests of its parent (`worker_pool.py`)."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any

from tuneoff.scoring.sql import sandbox
from tuneoff.scoring.sql.judge import judge
from tuneoff.scoring.sql.reference import ReferenceFailedError
from tuneoff.scoring.sql.sandbox import QueryStopped
from tuneoff.scoring.sql.worker_pool import DatabaseFile, JudgeRequest

# Shorter steps are not reported.
_SILENT_SECONDS = 0.02


class _LineWriter:
    """Writes lines, and knows the time of the last one."""

    def __init__(self) -> None:
        self._written = time.monotonic()

    def write(self, value: dict[str, Any]) -> None:
        os.write(1, json.dumps(value).encode() + b"\n")
        self._written = time.monotonic()

    def step(self, so_far: Mapping[str, bool], now: bool) -> None:
        if now or time.monotonic() - self._written > _SILENT_SECONDS:
            self.write({"so_far": dict(so_far)})


def _raise_timeout(*_: object) -> None:
    raise QueryStopped("timeout")


def _judge_request(value: dict[str, Any], lines: _LineWriter) -> dict[str, Any]:
    request = JudgeRequest(**value)
    # Per database: the reference runs, is ranked, and runs over a copy; the prediction runs; both
    # are compared, with and without ties.
    sandbox.limit_cpu(request.seconds * (2 + 10 * len(request.databases)))
    try:
        return judge(request, lines.step)
    except ReferenceFailedError as failure:
        return {"reference_failure": failure.args}
    except MemoryError:
        os._exit(1)  # the process is in an unknown state
    except Exception as error:  # our own error must not look like a wrong answer
        return {"internal_error": f"{type(error).__name__}: {error}"}


def main(memory_bytes: int) -> None:
    """Judge requests until the input ends."""
    sandbox.limit_heap(memory_bytes // 2)
    sandbox.limit_process(memory_bytes)
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, _raise_timeout)
    lines = _LineWriter()
    lines.write({"ready": True})
    for batch in sys.stdin.buffer:
        for value in json.loads(batch):
            value["databases"] = tuple(DatabaseFile(*file) for file in value["databases"])
            value["metrics"] = tuple(value["metrics"])
            lines.write(_judge_request(value, lines))
