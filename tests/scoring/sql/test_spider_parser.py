"""Spider's grammar, set match and hardness on invented tables. `test_official_verdicts.py` has
the real ones."""

from __future__ import annotations

import pytest

from tuneoff.scoring.sql.set_match import classify_hardness, group_columns, is_set_match
from tuneoff.scoring.sql.spider_parser import NotSpider, parse_spider, tokenize

COLUMNS = {
    "ship": ["id", "name", "built", "port_id"],
    "port": ["id", "name", "city"],
}
KEYS = group_columns([("ship.port_id", "port.id")], COLUMNS)


def same(reference: str, answer: str, keep_distinct: bool = False) -> bool:
    return is_set_match(
        parse_spider(reference, COLUMNS), parse_spider(answer, COLUMNS), KEYS, keep_distinct
    )


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("SELECT Count(*)", ["select", "count", "(", "*", ")"]),
        ("a >= 1 AND b ! = 'X y'", ["a", ">=", "1", "and", "b", "!=", '"X y"']),
        ("a>=1", ["a", ">", "=1"]),
        ("a=1", ["a=1"]),
        ("t1.name,t2.name", ["t1.name", ",", "t2.name"]),
        ("limit 1,2;", ["limit", "1,2", ";"]),
        ("SELECT*FROM a*b", ["select", "*", "from", "a", "*", "b"]),
        ("'it''s'", ["\ue0000\ue001\ue0001\ue001"]),
        ("name = 'a'.", ["name", "=", "\ue0000\ue001."]),
    ],
)
def test_words(sql: str, words: list[str]) -> None:
    if "." in words[-1] and words[-1].endswith("."):
        words = [*words[:-1], '"a"', "."]
    assert tokenize(sql) == words


@pytest.mark.parametrize(
    "sql",
    [
        "",
        "SELECT 1",
        "SELECT name",
        "SELECT nme FROM ship",
        "SELECT name FROM boat",
        "SELECT name FROM ship s",
        "SELECT name AS n FROM ship",
        "SELECT name FROM ship, port",
        "SELECT name FROM ship LEFT JOIN port ON ship.port_id = port.id",
        "SELECT name FROM ship WHERE built IS NULL",
        "SELECT name FROM ship WHERE built IN (1, 2)",
        "SELECT name FROM ship WHERE built=1900",
        "SELECT name FROM ship WHERE name = 'open",
        "SELECT name FROM ship AS port",
        "SELECT max(built) - min(built) FROM ship",
        "SELECT name FROM ship UNION ALL SELECT name FROM port",
        "SELECT name FROM ship LIMIT",
        "SELECT " + "(" * 5_000 + "name FROM ship",
        "SELECT name FROM ship WHERE name = '" + "x" * 100_000 + "'",
    ],
)
def test_what_the_grammar_cannot_read(sql: str) -> None:
    with pytest.raises(NotSpider):
        parse_spider(sql, COLUMNS)


@pytest.mark.parametrize(
    ("reference", "answer", "expected"),
    [
        ("SELECT name, built FROM ship", "select built , name from SHIP", True),
        ("SELECT name FROM ship", "SELECT DISTINCT name FROM ship", True),
        ("SELECT name FROM ship", "SELECT built FROM ship", False),
        ("SELECT count(name) FROM ship", "SELECT count(DISTINCT name) FROM ship", True),
        ("SELECT name FROM ship WHERE built > 1900 AND id = 3",
         "SELECT name FROM ship WHERE id = 4 AND built > 5", True),
        ("SELECT name FROM ship WHERE built > 1900 AND id = 3",
         "SELECT name FROM ship WHERE built > 1900 OR id = 3", False),
        ("SELECT name FROM ship WHERE built > 1900", "SELECT name FROM ship WHERE built < 1900",
         False),
        ("SELECT T1.name FROM ship AS T1 JOIN port AS T2 ON T1.port_id = T2.id GROUP BY T2.id",
         "SELECT a.name FROM port AS b JOIN ship AS a ON b.id = a.port_id GROUP BY a.port_id",
         True),
        ("SELECT name FROM ship GROUP BY name HAVING count(*) > 2",
         "SELECT name FROM ship GROUP BY name HAVING count(*) > 5", True),
        ("SELECT name FROM ship GROUP BY name, built", "SELECT name FROM ship GROUP BY built, name",
         False),
        ("SELECT name FROM ship ORDER BY built LIMIT 1", "SELECT name FROM ship ORDER BY built "
         "LIMIT 3", True),
        ("SELECT name FROM ship ORDER BY built LIMIT 1", "SELECT name FROM ship ORDER BY built",
         False),
        ("SELECT name FROM ship ORDER BY built", "SELECT name FROM ship ORDER BY built DESC",
         False),
        ("SELECT name FROM ship UNION SELECT name FROM port",
         "SELECT name FROM ship INTERSECT SELECT name FROM port", False),
        ("SELECT name FROM ship WHERE id IN (SELECT id FROM port WHERE city = 'a')",
         "SELECT name FROM ship WHERE id IN (SELECT id FROM port WHERE city = 'b')", True),
        ("SELECT name FROM ship WHERE id IN (SELECT id FROM port)",
         "SELECT name FROM ship WHERE id NOT IN (SELECT id FROM port)", False),
        ("SELECT name FROM ship WHERE id IN (SELECT DISTINCT id FROM port)",
         "SELECT name FROM ship WHERE id IN (SELECT id FROM port)", False),
        ("SELECT name FROM ship JOIN port ON ship.id = 1",
         "SELECT name FROM ship JOIN port ON ship.id = 2", True),
    ],
)  # fmt: skip
def test_set_match(reference: str, answer: str, expected: bool) -> None:
    assert same(reference, answer) is expected


