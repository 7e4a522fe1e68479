"""The official evaluator's way with texts and results."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneoff.scoring.sql.official import (
    is_ordered,
    is_same_result,
    prepare_executed,
    prepare_prediction,
)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (" SELECT a FROM t \n", "SELECT a FROM t"),
        ("SELECT a FROM t\tbecause", "SELECT a FROM t"),
        ("SELECT value FROM t WHERE Value = 'values'", "SELECT 1 FROM t WHERE Value = '1s'"),
    ],
)
def test_prediction_text(answer: str, expected: str) -> None:
    assert prepare_prediction(answer) == expected


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT DISTINCT a FROM t", "SELECT  a FROM t"),
        ("SELECT count(distinct(a)) FROM t", "SELECT count((a)) FROM t"),
        ("SELECT 'DISTINCT', \"a distinct\" FROM t", "SELECT 'DISTINCT', \"a distinct\" FROM t"),
        ("SELECT distinctly FROM t", "SELECT distinctly FROM t"),
        ("SELECT a FROM t; SELECT DISTINCT b", "SELECT a FROM t;"),
        ("SELECT ';' -- ;\n FROM t; x", "SELECT ';' -- ;\n FROM t;"),
        ("a > = 1 AND b ! = 2", "a >= 1 AND b != 2"),
        ("SELECT year(curdate ( )) - 1", "SELECT 2020- 1"),
    ],
)
def test_executed_text(sql: str, expected: str) -> None:
    assert prepare_executed(sql) == expected


def test_order_is_looked_for_anywhere() -> None:
    assert is_ordered("SELECT a FROM (SELECT a FROM t Order By a)")
    assert not is_ordered("SELECT a FROM t ORDER  BY a")


@pytest.mark.parametrize(
    ("reference", "answer", "ordered", "expected"),
    [
        ([], [], False, True),
        ([], [(1,)], False, False),
        ([(1, "a")], [("a", 1)], False, True),
        ([(1, 2), (3, 4)], [(2, 1), (4, 3)], True, True),
        ([(1, 2), (3, 4)], [(4, 3), (2, 1)], True, False),
        ([(1, 2), (3, 4)], [(4, 3), (2, 1)], False, True),
        ([(1, 2), (2, 1)], [(1, 2), (1, 2)], False, False),
        ([(1,), (1,), (2,)], [(1,), (2,), (2,)], False, False),
        ([(1,)], [(1.0,)], False, True),
        ([(10, 9.0)], [(10.0, 9)], False, True),
        ([(1,)], [("1",)], False, False),
        ([(None,)], [(None,)], False, True),
        ([(0.1 + 0.2,)], [(0.3,)], False, False),
        ([(1, 1, 2)], [(1, 2, 2)], False, False),
    ],
)
def test_results(reference: list, answer: list, ordered: bool, expected: bool) -> None:  # type: ignore[type-arg]
    assert is_same_result(reference, answer, ordered) is expected


cells = st.one_of(st.integers(0, 2), st.sampled_from(["a", "b"]), st.none())


@given(st.data())
def test_columns_and_rows_may_be_put_in_any_order(data: st.DataObject) -> None:
    width = data.draw(st.integers(1, 4))
    rows = data.draw(st.lists(st.tuples(*[cells] * width), min_size=1, max_size=6))
    columns = data.draw(st.permutations(range(width)))
    moved = [tuple(row[i] for i in columns) for row in rows]
    assert is_same_result(rows, moved, ordered=True)
    assert is_same_result(rows, data.draw(st.permutations(moved)), ordered=False)


@given(st.data())
def test_agrees_with_trying_every_order(data: st.DataObject) -> None:
    from collections import Counter
    from itertools import permutations

    width = data.draw(st.integers(2, 3))
    table = st.lists(st.tuples(*[cells] * width), min_size=2, max_size=4)
    rows, others = data.draw(table), data.draw(table)
    expected = any(
        Counter(rows) == Counter(tuple(row[i] for i in order) for row in others)
        for order in permutations(range(width))
    )
    assert is_same_result(rows, others, ordered=False) is expected


def test_many_like_columns_are_compared_quickly() -> None:
    rng = random.Random(0)
    rows = [tuple(rng.randint(0, 1) for _ in range(12)) for _ in range(200)]
    order = list(range(12))
    rng.shuffle(order)
    began = time.perf_counter()
    assert is_same_result(rows, [tuple(row[i] for i in order) for row in rows], ordered=False)
    assert time.perf_counter() - began < 5


def test_comments_that_only_open_are_read_quickly() -> None:
    began = time.perf_counter()
    assert prepare_executed("SELECT 1 " + "/* " * 30_000).startswith("SELECT 1")
    assert time.perf_counter() - began < 1
