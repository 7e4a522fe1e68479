"""SQL from a model is data: each test attacks one property of the sandbox."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tuneoff.errors import TuneoffError
from tuneoff.scoring.sql.pool import Failure, Limits, Pool, Table, open_pool

ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) "
ONE = Table(1, [(1,)])


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("database") / "odd ?#% name.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (a INTEGER, b TEXT)")
        connection.execute("INSERT INTO t VALUES (1, 'x'), (2, 'it''s ü'), (3, NULL)")
        connection.execute("CREATE INDEX i ON t (a)")
        connection.execute("CREATE VIEW v AS SELECT a FROM t WHERE a > 1")
        connection.commit()
    return path


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with open_pool(Limits(seconds=0.5, memory_bytes=300_000_000, rows=1_000, workers=1)) as opened:
        yield opened


def reason(outcome: Table | Failure) -> str:
    assert isinstance(outcome, Failure), outcome
    return outcome.reason


def test_reading_works(pool: Pool, database: Path) -> None:
    assert pool.run(database, "SELECT a, b FROM t ORDER BY a;") == Table(
        2, [(1, "x"), (2, "it's ü"), (3, None)]
    )
    assert pool.run(database, "SELECT a FROM v -- a view") == Table(1, [(2,), (3,)])
    assert pool.run(database, "SELECT a FROM t WHERE 0") == Table(1, [])
    assert pool.run(database, "SELECT x'00ff', 1.5, 9223372036854775807, 9e999") == Table(
        4, [(b"\x00\xff", 1.5, 2**63 - 1, float("inf"))]
    )
    assert pool.run(database, "WITH c(x) AS (SELECT count(*) FROM t) SELECT x FROM c") == Table(
        1, [(3,)]
    )


def test_text_that_is_not_utf8_comes_back_and_stays_different(pool: Pool, database: Path) -> None:
    one, other = (pool.run(database, f"SELECT CAST(x'41{b}' AS TEXT)") for b in ("ff", "fe"))
    assert isinstance(one, Table)
    assert one.rows[0][0] == "A\udcff"
    assert one != other


@pytest.mark.parametrize(
    "sql",
    [
        "DROP TABLE t",
        "DELETE FROM t",
        "INSERT INTO t VALUES (4, 'y')",
        "UPDATE t SET a = 0",
        "CREATE TABLE u (a)",
        "CREATE TEMP TABLE u (a)",
        "CREATE VIRTUAL TABLE u USING fts5(a)",
        "ALTER TABLE t ADD COLUMN c",
        "REINDEX",
        "ANALYZE",
        "ATTACH DATABASE '/tmp/tuneoff-attached.sqlite' AS other",
        "ATTACH DATABASE ':memory:' AS other",
        "DETACH DATABASE main",
        "PRAGMA query_only = OFF",
        "PRAGMA journal_mode = WAL",
        "PRAGMA table_info(t)",
        "SELECT * FROM pragma_database_list",
        "BEGIN EXCLUSIVE",
        "SAVEPOINT s",
        "WITH c AS (SELECT 1) DELETE FROM t",
        "EXPLAIN DROP TABLE t",
        "SELECT load_extension('/tmp/x.so')",
        "SELECT LOAD_EXTENSION('/tmp/x.so', 'f')",
    ],
)
def test_everything_but_reading_is_denied(pool: Pool, database: Path, sql: str) -> None:
    before = hashlib.sha256(database.read_bytes()).hexdigest()
    assert reason(pool.run(database, sql)) == "denied"
    assert hashlib.sha256(database.read_bytes()).hexdigest() == before
    assert os.listdir(database.parent) == [database.name]
    assert pool.run(database, "SELECT count(*) FROM t") == Table(1, [(3,)])


def test_no_file_is_written_by_vacuum_into(pool: Pool, database: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy.sqlite"
    assert isinstance(pool.run(database, f"VACUUM INTO '{target}'"), Failure)
    assert isinstance(pool.run(database, "VACUUM"), Failure)
    assert not target.exists()


def test_a_second_statement_is_not_executed(pool: Pool, database: Path) -> None:
    assert reason(pool.run(database, "SELECT 1; DROP TABLE t")) == "more than one statement"
    assert pool.run(database, "SELECT count(*) FROM t") == Table(1, [(3,)])


def test_an_endless_query_is_stopped_and_the_next_one_works(pool: Pool, database: Path) -> None:
    pool.run(database, "SELECT 1")
    process = pool._children[0]._process
    began = time.monotonic()
    assert reason(pool.run(database, ENDLESS + "SELECT count(*) FROM c")) == "timeout"
    assert time.monotonic() - began < 2
    assert pool.run(database, "SELECT 1") == ONE
    assert pool._children[0]._process is process, "SQLite stopped it; no kill was needed"


def test_a_single_endless_step_is_killed_and_the_next_query_works(
    pool: Pool, database: Path
) -> None:
    """One function call is one step; SQLite's progress handler never gets to stop it."""
    slow = "SELECT instr(hex(zeroblob(7000000)), hex(zeroblob(3500000)) || '1')"
    pool.run(database, "SELECT 1")
    began = time.monotonic()
    assert reason(pool.run(database, slow)) == "timeout"
    assert 0.9 < time.monotonic() - began < 3
    assert pool.run(database, "SELECT 1") == ONE


