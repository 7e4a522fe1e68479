"""The parent's side of the SQL sandbox: child processes, their deadlines and restarts.

A child (`worker.py`) judges a few requests at a time, each in steps. A child whose step exceeds its
time limit is killed, and the next request gets a new child. Times are in seconds.

Messages are lines of JSON. To the child: a list of requests per line. From the child: first a line
`{"ready": true}`. Then, for each request, a line with `scores`, `verdict` and perhaps `details`, or
with `reference_failure` (path and reason), or with `internal_error`. Between them comes `{"so_far":
scores}`, if a step took long or the next one may end the process; the parent's clock then restarts
for the next step.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import math
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from queue import LifoQueue
from typing import IO, Any, Literal, NamedTuple

from tuneoff.errors import TuneoffError

JudgeReply = dict[str, Any]


class DatabaseFile(NamedTuple):
    """The path of a database, and a stamp that changes with the file."""

    path: str
    stamp: int = 0


@dataclass(frozen=True, slots=True)
class JudgeRequest:
    """A prediction to judge."""

    reference: str
    prediction: str
    databases: tuple[DatabaseFile, ...]
    """The row's own database first, then its test suite."""
    mode: Literal["strict", "official"]
    metrics: tuple[str, ...]
    """The metrics to compute."""
    seconds: float
    """The time limit per query."""
    rows: int
    """The most rows of a result."""
    details: bool = False
    alone: bool = False
    """Whether only the reference is executed, and nothing judged."""
    stopped: str | None = None
    """How the prediction ended a process already; it is not executed again."""
    known: Mapping[str, bool] = field(default_factory=dict)
    """The scores that were known before that."""


# The time after the limit in which a child may end a step by itself; with the clock's interval
# under half a second.
GRACE_SECONDS = 0.35
WATCH_SECONDS = 0.05
START_SECONDS = 60.0
_REPLY_BYTES = 4_000_000
_KEPT_VARIABLES = ("LD_LIBRARY_PATH", "SYSTEMROOT")
_START_CODE = (
    "import sys; sys.path[:] = {path!r}; from tuneoff.scoring.sql.worker import main; main({n})"
)


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """The number of children, and the memory of each."""

    memory_bytes: int
    workers: int


