"""Rows whose order a reference leaves open: any choice is right, and nothing else."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from tuneoff.scoring.sql.judge import judge
from tuneoff.scoring.sql.sandbox import connect, select
from tuneoff.scoring.sql.ties import find_tie_groups
from tuneoff.scoring.sql.worker_pool import DatabaseFile, JudgeRequest

SCHEMA = """
CREATE TABLE ship (
    id INTEGER PRIMARY KEY, name TEXT, built INTEGER, port TEXT COLLATE NOCASE, load REAL
);
INSERT INTO ship VALUES
    (1, 'Ada', 1950, 'norrby', 0.3), (2, 'Bo', 1950, 'Norrby', 0.1), (3, 'Cy', 1970, 'Söder', 0.2),
    (4, 'Di', 1970, 'NORRBY', 0.3), (5, 'Ed', NULL, 'Vik', NULL), (6, 'Ed', 1950, 'Vik', 1e9);
CREATE TABLE part (ship TEXT, weight REAL);
INSERT INTO part VALUES
    ('Ada', 0.1), ('Ada', 0.2), ('Bo', 0.3), ('Cy', 0.3000001);
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> DatabaseFile:
    path = tmp_path_factory.mktemp("ties") / "d.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(SCHEMA)
    return DatabaseFile(str(path))


def verdict(file: DatabaseFile, reference: str, answer: str, rows: int = 1_000) -> str:
    request = JudgeRequest(reference, answer, (file,), "strict", ("execution_accuracy",), 5.0, rows)
    return "right" if judge(request, lambda *_: None)["scores"]["execution_accuracy"] else "wrong"


def values(names: str) -> str:
    """A query that gives these rows, in this order."""
    return "VALUES " + ", ".join(f"('{name}')" for name in names.split())


@pytest.mark.parametrize(
    ("reference", "right", "wrong"),
    [
        # A group in any order, the groups in theirs.
        ("ORDER BY built", "Ed Ed Bo Ada Di Cy", "Ada Bo Ed Cy Di Ed"),
        ("ORDER BY built DESC", "Di Cy Ed Bo Ada Ed", "Ed Di Cy Ed Bo Ada"),
        ("ORDER BY built DESC NULLS FIRST, id", "Ed Cy Di Ada Bo Ed", "Ed Di Cy Ada Bo Ed"),
        ("ORDER BY built + 0 NULLS LAST", "Ed Ada Bo Di Cy Ed", "Ed Ada Bo Ed Di Cy"),
        ("ORDER BY port, id > 3", "Bo Ada Di Cy Ed Ed", "Di Bo Ada Cy Ed Ed"),
        ("ORDER BY port COLLATE BINARY", "Di Bo Cy Ed Ed Ada", "Bo Di Cy Ed Ed Ada"),
        ("ORDER BY substr(name, 1, 0) || 'x' COLLATE NOCASE", "Ed Di Cy Bo Ada Ed", "Ed Di Cy Bo"),
        ("ORDER BY random()", "Ed Di Cy Bo Ada Ed", "Ed Di Cy Bo Ada Ada"),
        ("ORDER BY port, random(), id", "Di Bo Ada Cy Ed Ed", "Di Bo Cy Ada Ed Ed"),
        ("ORDER BY 'a text'", "Ed Di Cy Bo Ada Ed", "Ed Di Cy Bo Ada"),
        # A group that LIMIT or OFFSET cuts: any of its rows, each once.
        ("WHERE built > 0 ORDER BY built LIMIT 2", "Ed Bo", "Ada Cy"),
        ("WHERE built > 0 ORDER BY built LIMIT 4", "Ed Bo Ada Di", "Ed Ada Di Cy"),
        ("WHERE built > 0 ORDER BY built LIMIT 2", "Bo Ada", "Bo Bo"),
        ("WHERE built > 0 ORDER BY built LIMIT 1 + 0", "Ed", "Cy"),
        ("WHERE built > 0 ORDER BY built LIMIT 2 OFFSET 2", "Bo Di", "Cy Bo"),
        ("WHERE built > 0 ORDER BY built LIMIT 1, 1", "Ed", "Cy"),
        ("ORDER BY port DESC LIMIT 4", "Ed Ed Cy Di", "Ed Cy Ed Di"),
        ("ORDER BY built DESC LIMIT 1", "Di", "Ed"),
        ("ORDER BY built LIMIT 1", "Ed", "Ada"),
        ("LIMIT 3", "Ed Ed Cy", "Ed Ed Ed"),
        ("LIMIT 2 OFFSET 3", "Ada Bo", "Ada Ada"),
        ("LIMIT 2", "Di Bo", "Di Xi"),
        # Groups of rows that are made first.
        ("GROUP BY name ORDER BY count(*) DESC", "Ed Di Cy Bo Ada", "Di Cy Bo Ada Ed"),
        ("GROUP BY name ORDER BY max(built) DESC LIMIT 1", "Di", "Ada"),
        ("UNION ALL SELECT 'Xi' ORDER BY 1 LIMIT 2", "Ada Bo", "Bo Ada"),
    ],
)  # fmt: skip
def test_any_choice_is_right(file: DatabaseFile, reference: str, right: str, wrong: str) -> None:
    reference = f"SELECT name FROM ship {reference}"
    assert verdict(file, reference, values(right)) == "right"
    assert verdict(file, reference, values(wrong)) == "wrong"


