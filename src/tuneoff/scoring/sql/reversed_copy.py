"""Copies a database with the rows of every table in reverse order.

If a reference returns another result there, it depends on the storage order, which no question asks
for: a column outside GROUP BY, `= (SELECT .. LIMIT 1)` over tied rows, group_concat. The copy is in
memory. Its tables have the same columns, affinities and collations, and no keys: an INTEGER PRIMARY
KEY would restore the order, and indexes would impose their own. Views are those of the original.
"""

from __future__ import annotations

import sqlite3
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import closing

from tuneoff.scoring.sql.sandbox import ReadOnlyDatabase, confine, open_file

# Bytes. A larger database is not copied.
COPIED_BYTES = 32_000_000
_KEPT_BYTES = 64_000_000
_NUMBER = '"tuneoff number"'  # no column has this name
_INSTRUCTIONS_BETWEEN_CHECKS = 1_000
# SQLite's rules for a column's affinity by its declared type; the first that occurs counts.
_AFFINITIES = (
    ("INT", "INTEGER"), ("CHAR", "TEXT"), ("CLOB", "TEXT"), ("TEXT", "TEXT"), ("BLOB", "BLOB"),
    ("REAL", "REAL"), ("FLOA", "REAL"), ("DOUB", "REAL"),
)  # fmt: skip

_copies: OrderedDict[tuple[str, int], tuple[ReadOnlyDatabase, int]] = OrderedDict()


class NotCopied(Exception):
    """A database that is too large to copy, or has something that cannot be copied."""


def open_reversed(path: str, stamp: int, seconds: float) -> ReadOnlyDatabase:
    """Return the read-only reversed copy of a database; the latest ones are cached.

    Args:
        stamp: changes when the file does.
        seconds: the time limit of the copy.

    Raises:
        NotCopied: the database cannot be copied.
    """
    copied = _copies.pop((path, stamp), None)
    if copied is None:
        copied = _copy_database(path, seconds)
        kept = sum(size for _, size in _copies.values())
        while _copies and kept + copied[1] > _KEPT_BYTES:
            database, size = _copies.popitem(last=False)[1]
            database.connection.close()
            kept -= size
    _copies[path, stamp] = copied
    return copied[0]


def _copy_database(path: str, seconds: float) -> tuple[ReadOnlyDatabase, int]:
    """Return the copy and its size in bytes."""
    copy = sqlite3.connect(":memory:", isolation_level=None, cached_statements=0)
    try:
        with closing(open_file(path)) as original:
            size = _read_pragma(original, "page_count") * _read_pragma(original, "page_size")
            if size > COPIED_BYTES:
                raise NotCopied
            original.backup(copy)
        deadline = time.monotonic() + seconds
        copy.set_progress_handler(
            lambda: int(time.monotonic() > deadline), _INSTRUCTIONS_BETWEEN_CHECKS
        )
        copy.execute("PRAGMA legacy_alter_table = ON")  # what refers to a table stays as it is
        for table, is_strict in list(_list_tables(copy)):
            _reverse_table(copy, table, is_strict)
        return confine(copy, "surrogateescape"), size
    except (sqlite3.Error, MemoryError, NotCopied) as error:
        copy.close()
        raise NotCopied(str(error)) from None


def _read_pragma(connection: sqlite3.Connection, pragma: str) -> int:
    return int(connection.execute(f"PRAGMA {pragma}").fetchone()[0])


def _list_tables(connection: sqlite3.Connection) -> Iterator[tuple[str, bool]]:
    """Yield the name of each ordinary table, and whether it is STRICT.

    The shadow tables of a virtual table are skipped.
    """
    rows = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' "
        "ESCAPE '\\'"
    ).fetchall()
    virtual = [name for name, sql in rows if sql.upper().startswith("CREATE VIRTUAL")]
    for name, sql in rows:
        if name not in virtual and not any(name.startswith(f"{prefix}_") for prefix in virtual):
            yield name, "STRICT" in sql.upper().rpartition(")")[2]


def _reverse_table(connection: sqlite3.Connection, table: str, is_strict: bool) -> None:
    """Replace a table by one with the same columns and reversed rows."""
    old, new = _quote_name(table), _quote_name(f"tuneoff {table}")
    columns = [
        (_quote_name(name), _find_affinity(declared, is_strict))
        for _, name, declared, *_, hidden in connection.execute(f"PRAGMA table_xinfo({old})")
        if hidden != 1
    ]
    names = ", ".join(name for name, _ in columns)
    # Only an index shows the collations of columns.
    connection.execute(f'CREATE INDEX "tuneoff index" ON {old} ({names})')
    collations = [
        row[4] for row in connection.execute('PRAGMA index_xinfo("tuneoff index")') if row[5]
    ]
    connection.execute('DROP INDEX "tuneoff index"')
    declared = ", ".join(
        f"{name} {affinity} COLLATE {_quote_name(collation)}"
        for (name, affinity), collation in zip(columns, collations, strict=True)
    )
    connection.execute(f"CREATE TABLE {new} ({declared})")
    connection.execute(
        f"INSERT INTO {new} SELECT {names} FROM (SELECT *, row_number() OVER () AS {_NUMBER} "
        f"FROM {old} NOT INDEXED) ORDER BY {_NUMBER} DESC"
    )
    connection.execute(f"DROP TABLE {old}")
    connection.execute(f"ALTER TABLE {new} RENAME TO {old}")


def _find_affinity(declared: str, is_strict: bool) -> str:
    if is_strict and declared.upper() == "ANY":
        return "BLOB"  # STRICT keeps such values as they are
    named = (affinity for word, affinity in _AFFINITIES if word in declared.upper())
    return next(named, "NUMERIC") if declared else "BLOB"


def _quote_name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
