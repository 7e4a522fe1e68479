"""Derived databases: they keep the schema, meet the constants, and betray wrong queries."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tuneoff.scoring.base import Options, ScoringInput
from tuneoff.scoring.sql.derived_databases import collect_constants, derive_suites
from tuneoff.scoring.sql.scorer import score_rows

SCHEMA = """
CREATE TABLE port (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE ship (
    id INTEGER PRIMARY KEY, name TEXT, built INTEGER, port_id INTEGER REFERENCES port (id)
);
INSERT INTO port VALUES (1, 'Norrby'), (2, 'Söder');
INSERT INTO ship VALUES (1, 'Ada', 1950, 1), (2, 'Bo', 1970, 2), (3, 'Cy', 1990, NULL);
"""
GOLD = "SELECT name FROM ship WHERE built > 1960"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("databases")
    (folder / "harbour").mkdir()
    with closing(sqlite3.connect(folder / "harbour" / "harbour.sqlite")) as connection:
        connection.executescript(SCHEMA)
    (folder / "harbour" / "harbour.sqlite").chmod(0o444)
    return folder


@pytest.fixture(scope="module")
def derived(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    into = tmp_path_factory.mktemp("derived")
    derive_suites(folder, [("harbour", GOLD)] * 3, into, 12)
    return into


def rows(path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def files(derived: Path) -> list[Path]:
    return sorted((derived / "harbour").iterdir())


def test_the_schema_and_its_keys_are_kept(derived: Path, folder: Path) -> None:
    assert [path.name for path in files(derived)] == [f"derived-{i:02d}.sqlite" for i in range(12)]
    schema = "SELECT sql FROM sqlite_master ORDER BY name"
    original = rows(folder / "harbour" / "harbour.sqlite", schema)
    for path in files(derived):
        assert rows(path, schema) == original
        assert rows(path, "PRAGMA integrity_check") == [("ok",)]
        assert rows(path, "SELECT count(*) - count(DISTINCT name) FROM port") == [(0,)]


def test_rows_of_many_kinds(derived: Path) -> None:
    joined = "SELECT count(*) FROM ship JOIN port ON ship.port_id = port.id"
    assert sum(rows(path, joined)[0][0] != 0 for path in files(derived)) >= 6
    for column, value in (("built", 1960), ("built", 1961)):
        hit = f"SELECT count(*) FROM ship WHERE {column} = {value}"
        assert any(rows(path, hit)[0][0] for path in files(derived)), value
    counts = [rows(path, "SELECT count(*) FROM ship")[0][0] for path in files(derived)]
    assert 0 in counts or 0 in [rows(p, "SELECT count(*) FROM port")[0][0] for p in files(derived)]


def test_the_same_call_gives_the_same_rows(folder: Path, derived: Path, tmp_path: Path) -> None:
    derive_suites(folder, [("harbour", GOLD)], tmp_path, 3)
    for again, before in zip(files(tmp_path), files(derived), strict=False):
        for table in ("port", "ship"):
            assert rows(again, f"SELECT * FROM {table}") == rows(before, f"SELECT * FROM {table}")
    stamps = [path.stat().st_mtime_ns for path in files(tmp_path)]
    derive_suites(folder, [("harbour", GOLD)], tmp_path, 3)
    assert [path.stat().st_mtime_ns for path in files(tmp_path)] == stamps


def test_the_original_is_not_touched(folder: Path, tmp_path: Path) -> None:
    original = folder / "harbour" / "harbour.sqlite"
    before = hashlib.sha256(original.read_bytes()).hexdigest()
    derive_suites(folder, [("harbour", GOLD)], tmp_path, 2)
    assert hashlib.sha256(original.read_bytes()).hexdigest() == before
    assert [path.name for path in original.parent.iterdir()] == [original.name]


def test_constants_by_column() -> None:
    found = collect_constants(
        [
            "SELECT a FROM t WHERE B > 3 AND c LIKE '%x%' OR t.d BETWEEN 1 AND 2.5",
            'SELECT a FROM t WHERE c = "y" AND e IN (1, 2) LIMIT 7',
            "not a query",
        ]
    )
    assert found["b"] == [3]
    assert found["c"] == ["%x%", "y"]
    assert found["d"] == [1, 2.5]
    assert found["e"] == [1, 2]
    assert 7 not in [value for values in found.values() for value in values]


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (GOLD, "right"),
        ("SELECT name FROM ship WHERE NOT built <= 1960", "right"),
        ("SELECT name FROM ship WHERE built >= 1960", "right on one database only"),
        ("SELECT name FROM ship WHERE id > 1", "right on one database only"),
        ("SELECT DISTINCT name FROM ship WHERE built > 1960", "right on one database only"),
        ("SELECT name FROM ship", "wrong condition"),
        ("SELECT nme FROM ship", "no such column: nme"),
    ],
)
def test_what_one_database_lets_through(
    folder: Path, derived: Path, answer: str, verdict: str
) -> None:
    row = ScoringInput("1", GOLD, answer, {"db_id": "harbour"})
    (found,) = score_rows([row], Options(databases=folder, derived=derived))
    assert found.verdict == verdict
    assert found.scores["test_suite_accuracy"] is (verdict == "right")
    assert found.scores["execution_accuracy"] is verdict.startswith("right")


def test_a_reference_that_is_too_large_for_a_derived_database_leaves_it_out(
    folder: Path, derived: Path
) -> None:
    gold = "SELECT * FROM " + ", ".join(f"ship AS s{number}" for number in range(5))
    row = ScoringInput("1", gold, gold, {"db_id": "harbour"})
    (found,) = score_rows([row], Options(databases=folder, derived=derived))
    assert found.verdict == "right"


def test_a_key_that_names_no_column_means_the_primary_one(tmp_path: Path) -> None:
    (tmp_path / "one" / "d").mkdir(parents=True)
    with closing(sqlite3.connect(tmp_path / "one" / "d" / "d.sqlite")) as connection:
        connection.execute("CREATE TABLE port (pid INTEGER PRIMARY KEY, name TEXT)")
        connection.execute("CREATE TABLE ship (name TEXT, home INTEGER REFERENCES port)")
        connection.execute("INSERT INTO port VALUES (700, 'x'), (900, 'y')")
        connection.execute("INSERT INTO ship VALUES ('a', 700)")
        connection.commit()
    derive_suites(tmp_path / "one", [("d", "SELECT name FROM ship")], tmp_path / "more", 4)
    for path in sorted((tmp_path / "more" / "d").iterdir()):
        lost = "SELECT count(*) FROM ship WHERE home NOT IN (SELECT pid FROM port)"
        if rows(path, "SELECT count(*) FROM port") != [(0,)]:
            assert rows(path, lost) == [(0,)]


def test_fewer_may_be_asked_for_later(folder: Path, tmp_path: Path) -> None:
    for count in (4, 2):
        derive_suites(folder, [("harbour", GOLD)], tmp_path, count)
        assert len(files(tmp_path)) == count


TIES = "SELECT name FROM ship ORDER BY built"
FIRST = "SELECT name FROM ship ORDER BY built DESC LIMIT 1"
# Its names are those of any ship of a port: they depend on how the rows are stored.
BARE = "SELECT port_id, name FROM ship GROUP BY port_id"


@pytest.mark.parametrize(
    ("gold", "answer", "is_right"),
    [
        (TIES, f"{TIES}, name DESC", True),
        (TIES, f"{TIES}, id DESC", True),
        (TIES, "SELECT name FROM ship ORDER BY id", False),
        (FIRST, "SELECT name FROM ship ORDER BY built DESC, id DESC LIMIT 1", True),
        (FIRST, "SELECT name FROM ship ORDER BY id DESC LIMIT 1", False),
        (BARE, "SELECT port_id, name FROM (SELECT * FROM ship ORDER BY id DESC) GROUP BY 1", True),
        (BARE, f"{BARE} HAVING port_id > 0 OR port_id IS NULL", True),
    ],
)
def test_what_depends_on_how_rows_are_stored(
    folder: Path, derived: Path, gold: str, answer: str, is_right: bool
) -> None:
    """Rows that tie may come in any order, and no other order is right. A database is left out only
    where the reference's result is another one when its rows are stored the other way round."""
    row = ScoringInput("1", gold, answer, {"db_id": "harbour"})
    (found,) = score_rows([row], Options(databases=folder, derived=derived))
    assert found.scores["execution_accuracy"] is True
    assert found.scores["test_suite_accuracy"] is is_right


def test_bytes_that_are_no_utf_8_survive(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    texts = [b"caf\xe9", b"\xff\x00tail", "Söder?".encode(), b"\xed\xa0\x80"]
    with closing(sqlite3.connect(tmp_path / "d" / "d.sqlite")) as connection:
        connection.execute("CREATE TABLE t (a TEXT NOT NULL)")
        connection.executemany("INSERT INTO t VALUES (CAST(? AS TEXT))", [(t,) for t in texts])
        connection.commit()
    derive_suites(tmp_path, [("d", "SELECT a FROM t")], tmp_path / "more", 4)
    found = {
        value
        for path in sorted((tmp_path / "more" / "d").iterdir())
        for (value,) in rows(path, "SELECT CAST(a AS BLOB) FROM t WHERE typeof(a) = 'text'")
    }
    assert found == set(texts)
    assert {path.suffix for path in (tmp_path / "more" / "d").iterdir()} == {".sqlite"}