@pytest.mark.parametrize(
    ("reference", "right", "wrong"),
    [
        # Keys by number, by alias, and by an alias within an expression.
        ("name, built FROM EARLY ORDER BY 2", "ORDER BY id DESC", "LIMIT 2"),
        ("name, built AS made FROM EARLY ORDER BY made", "ORDER BY 1 DESC", None),
        ("name, built AS made FROM EARLY ORDER BY made + 1", "ORDER BY 1 DESC", None),
        # An alias comes before a column of its name.
        ("name, 1950 AS id FROM EARLY ORDER BY id LIMIT 2", "ORDER BY 1 DESC LIMIT 2", None),
        # Within an expression it is the other way round.
        ("name, 1950 AS id FROM EARLY ORDER BY id + 0", "ORDER BY id", "ORDER BY id DESC"),
        # DISTINCT, ordered by what is selected.
        ("DISTINCT name, built FROM EARLY ORDER BY built", "ORDER BY 1 DESC", None),
        ("DISTINCT s.name, built FROM ship AS s WHERE built < 1960 ORDER BY s.name",
         "ORDER BY 1", "ORDER BY 1 DESC"),
        ("DISTINCT built, s.name FROM ship AS s ORDER BY s.built", None, "LIMIT 2"),
        ("* FROM (SELECT name, built FROM EARLY) ORDER BY built", "ORDER BY name DESC", None),
        # An order within asks for none outside.
        ("name, built FROM (SELECT * FROM EARLY ORDER BY id)", "ORDER BY name DESC", None),
        ("name, rank() OVER (ORDER BY built) + 1949 FROM EARLY ORDER BY 2",
         "ORDER BY 1 DESC", None),
        # SQLite's own order, where nothing can be told.
        ("DISTINCT name, 1950 FROM EARLY ORDER BY built", None, "ORDER BY name DESC"),
        ("name, built FROM EARLY LIMIT 1 OFFSET (SELECT 1)", None, "ORDER BY id LIMIT 1"),
    ],
)  # fmt: skip
def test_keys_are_found(
    file: DatabaseFile, reference: str, right: str | None, wrong: str | None
) -> None:
    early = "ship WHERE built < 1960"
    reference = f"SELECT {reference.replace('EARLY', early)}"
    assert verdict(file, reference, reference) == "right"
    for rest, expected in ((right, "right"), (wrong, "wrong")):
        if rest is not None:
            answer = f"SELECT name, built FROM {early} {rest}"
            assert verdict(file, reference, answer) == expected


def test_keys_that_rounding_tells_apart_tie(file: DatabaseFile) -> None:
    reference = "SELECT ship FROM part GROUP BY ship ORDER BY sum(weight) DESC"
    assert verdict(file, reference, values("Cy Bo Ada")) == "right"
    assert verdict(file, reference, values("Cy Ada Bo")) == "right"
    assert verdict(file, reference, values("Bo Cy Ada")) == "wrong"
    for direction in ("", " DESC"):
        reference = (
            f"SELECT ship FROM part WHERE ship < 'C' GROUP BY ship ORDER BY sum(weight){direction} "
            "LIMIT 1"
        )
        assert {verdict(file, reference, values(n)) for n in ("Ada", "Bo")} == {"right"}
        assert verdict(file, reference, values("Cy")) == "wrong"


def test_a_choice_of_a_subquery_is_the_references(file: DatabaseFile) -> None:
    reference = "SELECT name FROM ship WHERE id = (SELECT id FROM ship ORDER BY port LIMIT 1)"
    assert verdict(file, reference, values("Ada")) == "right"
    assert verdict(file, reference, values("Bo")) == "wrong"


def test_official_mode_keeps_its_order(file: DatabaseFile) -> None:
    request = JudgeRequest(
        "SELECT name FROM ship WHERE id < 3 ORDER BY built", values("Bo Ada"), (file,), "official",
        ("execution_accuracy",), 5.0, 1_000,
    )  # fmt: skip
    assert judge(request, lambda *_: None)["scores"] == {"execution_accuracy": False}


def test_only_rows_that_may_be_chosen_are_fetched(file: DatabaseFile) -> None:
    """A row limit of 50 is enough for a LIMIT over 20,000 rows; more ties than that are too many,
    and SQLite's choice is then expected."""
    numbers = "WITH RECURSIVE c(x) AS (SELECT 0 UNION ALL SELECT x + 1 FROM c LIMIT 20000) "
    for order in ("x / 3", "-x / 3 DESC", "x / 3, x % 2 < 2"):
        reference = f"{numbers}SELECT x FROM c ORDER BY {order} LIMIT 1"
        table = select(connect(*file), reference, 5.0, 50)
        groups = find_tie_groups(connect(*file), reference, table, 5.0, 50)
        assert groups == [([(0,), (1,), (2,)], 1)]
    reference = f"{numbers}SELECT x FROM c ORDER BY x / 100 LIMIT 1"
    assert verdict(file, reference, "VALUES (0)", rows=50) == "right"
    assert verdict(file, reference, "VALUES (1)", rows=50) == "wrong"
    assert verdict(file, reference, "VALUES (1)", rows=500) == "right"
    assert verdict(file, reference, "VALUES (100)", rows=500) == "wrong"
