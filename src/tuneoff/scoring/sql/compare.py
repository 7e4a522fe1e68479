"""Compares two query results, in strict mode.

Results are equal if they have as many columns, in the same order. Rows are compared as a multiset,
or as a list if the reference orders its result (ORDER BY at the top level). Values must have the
same type, but an integer equals a real number of the same value. Real numbers may differ by 1e-6 of
their size, or by 1e-13. NULL equals NULL. Column names do not matter. Rows that tie by the
reference's ORDER BY form a group and may come in any order. If LIMIT cuts a group, any of its rows
may come (`ties.py` finds the groups).

The official Spider evaluator differs: columns may be permuted, two empty results are always equal,
and tied rows must come in the reference's order.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

from tuneoff.scoring.sql.sandbox import CellValue, ResultRow, ResultTable

RELATIVE_TOLERANCE = 1e-6
# Sums that should be zero leave rounding errors: 5.6e-17 of 0.1 + 0.2 - 0.3, 5.7e-14 of a value of
# 500. No relative tolerance makes those equal to zero. Small meaningful values stay different:
# 1e-12 and 2e-12.
ABSOLUTE_TOLERANCE = 1e-13


class TieGroup(NamedTuple):
    """Tied rows of a reference's unlimited result."""

    rows: Sequence[ResultRow]
    taken: int
    """The number of them in a right result: all, or fewer if LIMIT or OFFSET cuts the group."""


def find_difference(reference: ResultTable, answer: ResultTable, ordered: bool) -> str | None:
    """Return the error of an answer's result, ties aside, or None.

    `wrong columns`, `wrong result` or `wrong order`.
    """
    if len(reference.columns) != len(answer.columns):
        return "wrong columns"
    if len(reference.rows) != len(answer.rows) or not _is_part(reference.rows, answer.rows):
        return "wrong result"
    if ordered and not all(map(_is_same_row, reference.rows, answer.rows)):
        return "wrong order"
    return None


def is_allowed_order(groups: Iterable[TieGroup], rows: Sequence[ResultRow]) -> bool:
    """Return whether rows are the groups' rows, group after group."""
    begin = 0
    for group in groups:
        end = begin + group.taken
        if end > len(rows) or not _is_part(rows[begin:end], group.rows):
            return False
        begin = end
    return begin == len(rows)


def is_ordered(sql: str) -> bool:
    """Return whether a query has ORDER BY at its top level; False if it cannot be parsed."""
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


def _is_part(part: Sequence[ResultRow], whole: Sequence[ResultRow]) -> bool:
    """Return whether each row can be paired with an equal one of `whole`, within the tolerance."""
    counts, others = Counter(part), Counter(whole)
    # Exactly equal rows are paired here; the rest can differ in real numbers only.
    missing = sorted((counts - others).elements(), key=_build_sort_key)
    if not missing:
        return True
    extra = sorted((others - counts).elements(), key=_build_sort_key)
    # Sorted partners are close together: search below the last match first.
    last = len(extra)
    for row in reversed(missing):
        places = chain(reversed(range(last)), range(last, len(extra)))
        match = next((place for place in places if _is_same_row(row, extra[place])), None)
        if match is None:
            return False
        del extra[match]
        last = match
    return True


def _build_sort_key(row: ResultRow) -> tuple[tuple[int, float | str], ...]:
    return tuple(_build_cell_key(cell) for cell in row)


def _build_cell_key(cell: CellValue) -> tuple[int, float | str]:
    if cell is None:
        return 0, 0.0
    if isinstance(cell, (int, float)):
        # Rounded, so that numbers within the tolerance do not sort before later columns do.
        if abs(cell) <= ABSOLUTE_TOLERANCE:
            return 1, 0.0
        return 1, float(f"{float(cell):.5e}")
    return (2, cell) if isinstance(cell, str) else (3, cell.hex())


def _is_same_row(left: ResultRow, right: ResultRow) -> bool:
    return all(map(_same_cell, left, right))


def _same_cell(left: CellValue, right: CellValue) -> bool:
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        if isinstance(left, int) and isinstance(right, int):
            return left == right
        return math.isclose(left, right, rel_tol=RELATIVE_TOLERANCE, abs_tol=ABSOLUTE_TOLERANCE)
    return left == right
