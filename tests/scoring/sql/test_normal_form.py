"""The normal form: what it takes for spelling, and what it does not."""

from __future__ import annotations

import pytest

from tuneoff.scoring.sql.normal_form import (
    NotParsed,
    build_normal_form,
    classify_difference,
    parse_query,
)

SCHEMA = {
    "singer": ["id", "name", "age", "country"],
    "concert": ["cid", "title", "singer_id"],
}


def text(sql: str) -> str:
    return build_normal_form(sql, SCHEMA).text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("SELECT name FROM singer", "select  T1.Name as x\nfrom Singer AS T1 -- all of them"),
        ("SELECT name FROM singer", "SELECT (name) FROM `singer`;"),
        ("SELECT name FROM singer WHERE country = 'France'",
         'SELECT "name" FROM singer WHERE country = "France"'),
        ("SELECT name FROM singer WHERE age != 3 ORDER BY age",
         "SELECT name FROM singer WHERE age <> 3 ORDER BY age ASC"),
        ("SELECT a.name FROM singer AS a JOIN concert b ON a.id = b.singer_id",
         "SELECT name FROM singer T1 INNER JOIN concert T2 ON T1.id=T2.singer_id"),
        ("SELECT count(*) AS n FROM singer GROUP BY country HAVING n > 1 ORDER BY n",
         "SELECT COUNT(*) FROM singer GROUP BY country HAVING count(*) > 1 ORDER BY COUNT(*)"),
        ("SELECT name FROM singer WHERE id NOT IN (SELECT singer_id FROM concert)",
         "SELECT s.name FROM singer s WHERE NOT s.id IN (SELECT c.singer_id FROM concert c)"),
        ("SELECT name FROM singer s WHERE age > (SELECT avg(age) FROM singer WHERE id < s.id)",
         "SELECT a.name FROM singer a WHERE a.age > (SELECT avg(b.age) FROM singer b "
         "WHERE b.id < a.id)"),
        ("SELECT x.n FROM (SELECT count(*) AS n FROM singer) AS x",
         "SELECT y.n FROM (SELECT COUNT(*) n FROM singer) y"),
        ("SELECT a.name FROM singer a JOIN singer b ON a.age = b.age",
         "SELECT T1.name FROM singer T1 JOIN singer T2 ON T1.age = T2.age"),
        ("SELECT name FROM singer UNION SELECT title FROM concert",
         "SELECT T1.name FROM singer T1 UNION SELECT T2.title FROM concert T2"),
        ("WITH c AS (SELECT id AS i FROM singer) SELECT i FROM c",
         "with C as (select S.ID as I from singer as S) select C.I from C"),
    ],
)  # fmt: skip
def test_only_spelling(one: str, other: str) -> None:
    assert text(one) == text(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("SELECT name FROM singer WHERE country = 'France'",
         "SELECT name FROM singer WHERE country = 'france'"),
        ("SELECT name, age FROM singer", "SELECT age, name FROM singer"),
        ("SELECT DISTINCT name FROM singer", "SELECT name FROM singer"),
        ("SELECT name FROM singer ORDER BY age", "SELECT name FROM singer ORDER BY age DESC"),
        ("SELECT a.name FROM singer a JOIN singer b ON a.age = b.age",
         "SELECT b.name FROM singer a JOIN singer b ON a.age = b.age"),
        ("SELECT name FROM singer s WHERE age > (SELECT avg(age) FROM singer WHERE id < s.id)",
         "SELECT name FROM singer s WHERE age > (SELECT avg(age) FROM singer WHERE id < id)"),
        ("SELECT name FROM singer LEFT JOIN concert ON id = singer_id",
         "SELECT name FROM singer JOIN concert ON id = singer_id"),
        ("SELECT 1", "SELECT '1'"),
        ("SELECT 1 FROM t WHERE a=1 AND (b=2 OR c=3)", "SELECT 1 FROM t WHERE a=1 AND b=2 OR c=3"),
        ("SELECT 1 FROM t WHERE NOT (a=1 AND b=2)", "SELECT 1 FROM t WHERE NOT a=1 AND b=2"),
        ("SELECT a - (b - 1) FROM t", "SELECT a - b - 1 FROM t"),
    ],
)  # fmt: skip
def test_more_than_spelling(one: str, other: str) -> None:
    assert text(one) != text(other)


def test_without_a_schema_quoted_texts_are_values() -> None:
    one, other = ('SELECT a FROM t WHERE b = "x"', "SELECT A FROM t WHERE t.b = 'x'")
    assert build_normal_form(one).text == build_normal_form(other).text


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT 1", True),
        ("SELECT a FROM t;", True),
        ("WITH c AS (SELECT 1) SELECT * FROM c", True),
        ("SELECT a FROM t UNION SELECT b FROM u", True),
        ("VALUES (1)", True),
        ("", False),
        ("hello world", False),
        ("SELECT a FROM", False),
        ("SELECT 'unfinished", False),
        ("SELECT 1; SELECT 2", False),
        ("DROP TABLE t", False),
        ("WITH c AS (SELECT 1) DELETE FROM t", False),
        ("SELECT " + "(" * 20_000 + "1" + ")" * 20_000, False),
        ("SELECT '" + "a" * 100_000 + "'", False),
    ],
)
def test_one_query(sql: str, expected: bool) -> None:
    try:
        parse_query(sql)
    except NotParsed:
        assert not expected
    else:
        assert expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("SELECT country, count(*) FROM concert WHERE age > 20 GROUP BY country", "wrong tables"),
        ("SELECT name, count(*) FROM singer WHERE age > 20 GROUP BY country", "wrong columns"),
        ("SELECT country, count(*) FROM singer WHERE age > 30 GROUP BY country", "wrong condition"),
        ("SELECT country, max(*) FROM singer WHERE age > 20 GROUP BY country",
         "wrong aggregation or grouping"),
        ("SELECT country, count(*) FROM singer WHERE age > 20",
         "wrong aggregation or grouping"),
        ("SELECT country, count(*) FROM singer WHERE age > 20 GROUP BY country LIMIT 1",
         "wrong order or limit"),
        ("SELECT count(*), country FROM singer WHERE age > 20 GROUP BY country", None),
    ],
)  # fmt: skip
def test_the_first_part_that_differs(answer: str, expected: str | None) -> None:
    gold = "SELECT country, count(*) FROM singer WHERE age > 20 GROUP BY country"
    assert (
        classify_difference(build_normal_form(gold, SCHEMA), build_normal_form(answer, SCHEMA))
        == expected
    )
