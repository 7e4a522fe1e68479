"""The SQL sandbox: a model's query may read one database, in limited time and memory.

A prediction is data, and hostile until shown otherwise. Everything that reads one (parsing,
comparing, executing) happens in a child process (`worker.py`, started by `worker_pool.py`), and in
it:

- the file is opened read-only and immutable, `query_only` is on, temporary data stays in memory,
  and the process cannot write a file of more than 0 bytes;
- an authorizer allows SELECT, reading columns, functions and recursion; everything else (DDL, DML,
  ATTACH, PRAGMA, transactions, loading extensions) is refused before it runs;
- a progress handler ends a query at its time limit; the parent kills the process when a single step
  takes longer, and a CPU limit ends it when there is no parent any more;
- address space and SQLite's heap, the length of a query and its depth, the number of rows, the
  bytes of a value and of a result are capped;
- the process has no file handles but its pipes and the databases, and an empty environment.

Not covered: a flaw in SQLite itself (there is no seccomp filter or container around the process);
reading other SQLite files is prevented by the authorizer alone; memory is not limited where the
system has no RLIMIT_AS (macOS, Windows).
"""

from __future__ import annotations

import math
import os
import sqlite3
import time
from collections import OrderedDict
from functools import cached_property
from typing import NamedTuple
from urllib.parse import quote

MAX_SQL_BYTES = 100_000
MAX_VALUE_BYTES = 16_000_000
MAX_RESULT_BYTES = 32_000_000
NOT_A_QUERY = "not a query"
_INSTRUCTIONS_BETWEEN_CHECKS = 1_000
_MAX_OPEN_FILES = 128
_MAX_OPEN_DATABASES = 100
_ALLOWED = frozenset(
    (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)
)
_FORBIDDEN_FUNCTIONS = frozenset(
    ("load_extension", "readfile", "writefile", "edit", "fts3_tokenizer", "fts5", "sqlite_log")
)
_LIMITS = (
    (sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES),
    (sqlite3.SQLITE_LIMIT_SQL_LENGTH, MAX_SQL_BYTES),
    (sqlite3.SQLITE_LIMIT_COLUMN, 2_000),
    (sqlite3.SQLITE_LIMIT_ATTACHED, 0),
    (sqlite3.SQLITE_LIMIT_WORKER_THREADS, 0),
)
_SYNTAX = ("syntax error", "incomplete input", "unrecognized token")
_WRITES = ("may not be modified", "readonly database")
_TOO_LARGE = (
    "too big", "out of memory", "too large", "too many", "too deep", "too complex",
    "too long", "stack overflow",
)  # fmt: skip
# SQLite's messages when its parser fails, before names are resolved.
_UNREADABLE = (*_SYNTAX, *_TOO_LARGE, "null character", "one statement", "clause should come after")

CellValue = None | int | float | str | bytes
ResultRow = tuple[CellValue, ...]


class ResultTable(NamedTuple):
    """The result of a query."""

    columns: tuple[str, ...]
    rows: list[ResultRow]


class QueryStopped(Exception):
    """A query without a result; the message is the verdict."""


class _State:
    """The state of the running query, shared with SQLite's callbacks."""

    deadline = math.inf
    timed_out = False
    denied = False


def limit_process(memory_bytes: int) -> None:
    """Limit memory and forbid files, as far as the system can."""
    try:
        import resource
    except ImportError:  # Windows: the parent's clock is the only limit there
        return
    limits = (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, _MAX_OPEN_FILES),
    )
    for kind, value in limits:
        try:
            resource.setrlimit(kind, (value, value))
        except (ValueError, OSError):
            continue


def limit_cpu(seconds: float) -> None:
    """Limit CPU time, so that this process ends even if no parent can kill it."""
    try:
        import resource
    except ImportError:
        return
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    soft = math.ceil(time.process_time() + seconds) + 2
    if hard == resource.RLIM_INFINITY or soft < hard:
        resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


class DatabaseColumns(NamedTuple):
    """The names of a database in lower case: columns by table, and foreign-key pairs."""

    by_table: dict[str, list[str]]
    foreign_keys: list[tuple[str, str]]


