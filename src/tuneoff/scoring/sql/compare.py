"""Extracts the query from an answer, and compares two query results in strict mode.

Results are equal if they have as many columns, in the same order. Rows are compared as a multiset,
or as a list if the reference orders its result (ORDER BY at the top level). Values must have the
same type, but an integer equals a real number of the same value. Real numbers may differ by 1e-6 of
their size, or by 1e-13. NULL equals NULL. Column names do not matter. Rows that tie by the
reference's ORDER BY form a group and may come in any order. If LIMIT cuts a group, any of its rows
may come (`ties.py` finds the groups).

The official Spider evaluator differs: columns may be permuted, two empty results are always equal,
and tied rows must come in the reference's order.

Models like to write `SQL:` before a query, a fence around it, a comment or a semicolon after it.
Strict mode forgives this in every metric but `exact_match`; the verdict is then `right but for
form`. Official mode removes nothing: its evaluator forgives only the semicolon. Text that SQLite
ignores may surround a query: its blanks, comments, empty statements and a byte order mark. A
no-break space is a letter to SQLite, and stays.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

from tuneoff.scoring.answer_text import find_in_language, strip_blanks
from tuneoff.scoring.sql.sandbox import CellValue, ResultRow, ResultTable, is_readable

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


_LABEL = re.compile(
    r"[\s>*_#\ufeff]*(?:(?:here is|here's|the|this|your|my|final|correct|sql|sqlite)\s+)*"
    r"(?:sql[ _]?query|sql|sqlite|query|statement|code|answer|response|output|solution)"
    r"[*_]*\s*:[*_]*\s*",
    re.IGNORECASE,
)
_LANGUAGE = re.compile(r"\s*(?:\w*sql\w*)\s+(?=(?:select|with|values)\b)", re.IGNORECASE)
# SQLite's tokens, in the detail that is needed to find the end of a statement.
_TOKENS = re.compile(
    r"""(?P<nothing>[ \t\n\f\r]+|\ufeff|--[^\n]*|/\*.*?(?:\*/|\Z))
    |(?P<quoted>'(?:''|[^'])*'?|"(?:""|[^"])*"?|`(?:``|[^`])*`?|\[[^\]]*\]?)
    |(?P<word>[\w$\u0080-\U0010ffff]+)|(?P<end>;)|(?P<sign>.)""",
    re.DOTALL | re.VERBOSE,
)
_QUERIES, _WRITES = ("select", "values"), ("insert", "replace", "update", "delete")


class Statements(NamedTuple):
    """A text without what SQLite ignores around it, and its statements."""

    text: str
    statements: int
    verb: str
    """The first statement's main word in lower case; after WITH, that of the statement."""


def find_query(answer: str, reference: str, ask_sqlite: bool = True) -> str:
    """Return the query of an answer, without fence, label, and text that SQLite ignores.

    Args:
        reference: if it is fenced, the answer's fence stays.
        ask_sqlite: whether SQLite may parse fenced texts, to find the last query.

    >>> find_query("Sure!\\n```sql\\nSELECT 1; -- one\\n```", "SELECT 1")
    'SELECT 1'
    """
    tests = (_has_query, _has_query_start) if ask_sqlite else (_has_query_start,)
    return _strip_label(find_in_language(answer, reference, *tests))


def split_statements(sql: str) -> Statements:
    """Return a text's statements, and the text without the parts around it that SQLite ignores."""
    first = last = None
    count = depth = 0
    verb, begins = "", True
    for token in _TOKENS.finditer(sql):
        kind = token.lastgroup
        if kind == "nothing":
            continue
        if kind == "end":
            begins = True
            continue
        first = token.start() if first is None else first
        last = token.end()
        count += begins
        if kind == "sign":
            depth += (token[0] == "(") - (token[0] == ")")
        elif kind == "word" and count == 1 and depth == 0:
            word = token[0].lower()
            if begins or (verb == "with" and word in _QUERIES + _WRITES):
                verb = word
        begins = False
    return Statements("" if first is None else sql[first:last], count, verb)


def is_query(sql: str) -> bool:
    """Return whether SQLite parses a text as one query."""
    parsed = split_statements(sql)
    return parsed.statements == 1 and parsed.verb in _QUERIES and is_readable(parsed.text)


def _strip_label(text: str) -> str:
    for pattern in (_LABEL, _LANGUAGE):
        match = pattern.match(text)
        text = text[match.end() :] if match else text
    return split_statements(strip_blanks(text)).text or text.strip()


def _has_query(text: str) -> bool:
    return is_query(_strip_label(text))


def _has_query_start(text: str) -> bool:
    return split_statements(_strip_label(text)).verb in (*_QUERIES, "with")
