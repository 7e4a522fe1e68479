"""Writes the schema of a SQLite file as one line of text, in Spider's own form.

    singer : singer_id [ INT ] primary_key name [ TEXT ] concert : singer_id [ INT ]
    concert.singer_id = singer.singer_id

Tables come in the order of creation. A column is followed by its declared type in upper case, then
by `primary_key` if it is part of the key, then by the column that it refers to.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from tuneoff.errors import DataError
from tuneoff.storage.databases import find_committed


def serialize_schema(file: Path) -> str:
    """Return the schema of a SQLite file as text.

    Raises:
        DataError: the file is not a SQLite database.
    """
    try:
        uri = f"{find_committed(file).resolve().as_uri()}?mode=ro&immutable=1"
        with closing(sqlite3.connect(uri, uri=True)) as database:
            tables = [
                name
                for (name,) in database.execute(
                    "SELECT name FROM sqlite_master WHERE type = 'table' "
                    "AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY rowid"
                )
            ]
            return " ".join(_serialize_table(database, name) for name in tables)
    except sqlite3.DatabaseError as error:
        raise DataError(f"{file}: this is not a SQLite database ({error}).") from None


def _serialize_table(database: sqlite3.Connection, table: str) -> str:
    references = {
        own.lower(): f"{other}.{theirs or own}"
        for _, _, other, own, theirs, *_ in database.execute(
            "SELECT * FROM pragma_foreign_key_list(?)", (table,)
        )
    }
    parts = [f"{table} :"]
    for _, column, kind, _, _, key in database.execute(
        "SELECT * FROM pragma_table_info(?)", (table,)
    ):
        parts.append(f"{column} [ {kind.upper()} ]")
        if key:
            parts.append("primary_key")
        if column.lower() in references:
            parts.append(f"{table}.{column} = {references[column.lower()]}")
    return " ".join(parts)
