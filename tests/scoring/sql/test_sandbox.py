"""What a query may do, in this process; `test_hostile.py` attacks the child process."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tuneoff.scoring.sql import sandbox
from tuneoff.scoring.sql.sandbox import QueryStopped, ReadOnlyDatabase, ResultRow, connect, select

ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) "


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReadOnlyDatabase]:
    path = tmp_path_factory.mktemp("database") / "odd ?#% name.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE Parent (Id INTEGER PRIMARY KEY, Code TEXT)")
        connection.execute("CREATE TABLE t (a INTEGER REFERENCES Parent, b TEXT)")
        connection.execute("INSERT INTO t VALUES (1, 'x'), (2, 'it''s ü'), (3, NULL)")
        connection.execute("CREATE VIEW v AS SELECT a FROM t WHERE a > 1")
        connection.commit()
    yield connect(str(path))
    while sandbox._opened:
        sandbox._opened.popitem()[1].connection.close()


def rows(database: ReadOnlyDatabase, sql: str) -> list[ResultRow]:
    return select(database, sql, seconds=5, row_limit=1_000).rows


def reason(database: ReadOnlyDatabase, sql: str, seconds: float = 5, row_limit: int = 1_000) -> str:
    with pytest.raises(QueryStopped) as stopped:
        select(database, sql, seconds, row_limit)
    return str(stopped.value)


def test_reading_works(database: ReadOnlyDatabase) -> None:
    found = select(database, "SELECT a, b AS c FROM t ORDER BY a;", 5, 10)
    assert found.columns == ("a", "c")
    assert found.rows == [(1, "x"), (2, "it's ü"), (3, None)]
    assert rows(database, "SELECT a FROM v -- a view") == [(2,), (3,)]
    assert rows(database, "SELECT a FROM t WHERE 0") == []
    assert rows(database, "SELECT x'00ff', 1.5, 9223372036854775807, 9e999") == [
        (b"\x00\xff", 1.5, 2**63 - 1, float("inf"))
    ]
    assert rows(database, "WITH c(x) AS (SELECT count(*) FROM t) SELECT x FROM c") == [(3,)]


def test_the_names_of_a_database(database: ReadOnlyDatabase) -> None:
    assert database.columns.by_table == {"parent": ["id", "code"], "t": ["a", "b"]}
    assert database.columns.foreign_keys == [("t.a", "parent.id")]


def test_text_that_is_not_utf8_comes_back_and_stays_different(database: ReadOnlyDatabase) -> None:
    one, other = (rows(database, f"SELECT CAST(x'41{b}' AS TEXT)") for b in ("ff", "fe"))
    assert one[0][0] == "A\udcff"
    assert one != other


def test_an_endless_query_is_stopped(database: ReadOnlyDatabase) -> None:
    assert reason(database, ENDLESS + "SELECT count(*) FROM c", seconds=0.2) == "timeout"
    assert rows(database, "SELECT 1") == [(1,)]


def test_endless_rows_are_cut_off(database: ReadOnlyDatabase) -> None:
    assert reason(database, ENDLESS + "SELECT x FROM c") == "too large"
    assert len(rows(database, ENDLESS + "SELECT x FROM c LIMIT 1000")) == 1000


def test_a_result_of_many_large_values_is_refused(database: ReadOnlyDatabase) -> None:
    many = ENDLESS + "SELECT zeroblob(10000000) FROM c LIMIT 10"
    assert reason(database, many) == "too large"


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT", "syntax error"),
        ("hello world", "syntax error"),
        ("SELECT 'unfinished", "syntax error"),
        ("SELECT 1 \ud800", "syntax error"),
        ("SELECT 1 \0 FROM t", "syntax error"),
        ("-- SELECT 1", "not a query"),
        ("SELECT 1; SELECT 2", "more than one statement"),
        ("SELECT z FROM t", "no such column: z"),
        ("SELECT a FROM nowhere", "no such table: nowhere"),
        ("SELECT year(a) FROM t", "no such function: year"),
        ("SELECT a, a FROM t UNION SELECT 1", "SELECTs to the left and right of UNION do not have "
         "the same number of result columns"),
    ],
)  # fmt: skip
def test_error_classes(database: ReadOnlyDatabase, sql: str, expected: str) -> None:
    assert reason(database, sql) == expected


def test_databases_that_are_kept_open_are_few(tmp_path: Path) -> None:
    for number in range(200):
        path = tmp_path / f"{number}.sqlite"
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE one (a)")
        assert connect(str(path)).columns.by_table == {"one": ["a"]}
    handles = Path("/proc/self/fd")
    if not handles.exists():
        pytest.skip("this system has no /proc")
    held = [link for link in handles.iterdir() if str(tmp_path) in os.path.realpath(link)]
    assert 0 < len(held) <= 100
