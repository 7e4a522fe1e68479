"""Copies whose rows are stored the other way round: all else is as it was."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tuneoff.scoring.sql import reversed_copy
from tuneoff.scoring.sql.reversed_copy import NotCopied, open_reversed
from tuneoff.scoring.sql.sandbox import QueryStopped, connect, select

SCHEMA = """
CREATE TABLE port (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE COLLATE NOCASE);
CREATE TABLE ship (
    id INTEGER PRIMARY KEY, "odd "" name" VARCHAR(9), port REFERENCES port (id), load DECIMAL(9, 2),
    doubled AS (load * 2), CHECK (load <> 100)
);
CREATE TABLE cargo (ship INT, number INT, kind, PRIMARY KEY (ship, number DESC)) WITHOUT ROWID;
CREATE TABLE "select" (rowid TEXT, "tuneoff" FLOAT);
CREATE INDEX by_load ON ship (load);
CREATE VIEW loaded AS SELECT id, name FROM ship JOIN port USING (id);
CREATE TRIGGER never BEFORE INSERT ON ship BEGIN SELECT raise(ABORT, 'never'); END;
INSERT INTO port VALUES (1, 'Norrby'), (2, 'söder'), (9, CAST(x'636166e9' AS TEXT));
DROP TRIGGER never;
INSERT INTO ship VALUES (1, '07', '1', 5), (2, 7, 2, '6.50'), (3, x'37', NULL, 'much');
CREATE TRIGGER never BEFORE INSERT ON ship BEGIN SELECT raise(ABORT, 'never'); END;
INSERT INTO cargo VALUES (1, 1, 'tea'), (1, 2, 5), (2, 1, '5');
INSERT INTO "select" VALUES ('x', 1), ('a', 2), ('x', 1);
"""


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le"])
def test_rows_alone_are_the_other_way_round(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "d ?#.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA encoding = '{encoding}'")
        connection.executescript(SCHEMA)
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    original, copy = connect(str(path)), open_reversed(str(path), 0, 5.0)
    for table in ("port", "ship", "cargo", '"select"'):
        types = ", ".join(f"typeof({name})" for name in original.columns.by_table[table.strip('"')]
                          if '"' not in name and table != '"select"') or "1"  # fmt: skip
        there, here = (
            select(each, f"SELECT *, {types} FROM {table} NOT INDEXED", 1.0, 99)
            for each in (original, copy)
        )
        assert here.columns == there.columns
        assert here.rows == there.rows[::-1]
    for query in (
        "SELECT count(*) FROM port WHERE name = 'NORRBY'",
        "SELECT count(*) FROM ship JOIN port ON ship.port = port.id",
        "SELECT count(*) FROM ship WHERE load = '6.5'",
        "SELECT group_concat(name) FROM (SELECT name FROM loaded ORDER BY id DESC)",
    ):
        assert select(copy, query, 1.0, 9) == select(original, query, 1.0, 9)
    with pytest.raises(QueryStopped, match="denied"):
        select(copy, "DELETE FROM port", 1.0, 9)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    assert open_reversed(str(path), 0, 5.0) is copy
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_what_is_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "d.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.create_collation("own", lambda one, other: (one > other) - (one < other))
        connection.execute("CREATE TABLE t (a TEXT COLLATE own)")
        connection.commit()
    with pytest.raises(NotCopied, match="own"):
        open_reversed(str(path), 0, 5.0)
    monkeypatch.setattr(reversed_copy, "COPIED_BYTES", 4_096)
    with pytest.raises(NotCopied):
        open_reversed(str(path), 1, 5.0)


def test_the_latest_copies_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [str(tmp_path / f"{name}.sqlite") for name in "abc"]
    for path in paths:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE t (a)")
    monkeypatch.setattr(reversed_copy, "_KEPT_BYTES", 2 * 8_192)
    first, *others = [open_reversed(path, 0, 5.0) for path in paths]
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        first.connection.execute("SELECT 1")
    assert [open_reversed(path, 0, 5.0) for path in paths[1:]] == others