def test_distinct_counts_in_strict_reading() -> None:
    assert not same("SELECT name FROM ship", "SELECT DISTINCT name FROM ship", keep_distinct=True)
    assert same("SELECT DISTINCT name FROM ship", "SELECT distinct NAME FROM ship", True)


def test_columns_that_foreign_keys_tie_together() -> None:
    pairs = [("b.x", "a.x"), ("c.x", "b.x"), ("d.y", "e.y")]
    columns = {"b": ["x"], "a": ["x"], "c": ["x"], "e": ["y"], "d": ["y"]}
    assert group_columns(pairs, columns) == {
        "a.x": "b.x", "b.x": "b.x", "c.x": "b.x", "d.y": "e.y", "e.y": "e.y",
    }  # fmt: skip
    # Within a table, too, and where a name begins another.
    assert group_columns([("t.a", "t.z")], {"t": ["z", "a"]})["t.a"] == "t.z"
    assert group_columns([("b_2.x", "b.x")], {"b_2": ["x"], "b": ["x"]})["b.x"] == "b_2.x"
    # A key to what is not there stands behind what is.
    assert group_columns([("z.x", "a.gone")], {"z": ["x"]})["a.gone"] == "z.x"
    # Two sets that a later pair would tie stay two, as in the original.
    pairs = [("a.x", "b.x"), ("c.x", "d.x"), ("b.x", "c.x")]
    assert group_columns(pairs, {name: ["x"] for name in "abcd"})["d.x"] == "c.x"


@pytest.mark.parametrize(("tables", "expected"), [("ship port", True), ("port ship", False)])
def test_the_first_column_of_the_schema_stands_for_all(tables: str, expected: bool) -> None:
    """Behind UNION only columns of the first query's tables are rewritten, so that it matters which
    one stands for the others."""
    columns = {table: COLUMNS[table] for table in tables.split()}
    keys = group_columns([("ship.port_id", "port.id")], columns)
    joined = "FROM ship AS T1 JOIN port AS T2 ON T1.port_id = T2.id"
    one, other = (
        parse_spider(f"SELECT name FROM port UNION SELECT {name} {joined}", columns)
        for name in ("T1.port_id", "T2.id")
    )
    assert is_set_match(one, other, keys) is expected


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT name FROM ship", "easy"),
        ("SELECT name FROM ship WHERE built > 1900", "easy"),
        ("SELECT name, built FROM ship ORDER BY built", "medium"),
        ("SELECT name FROM ship WHERE built > 1 ORDER BY built LIMIT 1", "hard"),
        ("SELECT name, built FROM ship WHERE built > 1 AND id = 2 ORDER BY built", "extra"),
        ("SELECT name FROM ship WHERE id IN (SELECT id FROM port)", "hard"),
        ("SELECT name FROM ship UNION SELECT name FROM port WHERE id = 1 ORDER BY name", "hard"),
        ("SELECT name, count(*) FROM ship WHERE built LIKE 'x' AND id = 2 GROUP BY name "
         "ORDER BY count(*) LIMIT 1", "extra"),
    ],
)  # fmt: skip
def test_hardness(sql: str, expected: str) -> None:
    assert classify_hardness(parse_spider(sql, COLUMNS)) == expected
