"""The parent's side of the SQL sandbox: child processes, their deadlines, their restarts.

A child (`sandbox.py`) answers one query at a time. When an answer is not there half a
second after the query's time limit, the child is killed and the next query gets a new
one. Times are seconds.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import LifoQueue
from typing import IO, Any

from tuneoff.errors import TuneoffError
from tuneoff.scoring.sql import sandbox

GRACE_SECONDS = 0.5
WATCH_SECONDS = 0.05
START_SECONDS = 60.0
# JSON takes up to six characters for one byte of text.
_REPLY_BYTES = 8 * sandbox.RESULT_BYTES
_KEPT_VARIABLES = ("LD_LIBRARY_PATH", "SYSTEMROOT")

Value = None | int | float | str | bytes


@dataclass(frozen=True, slots=True)
class Table:
    """The result of a query."""

    columns: int
    rows: list[tuple[Value, ...]]


@dataclass(frozen=True, slots=True)
class Failure:
    """A query without a result: `timeout`, `denied`, `no such column: x`, …"""

    reason: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What one query may take, and how many run at once."""

    seconds: float
    memory_bytes: int
    rows: int
    workers: int


class Child:
    """One sandbox process, started when it is first needed and again after a kill."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        # A kill must hit the query that is late, never the one that comes after it.
        self._lock = threading.Lock()
        self._deadline = math.inf
        self._late = False

    def run(self, database: Path, sql: str) -> Table | Failure:
        """Result or failure of one query, soon after `seconds` + 0.5 at the latest."""
        process = self._started()
        request = {
            "database": str(database),
            "sql": sql,
            "seconds": self._limits.seconds,
            "rows": self._limits.rows,
        }
        line = json.dumps(request).encode() + b"\n"
        reply, late = self._exchange(process, line, self._limits.seconds + GRACE_SECONDS)
        complete = reply.endswith(b"\n")
        if late or not complete:
            self.close()
        if complete:
            return _decode(reply)
        if late:
            return Failure("timeout")
        return Failure("too large" if reply else "crashed")

    def kill_if_late(self) -> None:
        """Ends the process when its answer is overdue; called from another thread."""
        with self._lock:
            if time.monotonic() > self._deadline and self._process is not None:
                self._late = True
                self._process.kill()

    def close(self) -> None:
        """Kills the process; the next query starts another."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                # What was not written to a dead child is not missed.
                with contextlib.suppress(OSError):
                    _open(stream).close()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is not None:
            self.close()  # ended by the system while idle
        if self._process is None:
            self._process = _start(self._limits.memory_bytes)
            ready, _ = self._exchange(self._process, b"", START_SECONDS)
            if not ready.endswith(b"\n"):
                self.close()
                raise TuneoffError(
                    f"the SQL sandbox did not start: {sys.executable} with "
                    f"{self._limits.memory_bytes} bytes of memory ended at once; check that "
                    "this Python runs, or allow more memory."
                )
        return self._process

    def _exchange(
        self, process: subprocess.Popen[bytes], line: bytes, seconds: float
    ) -> tuple[bytes, bool]:
        """Sends a line and reads one; also says whether it was killed for lateness."""
        with self._lock:
            self._deadline, self._late = time.monotonic() + seconds, False
        with contextlib.suppress(BrokenPipeError):
            _open(process.stdin).write(line)
            _open(process.stdin).flush()
        reply = _open(process.stdout).readline(_REPLY_BYTES)
        with self._lock:
            self._deadline = math.inf
            return reply, self._late


def _start(memory_bytes: int) -> subprocess.Popen[bytes]:
    """A new child: no site packages, no secrets in its environment, no terminal."""
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-B", sandbox.__file__, str(memory_bytes)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ},
        cwd=os.path.abspath(os.sep),
        # Ctrl-C reaches the parent alone, which then ends its children in good order.
        start_new_session=True,
    )


def _open(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


def _decode(reply: bytes) -> Table | Failure:
    value: dict[str, Any] = json.loads(reply)
    if "failure" in value:
        return Failure(str(value["failure"]))
    rows = [tuple(_value(cell) for cell in row) for row in value["rows"]]
    return Table(int(value["columns"]), rows)


def _value(cell: Any) -> Value:
    if isinstance(cell, dict):
        return bytes.fromhex(cell["hex"])
    kept: Value = cell
    return kept


class Pool:
    """A few children; `run` may be called from as many threads."""

    def __init__(self, limits: Limits) -> None:
        # Last in, first out: as few processes are started as are busy at once.
        self._idle: LifoQueue[Child] = LifoQueue()
        self._children = [Child(limits) for _ in range(limits.workers)]
        for child in self._children:
            self._idle.put(child)
        self._closed = threading.Event()
        # One clock for all children: a timer for each query would take longer than most.
        self._clock = threading.Thread(target=self._watch, name="sql-clock", daemon=True)
        self._clock.start()

    def _watch(self) -> None:
        while not self._closed.wait(WATCH_SECONDS):
            for child in self._children:
                child.kill_if_late()

    def run(self, database: Path, sql: str) -> Table | Failure:
        """Result or failure of one query; waits for an idle child."""
        child = self._idle.get()
        try:
            return child.run(database, sql)
        finally:
            self._idle.put(child)

    def close(self) -> None:
        """Ends the clock and every child; no query may be running."""
        self._closed.set()
        self._clock.join()
        for child in self._children:
            child.close()


@contextmanager
def open_pool(limits: Limits) -> Iterator[Pool]:
    """A pool whose processes are gone afterwards, whatever happens."""
    pool = Pool(limits)
    try:
        yield pool
    finally:
        pool.close()
