"""The official Spider evaluator's treatment of texts and results.

Written from the behaviour of taoyds/test-suite-sql-eval at commit e97acc54 with its default flags.
Before a query runs: a prediction ends at its first tab, and each `value` in it becomes `1`; only
the first statement is kept; DISTINCT is removed from both queries; comparison signs split by a
blank are joined. Results are equal if both are empty, or if the columns of one can be permuted so
that the rows are equal: as a list if the reference has ORDER BY anywhere, else as a multiset. Bytes
that are not UTF-8 are dropped from texts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from tuneoff.scoring.sql.sandbox import ResultRow

_TORN = (("> =", ">="), ("< =", "<="), ("! =", "!="))
_YEAR = re.compile(r"YEAR\s*\(\s*CURDATE\s*\(\s*\)\s*\)\s*", re.IGNORECASE)
# Lexemes that may hold the word DISTINCT or a semicolon as text, then those two.
_LEXEMES = re.compile(
    r"""'(?:''|\\'|[^'])*'|"(?:""|\\"|[^"])*"|`[^`]*`|\[[^\]\[]*\]|--[^\r\n]*|/\*.*?(?:\*/|\Z)"""
    r"|[^\W\d]\w*|;",
    re.DOTALL,
)


def prepare_prediction(answer: str) -> str:
    """Return the text that the evaluator uses for set match."""
    return answer.strip().split("\t", 1)[0].replace("value", "1")


def prepare_executed(sql: str, keep_distinct: bool = False) -> str:
    """Return the text that the evaluator executes for a query."""
    for torn, whole in _TORN:
        sql = sql.replace(torn, whole)
    if not keep_distinct:
        sql = _strip_distinct(sql)
    return _YEAR.sub("2020", sql)


def _strip_distinct(sql: str) -> str:
    pieces, at = [], 0
    for lexeme in _LEXEMES.finditer(sql):
        if lexeme[0] == ";":
            pieces.append(sql[at : lexeme.end()])
            return "".join(pieces)
        if lexeme[0].lower() == "distinct":
            pieces.append(sql[at : lexeme.start()])
            at = lexeme.end()
    pieces.append(sql[at:])
    return "".join(pieces)


def is_ordered(executed_reference: str) -> bool:
    """Return whether the order of rows matters."""
    return "order by" in executed_reference.lower()


def is_same_result(
    reference: Sequence[ResultRow], answer: Sequence[ResultRow], ordered: bool
) -> bool:
    """Return whether two results count as equal."""
    if not reference and not answer:
        return True
    if len(reference) != len(answer) or len(reference[0]) != len(answer[0]):
        return False
    if not _has_same_cells(reference, answer, ordered):
        return False
    if len(reference[0]) == 1:
        return _has_same_rows(reference, answer, ordered)
    return _has_matching_order(_transpose_rows(reference), _transpose_rows(answer), ordered)


def _has_same_cells(
    reference: Sequence[ResultRow], answer: Sequence[ResultRow], ordered: bool
) -> bool:
    """Return whether the rows are equal with sorted cells, as a list or as a set.

    Sorting by text and type may put 1 and 1.0 in different places; the evaluator sees this
    difference, too.
    """
    left, right = (
        [tuple(sorted(row, key=_build_cell_key)) for row in t] for t in (reference, answer)
    )
    return left == right if ordered else set(left) == set(right)


def _build_cell_key(cell: object) -> str:
    return f"{cell}{type(cell)}"


def _has_same_rows(
    reference: Sequence[ResultRow], answer: Sequence[ResultRow], ordered: bool
) -> bool:
    return list(reference) == list(answer) if ordered else Counter(reference) == Counter(answer)


def _transpose_rows(table: Sequence[ResultRow]) -> list[tuple[object, ...]]:
    return list(zip(*table, strict=True))


def _has_matching_order(
    reference: list[tuple[object, ...]], answer: list[tuple[object, ...]], ordered: bool
) -> bool:
    """Return whether some order of the answer's columns makes the rows equal.

    A column can only replace one with equal cells. For a list that is enough; for a multiset the
    rows so far must agree with every column that is added.
    """
    choices = [
        [at for at, other in enumerate(answer) if _is_same_column(column, other, ordered)]
        for column in reference
    ]

    def fits(chosen: list[int]) -> bool:
        place = len(chosen)
        if place == len(reference):
            return True
        tried = set[tuple[object, ...]]()
        for at in choices[place]:
            # Equal columns are interchangeable, so one of them is tried.
            if at in chosen or answer[at] in tried:
                continue
            tried.add(answer[at])
            if ordered or _has_same_prefix(reference, answer, [*chosen, at]):
                if fits([*chosen, at]):
                    return True
                if ordered:
                    return False
        return False

    return fits([])


def _is_same_column(left: tuple[object, ...], right: tuple[object, ...], ordered: bool) -> bool:
    return left == right if ordered else Counter(left) == Counter(right)


def _has_same_prefix(
    reference: list[tuple[object, ...]], answer: list[tuple[object, ...]], chosen: list[int]
) -> bool:
    """Return whether the first columns' rows are equal as multisets."""
    left = Counter(zip(*reference[: len(chosen)], strict=True))
    return left == Counter(zip(*(answer[at] for at in chosen), strict=True))