def test_endless_rows_are_cut_off(pool: Pool, database: Path) -> None:
    assert reason(pool.run(database, ENDLESS + "SELECT x FROM c")) == "too large"
    thousand = pool.run(database, ENDLESS + "SELECT x FROM c LIMIT 1000")
    assert isinstance(thousand, Table)
    assert len(thousand.rows) == 1000


def test_a_huge_value_is_refused(pool: Pool, database: Path) -> None:
    assert reason(pool.run(database, "SELECT zeroblob(500000000)")) == "too large"
    assert reason(pool.run(database, "SELECT hex(zeroblob(10000000))")) == "too large"


def test_a_result_of_many_large_values_is_refused(pool: Pool, database: Path) -> None:
    many = ENDLESS + "SELECT zeroblob(10000000) FROM c LIMIT 10"
    assert reason(pool.run(database, many)) == "too large"


def test_memory_has_an_end(database: Path) -> None:
    limits = Limits(seconds=20, memory_bytes=120_000_000, rows=1_000, workers=1)
    greedy = ENDLESS + "SELECT count(DISTINCT randomblob(1000000) || x) FROM c LIMIT 1"
    with open_pool(limits) as small:
        assert reason(small.run(database, greedy)) == "too large"
        assert small.run(database, "SELECT 1") == ONE


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT", "syntax error"),
        ("hello world", "syntax error"),
        ("SELECT 'unfinished", "syntax error"),
        ("SELECT 1 \ud800", "syntax error"),
        ("SELECT 1 \0 FROM t", "syntax error"),
        ("-- SELECT 1", "not a query"),
        ("SELECT z FROM t", "no such column: z"),
        ("SELECT a FROM nowhere", "no such table: nowhere"),
        ("SELECT year(a) FROM t", "no such function: year"),
    ],
)
def test_error_classes(pool: Pool, database: Path, sql: str, expected: str) -> None:
    assert reason(pool.run(database, sql)) == expected


def test_secrets_of_the_parent_are_not_in_the_child(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with open_pool(Limits(seconds=5, memory_bytes=300_000_000, rows=10, workers=1)) as fresh:
        assert fresh.run(database, "SELECT 1") == ONE
        process = fresh._children[0]._process
        assert process is not None
        environment = Path(f"/proc/{process.pid}/environ")
        if not environment.exists():
            pytest.skip("this system has no /proc")
        assert b"sk-secret" not in environment.read_bytes()


def test_no_process_is_left_behind(database: Path) -> None:
    with open_pool(Limits(seconds=5, memory_bytes=300_000_000, rows=10, workers=2)) as fresh:
        assert fresh.run(database, "SELECT 1") == ONE
        process = fresh._children[-1]._process
        assert process is not None
        process.kill()
        process.wait()
        assert fresh.run(database, "SELECT 1") == ONE, "an idle child that died is replaced"
        process = fresh._children[-1]._process
        assert process is not None
    assert process.returncode is not None


def test_a_child_that_cannot_start_is_an_error_and_not_a_wrong_answer(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    limits = Limits(seconds=1, memory_bytes=300_000_000, rows=10, workers=1)
    with open_pool(limits) as broken, pytest.raises(TuneoffError, match="did not start"):
        broken.run(database, "SELECT 1")