class WorkerProcess:
    """One sandbox process, started when needed, and again after a kill."""

    def __init__(self, limits: WorkerLimits) -> None:
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        # A kill must hit the late step, never the next one.
        self._lock = threading.Lock()
        self._deadline = math.inf
        self._late = False
        self._stop = threading.Event()

    def judge(self, requests: Sequence[JudgeRequest], stop: threading.Event) -> list[JudgeReply]:
        """Return an answer to each request.

        A prediction that ends its process is judged once more without being executed. If that
        process ends, too, before the reference has a result, the reference is to blame.

        Raises:
            CancelledError: `stop` was set before the last answer.
        """
        self._stop = stop
        try:
            return self._judge_all(requests, stop)
        finally:
            self._stop = threading.Event()  # nobody may stop an idle child

    def _judge_all(
        self, requests: Sequence[JudgeRequest], stop: threading.Event
    ) -> list[JudgeReply]:
        answers: list[JudgeReply] = []
        left = deque(requests)
        while left:
            so_far: dict[str, bool] = {}
            ended = self._judge(left, answers, so_far)
            if stop.is_set():
                raise CancelledError
            if ended is None:
                break
            killer = left.popleft()
            if killer.stopped is None:
                left.appendleft(replace(killer, stopped=ended, known=so_far))
            else:
                answers.append(_build_killer_answer(killer, so_far))
        return answers

    def _judge(
        self, left: deque[JudgeRequest], answers: list[JudgeReply], so_far: dict[str, bool]
    ) -> str | None:
        """Remove answered requests, and return how the process ended; None if it did not.

        `so_far` then holds the scores of the request that is now first.
        """
        process = self._get_process()
        _send_line(process, json.dumps([asdict(request) for request in left]).encode() + b"\n")
        while left:
            line, late = self._receive(process, left[0].seconds + GRACE_SECONDS)
            if late or not line.endswith(b"\n"):
                self.close()
                return "timeout" if late else "crashed"
            reply: JudgeReply = json.loads(line)
            if "so_far" in reply:
                so_far.update(reply["so_far"])
            else:
                answers.append(reply)
                left.popleft()
                so_far.clear()
        return None

    def kill_if_late(self) -> None:
        """Kill the process if its step is overdue or cancelled; called from another thread."""
        with self._lock:
            process = self._process  # another thread may be closing it
            late = time.monotonic() > self._deadline or self._stop.is_set()
            if late and process is not None:
                self._late = True
                process.kill()

    def close(self) -> None:
        """Kill the process; the next request starts another."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                # Unwritten input of a dead child does not matter.
                with contextlib.suppress(OSError):
                    _require_stream(stream).close()

    def _get_process(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is not None:
            self.close()  # ended by the system while idle
        if self._process is None:
            self._process = _start_process(self._limits.memory_bytes)
            ready, _ = self._receive(self._process, START_SECONDS)
            if not ready.endswith(b"\n"):
                self.close()
                raise TuneoffError(
                    f"the SQL sandbox did not start: {sys.executable} with "
                    f"{self._limits.memory_bytes} bytes of memory ended at once; check that "
                    "this Python runs, or allow more memory."
                )
        return self._process

    def _receive(self, process: subprocess.Popen[bytes], seconds: float) -> tuple[bytes, bool]:
        """Return one line, and whether the process was killed for lateness."""
        with self._lock:
            self._deadline, self._late = time.monotonic() + seconds, False
        line = _require_stream(process.stdout).readline(_REPLY_BYTES)
        with self._lock:
            self._deadline = math.inf
            return line, self._late


def _build_killer_answer(killer: JudgeRequest, so_far: dict[str, bool]) -> JudgeReply:
    """Return the answer to a request that ended two processes."""
    known = {**killer.known, **so_far}
    executes = killer.databases and {"execution_accuracy", "test_suite_accuracy"} & {
        *killer.metrics
    }
    if killer.alone or (executes and "execution_accuracy" not in known):
        return {"reference_failure": [killer.databases[0].path, killer.stopped]}
    scores = {metric: known.get(metric, False) for metric in killer.metrics}
    return {"scores": scores, "verdict": killer.stopped}


def _start_process(memory_bytes: int) -> subprocess.Popen[bytes]:
    """Start a child process with the module path of this one, and nothing else.

    No secrets in its environment, no file handles, no terminal.
    """
    path = [os.path.abspath(entry) for entry in sys.path]
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-B", "-c", _START_CODE.format(path=path, n=memory_bytes)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ},
        cwd=os.path.abspath(os.sep),
        # Ctrl-C reaches only the parent, which then ends its children in order.
        start_new_session=True,
    )


def _send_line(process: subprocess.Popen[bytes], line: bytes) -> None:
    with contextlib.suppress(BrokenPipeError):
        _require_stream(process.stdin).write(line)
        _require_stream(process.stdin).flush()


def _require_stream(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


class WorkerPool:
    """A few children; as many threads may call `judge`."""

    def __init__(self, limits: WorkerLimits) -> None:
        self.limits = limits
        # Last in, first out: only as many processes are started as are busy at once.
        self._idle: LifoQueue[WorkerProcess] = LifoQueue()
        self._children = [WorkerProcess(limits) for _ in range(limits.workers)]
        for child in self._children:
            self._idle.put(child)
        self._closed = threading.Event()
        # One clock thread for all children: a timer per request would take longer than most
        # requests.
        self._clock = threading.Thread(target=self._watch, name="sql-clock", daemon=True)
        self._clock.start()

    def _watch(self) -> None:
        while not self._closed.wait(WATCH_SECONDS):
            for child in self._children:
                child.kill_if_late()

    def judge(
        self, requests: Sequence[JudgeRequest], stop: threading.Event | None = None
    ) -> list[JudgeReply]:
        """Return an answer to each request, in order; waits for an idle child.

        Raises:
            CancelledError: `stop` was set before the last answer.
        """
        child = self._idle.get()
        try:
            return child.judge(requests, stop or threading.Event())
        except BaseException:
            child.close()  # its answers are not wanted any more
            raise
        finally:
            self._idle.put(child)

    def close(self) -> None:
        """Stop the clock and every child; nothing may be running."""
        self._closed.set()
        self._clock.join()
        for child in self._children:
            child.close()


@cache
def get_shared_pool(limits: WorkerLimits) -> WorkerPool:
    """Return a pool that stays warm for the next scoring, until this process ends."""
    pool = WorkerPool(limits)
    atexit.register(pool.close)
    return pool
