"""Comparing query results, the strict reading."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from tuneoff.scoring.sql import compare as execution
from tuneoff.scoring.sql.compare import find_difference, is_ordered
from tuneoff.scoring.sql.sandbox import CellValue, ResultTable

Rows = list[tuple[CellValue, ...]]


def compare(reference: Rows, answer: Rows, ordered: bool = False) -> str | None:
    widths = [len(rows[0]) if rows else 1 for rows in (reference, answer)]
    left, right = (
        ResultTable(tuple("abc"[:width]), table)
        for width, table in zip(widths, (reference, answer), strict=True)
    )
    return find_difference(left, right, ordered)


@pytest.mark.parametrize(
    ("reference", "answer", "expected"),
    [
        ([(1,), (2,)], [(2,), (1,)], None),
        ([(1,), (1,), (2,)], [(1,), (2,), (2,)], "wrong result"),
        ([(1,)], [(1,), (1,)], "wrong result"),
        ([(1, 2)], [(2, 1)], "wrong result"),
        ([(1,)], [(1, 1)], "wrong columns"),
        ([(1,)], [(1.0,)], None),
        ([(1,)], [("1",)], "wrong result"),
        ([("a",)], [("A",)], "wrong result"),
        ([("a",)], [(b"a",)], "wrong result"),
        ([(None,)], [(None,)], None),
        ([(None,)], [(0,)], "wrong result"),
        ([(None,)], [("",)], "wrong result"),
        ([(0.1 + 0.2,)], [(0.3,)], None),
        ([(100.0,)], [(100.00009,)], None),
        ([(100.0,)], [(100.0002,)], "wrong result"),
        ([(10_000_000,)], [(10_000_001,)], "wrong result"),
        ([(float("inf"),)], [(float("inf"),)], None),
        ([(0.0,)], [(0.1 + 0.2 - 0.3,)], None),
        ([(0,)], [(-1.4e-14,)], None),
        ([(3e-17, 2), (0.0, 1)], [(0.0, 2), (-3e-17, 1)], None),
        ([(1e-12,)], [(2e-12,)], "wrong result"),
        ([(0.0,)], [(1e-12,)], "wrong result"),
        ([(0,)], [(1,)], "wrong result"),
        ([(0.0,)], [(None,)], "wrong result"),
        ([], [], None),
    ],
)
def test_bags(reference: Rows, answer: Rows, expected: str | None) -> None:
    assert compare(reference, answer) == expected


def test_order_counts_when_it_is_asked_for() -> None:
    assert compare([(1,), (2,)], [(2,), (1,)], ordered=True) == "wrong order"
    assert compare([(1,), (2.0,)], [(1,), (2.0000001,)], ordered=True) is None


def test_empty_results_need_as_many_columns() -> None:
    assert (
        find_difference(ResultTable(("a",), []), ResultTable(("a", "b"), []), ordered=False)
        == "wrong columns"
    )


def test_near_numbers_are_paired_whatever_follows_them() -> None:
    # Sorted by the exact first number, the second numbers would stand crosswise.
    assert compare([(0.1 + 0.2, 5), (0.3, 7)], [(0.3, 5), (0.1 + 0.2, 7)]) is None
    assert compare([(0.1 + 0.2, 5), (0.3, 5)], [(0.3, 5), (0.1 + 0.2, 7)]) == "wrong result"


def test_many_rows_take_few_comparisons(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = Counter[str]()

    def count(left: Any, right: Any) -> bool:
        compared["cells"] += 1
        return same_cell(left, right)

    same_cell = execution._same_cell
    monkeypatch.setattr(execution, "_same_cell", count)
    rng = random.Random(0)
    rows: Rows = [(rng.random(), i % 7, None) for i in range(30_000)]
    near: Rows = [(float(str(row[0])) * (1 + 1e-9), *row[1:]) for row in rows]
    rng.shuffle(near)
    assert compare(rows, near) is None
    assert compare(rows, [*near[:-1], (2.0, 0, None)]) == "wrong result"
    assert 0 < compared["cells"] < 20 * len(rows)


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT a FROM t ORDER BY a", True),
        ("select a from t order\n  by a limit 3", True),
        ("SELECT a FROM t UNION SELECT b FROM u ORDER BY 1", True),
        ("WITH c AS (SELECT 1 ORDER BY 1) SELECT * FROM c", False),
        ("SELECT * FROM (SELECT a FROM t ORDER BY a LIMIT 1)", False),
        ("SELECT rank() OVER (ORDER BY a) FROM t", False),
        ("SELECT 'x ORDER BY y' -- ORDER BY z", False),
        ("SELECT 'unfinished ORDER BY", False),
    ],
)
def test_order_by_at_the_top_level(sql: str, expected: bool) -> None:
    assert is_ordered(sql) is expected