class ReadOnlyDatabase:
    """A read-only connection and its names."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    @cached_property
    def columns(self) -> DatabaseColumns:
        """Return the names; they are read on first use, without the authorizer."""
        self.connection.set_authorizer(None)
        _State.deadline, _State.timed_out = math.inf, False
        try:
            return read_columns(self.connection)
        finally:
            self.connection.set_authorizer(_authorize)


_opened: OrderedDict[tuple[str, int, bool], ReadOnlyDatabase] = OrderedDict()


def connect(path: str, stamp: int = 0, drop_undecodable: bool = False) -> ReadOnlyDatabase:
    """Return a read-only database; a few stay open, since requests are grouped by database.

    Args:
        stamp: changes when the file does.
        drop_undecodable: whether bytes that are not UTF-8 are dropped from texts. Else they become
            lone surrogates, so that different bytes stay different.

    Raises:
        sqlite3.Error: the file cannot be opened, or is not a database.
    """
    key = path, stamp, drop_undecodable
    database = _opened.pop(key, None)
    if database is None:
        database = confine(open_file(path), "ignore" if drop_undecodable else "surrogateescape")
        if len(_opened) >= _MAX_OPEN_DATABASES:
            _opened.popitem(last=False)[1].connection.close()
    _opened[key] = database
    return database


def open_file(path: str) -> sqlite3.Connection:
    """Return a connection that writes neither to the file nor beside it."""
    uri = f"file:{quote(os.fsencode(path))}?mode=ro&immutable=1"
    return sqlite3.connect(uri, uri=True, isolation_level=None, cached_statements=0)


def confine(connection: sqlite3.Connection, errors: str) -> ReadOnlyDatabase:
    """Return a connection as a read-only database within the limits.

    Args:
        errors: how texts that are not UTF-8 are decoded (`bytes.decode`).

    Raises:
        sqlite3.Error: there is no database behind the connection.
    """
    connection.text_factory = lambda raw: raw.decode("utf-8", errors)
    connection.execute("PRAGMA query_only = ON")
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    connection.execute("PRAGMA cache_size = -1000")
    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # is it a database?
    for kind, value in _LIMITS:
        connection.setlimit(kind, value)
    connection.set_authorizer(_authorize)
    connection.set_progress_handler(_is_late, _INSTRUCTIONS_BETWEEN_CHECKS)
    return ReadOnlyDatabase(connection)


def is_readable(sql: str) -> bool:
    """Return whether SQLite can parse a statement; its names need not exist.

    Nothing is executed: the statement is only explained, over a database without tables.
    """
    connection = sqlite3.connect(":memory:", isolation_level=None, cached_statements=0)
    try:
        for kind, value in _LIMITS:
            connection.setlimit(kind, value)
        connection.set_authorizer(_authorize)
        connection.execute(f"EXPLAIN {sql}").close()
    except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError, MemoryError) as error:
        message = str(error)
        return isinstance(error, sqlite3.Error) and not any(w in message for w in _UNREADABLE)
    finally:
        connection.close()
    return True


def limit_heap(bytes: int) -> None:
    """Limit the memory of all of SQLite in this process."""
    connection = sqlite3.connect(":memory:")
    connection.execute(f"PRAGMA hard_heap_limit = {bytes}")
    connection.close()


def read_columns(connection: sqlite3.Connection) -> DatabaseColumns:
    """Return the names of a database."""
    by_table: dict[str, list[str]] = {}
    keys: list[tuple[str, str]] = []
    tables = [row[0] for row in connection.execute(_TABLES)]
    for table in tables:
        by_table[table.lower()] = [row[0].lower() for row in connection.execute(_NAMES, (table,))]
    for table in tables:
        for column, other, key, place in connection.execute(_KEYS, (table,)).fetchall():
            # A foreign key without a column means the other table's primary key.
            if key is None:
                primary = [row[0] for row in connection.execute(_PRIMARY, (other,))]
                key = primary[place] if place < len(primary) else ""
            keys.append((f"{table}.{column}".lower(), f"{other}.{key}".lower()))
    return DatabaseColumns(by_table, keys)


_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY rowid"
_NAMES = "SELECT name FROM pragma_table_info(?) ORDER BY cid"
_PRIMARY = "SELECT name FROM pragma_table_info(?) WHERE pk > 0 ORDER BY pk"
_KEYS = 'SELECT "from", "table", "to", seq FROM pragma_foreign_key_list(?) ORDER BY id DESC, seq'


def _authorize(action: int, first: str | None, second: str | None, *_: object) -> int:
    forbidden = action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in _FORBIDDEN_FUNCTIONS
    if action in _ALLOWED and not forbidden:
        return sqlite3.SQLITE_OK
    _State.denied = True
    return sqlite3.SQLITE_DENY


def _is_late() -> int:
    _State.timed_out = _State.timed_out or time.monotonic() > _State.deadline
    return int(_State.timed_out)


def select(database: ReadOnlyDatabase, sql: str, seconds: float, row_limit: int) -> ResultTable:
    """Return the result of one query.

    Raises:
        Stopped: it has none; the message says why.
    """
    _State.deadline = time.monotonic() + seconds
    _State.timed_out = _State.denied = False
    try:
        if len(sql) > MAX_SQL_BYTES:
            raise QueryStopped("too large")
        return _fetch_table(database.connection, sql, row_limit)
    except QueryStopped:
        raise
    except Exception as error:
        raise QueryStopped(_classify_error(error)) from None


def _fetch_table(connection: sqlite3.Connection, sql: str, row_limit: int) -> ResultTable:
    cursor = connection.execute(sql)
    try:
        if cursor.description is None:
            raise QueryStopped(NOT_A_QUERY)
        rows: list[ResultRow] = []
        size = 0
        for row in cursor:
            size += sum(len(value) if isinstance(value, (str, bytes)) else 8 for value in row)
            if len(rows) == row_limit or size > MAX_RESULT_BYTES:
                raise QueryStopped("too large")
            if _is_late():
                raise QueryStopped("timeout")
            rows.append(row)
        return ResultTable(tuple(column[0] for column in cursor.description), rows)
    finally:
        cursor.close()


def _classify_error(error: Exception) -> str:
    """Return the error class for users; SQLite's own words if they are plain."""
    message = str(error)
    if _State.timed_out or message == "interrupted":
        return "timeout"
    if _State.denied or any(words in message for words in _WRITES):
        return "denied"
    if isinstance(error, (MemoryError, OverflowError)) or any(w in message for w in _TOO_LARGE):
        return "too large"
    if isinstance(error, UnicodeError) or "null character" in message:
        return "syntax error"
    if "bindings supplied" in message:
        return "unbound parameter"
    if "one statement" in message:
        return "more than one statement"
    if any(words in message for words in _SYNTAX):
        return "syntax error"
    return message or type(error).__name__
