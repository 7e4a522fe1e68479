"""The child process that runs SQL written by a model: `python -I -S sandbox.py`.

A prediction is data. What runs here can read one database, for a limited time, in
limited memory, and nothing else:

- the file is opened read-only and immutable, `query_only` is on, temporary data stays in
  memory, and no file of more than 0 bytes can be written by this process;
- an authorizer allows SELECT, reading columns, functions and recursion; everything else
  (DDL, DML, ATTACH, PRAGMA, transactions, loading extensions) is refused before it runs;
- a progress handler ends a query at its time limit; the parent kills this process when a
  single step takes longer, and the CPU limit ends it when there is no parent any more;
- address space, number of rows, bytes of a value and bytes of a result are capped.

Not covered: a flaw in SQLite itself (there is no seccomp filter or container around this
process), and memory where the system has no RLIMIT_AS (macOS, Windows).

Speaks JSON lines: `{"database", "sql", "seconds", "rows"}` in; `{"columns", "rows"}` or
`{"failure"}` out, after a first line `{"ready": true}`. Bytes are `{"hex": ".."}`. Only
the standard library is imported, by file path, so a child starts in a few hundredths of
a second and holds nothing of its parent.
"""

from __future__ import annotations

import json
import math
import os
import sqlite3
import sys
import time
from functools import lru_cache
from typing import Any
from urllib.parse import quote

VALUE_BYTES = 16_000_000
RESULT_BYTES = 32_000_000
_INSTRUCTIONS_BETWEEN_CHECKS = 1_000
_ALLOWED = frozenset(
    (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)
)
_FORBIDDEN_FUNCTIONS = frozenset(
    ("load_extension", "readfile", "writefile", "edit", "fts3_tokenizer", "fts5", "sqlite_log")
)
_SYNTAX = ("syntax error", "incomplete input", "unrecognized token")


class Refused(Exception):
    """A query was ended by a limit; the message is the verdict."""


class State:
    """The query that is running; SQLite's callbacks look here."""

    deadline = math.inf
    timed_out = False
    denied = False


def limit_process(memory_bytes: int) -> None:
    """Caps memory and forbids files; does what the system offers of it."""
    try:
        import resource
    except ImportError:  # Windows: the parent's clock is the only limit there
        return
    limits = ((resource.RLIMIT_AS, memory_bytes), (resource.RLIMIT_FSIZE, 0))
    for kind, value in (*limits, (resource.RLIMIT_CORE, 0)):
        try:
            resource.setrlimit(kind, (value, value))
        except (ValueError, OSError):
            continue


def limit_cpu(seconds: float) -> None:
    """Ends this process when a query computes on although nobody is left to kill it."""
    try:
        import resource
    except ImportError:
        return
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    soft = math.ceil(time.process_time() + seconds) + 2
    if hard == resource.RLIM_INFINITY or soft < hard:
        resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


@lru_cache(maxsize=8)
def connect(path: str) -> sqlite3.Connection:
    """A connection that can only read; a few are kept, for questions come by database."""
    uri = f"file:{quote(os.fsencode(path))}?mode=ro&immutable=1"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, cached_statements=0)
    # Undecodable bytes survive as lone surrogates, so that different bytes stay different.
    connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
    connection.execute("PRAGMA query_only = ON")
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, VALUE_BYTES)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.set_authorizer(_authorize)
    connection.set_progress_handler(_late, _INSTRUCTIONS_BETWEEN_CHECKS)
    return connection


def _authorize(action: int, first: str | None, second: str | None, *_: object) -> int:
    forbidden = action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in _FORBIDDEN_FUNCTIONS
    if action in _ALLOWED and not forbidden:
        return sqlite3.SQLITE_OK
    State.denied = True
    return sqlite3.SQLITE_DENY


def _late() -> int:
    State.timed_out = State.timed_out or time.monotonic() > State.deadline
    return int(State.timed_out)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Result or failure of one query; never raises."""
    State.deadline = time.monotonic() + request["seconds"]
    State.timed_out = State.denied = False
    limit_cpu(request["seconds"])
    try:
        columns, rows = _select(connect(request["database"]), request["sql"], request["rows"])
    except Exception as error:
        return {"failure": _verdict(error)}
    return {"columns": columns, "rows": rows}


def _select(connection: sqlite3.Connection, sql: str, row_limit: int) -> tuple[int, list[Any]]:
    cursor = connection.execute(sql)
    try:
        if cursor.description is None:
            raise Refused("not a query")
        rows: list[Any] = []
        size = 0
        for row in cursor:
            size += sum(len(value) if isinstance(value, (str, bytes)) else 8 for value in row)
            if len(rows) == row_limit or size > RESULT_BYTES:
                raise Refused("too large")
            if _late():
                raise Refused("timeout")
            rows.append(row)
        return len(cursor.description), rows
    finally:
        cursor.close()


def _verdict(error: Exception) -> str:
    """The class of error that a user reads; SQLite's own words where they are plain."""
    message = str(error)
    if State.timed_out or message == "interrupted":
        return "timeout"
    if State.denied:
        return "denied"
    if isinstance(error, MemoryError) or "too big" in message or "out of memory" in message:
        return "too large"
    if isinstance(error, UnicodeError) or "null character" in message:
        return "syntax error"
    if "one statement" in message:
        return "more than one statement"
    if any(words in message for words in _SYNTAX):
        return "syntax error"
    return message or type(error).__name__


def encode(value: object) -> object:
    """Bytes for JSON.

    Raises:
        TypeError: the value is of another type.
    """
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    raise TypeError(type(value).__name__)


def main() -> None:
    """Answers requests until there are no more."""
    limit_process(int(sys.argv[1]))
    print('{"ready": true}', flush=True)
    for line in sys.stdin.buffer:
        try:
            text = json.dumps(answer(json.loads(line)), default=encode)
        except MemoryError:
            text = '{"failure": "too large"}'
        print(text, flush=True)


if __name__ == "__main__":
    main()
