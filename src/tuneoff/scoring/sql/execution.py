"""Are two query results the same? The strict reading.

Strict means: as many columns, in the same order; rows as a multiset, or as a list when
the reference orders its result (ORDER BY at the top level; rows that tie are then
expected in the order in which SQLite gives them for the reference); values of the same
type, except that an integer equals a real number of the same value, and real numbers may
differ by 1e-6 of their size, or by 1e-13. NULL equals NULL. Names of columns do not matter. (The
official Spider evaluator is milder: columns may be permuted and two empty results are
always equal.)
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from tuneoff.scoring.sql.sandbox import Row, Table, Value

RELATIVE_TOLERANCE = 1e-6
# Sums that come to zero leave last binary digits of what was added: 5.6e-17 of 0.1 + 0.2 - 0.3,
# 5.7e-14 of a value of 500. No relative tolerance makes those equal to zero. Tiny values that mean
# something stay apart: 1e-12 and 2e-12 are different.
ABSOLUTE_TOLERANCE = 1e-13


def difference(reference: Table, answer: Table, ordered: bool) -> str | None:
    """What is wrong with an answer: `wrong columns`, `wrong result`, `wrong order`, or None."""
    if len(reference.columns) != len(answer.columns):
        return "wrong columns"
    if len(reference.rows) != len(answer.rows) or not _same_bag(reference.rows, answer.rows):
        return "wrong result"
    if ordered and not all(map(_same_row, reference.rows, answer.rows)):
        return "wrong order"
    return None


def is_ordered(sql: str) -> bool:
    """Whether a query has ORDER BY at its top level; False when it cannot be read."""
    from sqlglot import TokenType, tokenize
    from sqlglot.errors import SqlglotError

    try:
        tokens = tokenize(sql, read="sqlite")
    except SqlglotError:
        return False
    depth = 0
    for token in tokens:
        if token.token_type == TokenType.ORDER_BY and depth == 0:
            return True
        depth += (token.token_type == TokenType.L_PAREN) - (token.token_type == TokenType.R_PAREN)
    return False


def _same_bag(left: Sequence[Row], right: Sequence[Row]) -> bool:
    """Whether rows can be paired so that each pair is the same within the tolerance."""
    counts, others = Counter(left), Counter(right)
    if counts == others:
        return True
    # Equal rows are paired already; the rest can differ in real numbers only. Sorting
    # brings partners close together, so looking from the end finds them at once.
    missing = sorted((counts - others).elements(), key=_sort_key)
    extra = sorted((others - counts).elements(), key=_sort_key)
    while missing:
        row = missing.pop()
        found = next((i for i in reversed(range(len(extra))) if _same_row(row, extra[i])), None)
        if found is None:
            return False
        del extra[found]
    return True


def _sort_key(row: Row) -> tuple[tuple[int, float | str], ...]:
    return tuple(_cell_key(cell) for cell in row)


def _cell_key(cell: Value) -> tuple[int, float | str]:
    if cell is None:
        return 0, 0.0
    if isinstance(cell, (int, float)):
        # Rounded, so that numbers within the tolerance do not decide before later columns.
        if abs(cell) <= ABSOLUTE_TOLERANCE:
            return 1, 0.0
        return 1, float(f"{float(cell):.5e}")
    return (2, cell) if isinstance(cell, str) else (3, cell.hex())


def _same_row(left: Row, right: Row) -> bool:
    return all(map(_same_cell, left, right))


def _same_cell(left: Value, right: Value) -> bool:
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        if isinstance(left, int) and isinstance(right, int):
            return left == right
        return math.isclose(left, right, rel_tol=RELATIVE_TOLERANCE, abs_tol=ABSOLUTE_TOLERANCE)
    return left == right
