"""Parses Spider's SQL, the subset in which its set match can compare two queries.

Spider (Yu et al., EMNLP 2018) compares queries clause by clause, and only those that its own small
grammar accepts. This parser accepts exactly what the official evaluator
(taoyds/test-suite-sql-eval, commit e97acc54) accepts, with the same meaning, because a query that
it cannot parse scores 0. So these oddities are intended:

- single quotes count as double ones, and every quoted text is a value, never a name;
- `=` must stand between blanks; names are one word each; `AS` is required before an alias of a
  table and unknown elsewhere; only inner joins with `JOIN`; no `IS NULL`, no lists in `IN`;
- a condition's value is read up to the next `AND`, bracket, comma or clause, and only its first
  column counts; text after a complete query is ignored;
- the number after LIMIT is not kept, and one ASC or DESC holds for the whole ORDER BY.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

Columns = Mapping[str, Sequence[str]]

AGGREGATES = ("max", "min", "count", "sum", "avg")
ARITHMETIC = ("-", "+", "*", "/")
CLAUSES = ("select", "from", "where", "group", "order", "limit", "intersect", "union", "except")
SET_OPERATORS = ("intersect", "union", "except")
COMPARISONS = ("between", "=", ">", "<", ">=", "<=", "!=", "in", "like", "is", "exists")
ALL_COLUMNS = "*"

# Nobody wrote a longer or more deeply nested query of this grammar.
MAX_CHARACTERS = 100_000

_SEPARATED = re.compile(r"[;@#$%&?!*()\[\]{}<>]|--|\.{2,}|[,:](?!\d)|\.(?=\s*$)")


class NotSpider(ValueError):
    """A text that Spider's grammar cannot parse; the message says at which word."""


class SpiderColumn(NamedTuple):
    """`aggregate(DISTINCT name)`."""

    aggregate: str
    """"" if there is none."""
    name: str
    """`table.column` in lower case, or `*`."""
    distinct: bool


class Term(NamedTuple):
    """A column, or two columns with an arithmetic operator."""

    operator: str
    left: SpiderColumn
    right: SpiderColumn | None


class Condition(NamedTuple):
    """`term [NOT] comparison first [AND second]`.

    A value is a number, a quoted text, a column, a query, or None.
    """

    negated: bool
    comparison: str
    term: Term
    first: float | str | SpiderColumn | SpiderQuery | None
    second: float | str | SpiderColumn | SpiderQuery | None


Conditions = tuple[Condition | str, ...]


@dataclass(frozen=True, slots=True)
class SpiderQuery:
    """A parsed query; conditions alternate with their `and` and `or`."""

    tables: tuple[str | SpiderQuery, ...]
    join_conditions: Conditions
    distinct: bool
    select: tuple[tuple[str, Term], ...]
    where: Conditions
    group_by: tuple[SpiderColumn, ...]
    having: Conditions
    direction: str
    order_by: tuple[Term, ...]
    limited: bool
    set_operator: str = ""
    other: SpiderQuery | None = None


def parse_spider(sql: str, columns: Columns) -> SpiderQuery:
    """Return a text parsed as a query.

    Args:
        columns: the columns of each table of the database, all in lower case.

    Raises:
        NotSpider: the grammar cannot parse it.
    """
    if len(sql) > MAX_CHARACTERS:
        raise NotSpider(f"{len(sql)} characters are too many")
    try:
        words = tokenize(sql)
        reader = _SpiderParser(words, len(words), _map_names(words, columns), columns)
        query, _ = reader.query(0)
    except (IndexError, KeyError, RecursionError, OverflowError) as error:
        raise NotSpider(f"not of this grammar ({type(error).__name__}: {error})") from None
    return query


def tokenize(sql: str) -> list[str]:
    """Return words and signs in lower case; a quoted text is one word, in double quotes.

    Raises:
        NotSpider: a quote is not closed.
    """
    pieces = sql.replace("'", '"').split('"')
    if len(pieces) % 2 == 0:
        raise NotSpider("a quote is not closed")
    values = pieces[1::2]
    marks = {f"\ue000{number}\ue001": f'"{value}"' for number, value in enumerate(values)}
    between = [*marks, ""]
    marked = "".join(text + mark for text, mark in zip(pieces[::2], between, strict=True))
    split = _SEPARATED.sub(r" \g<0> ", marked).split()
    words = [marks.get(word) or word.lower() for word in split]
    for at in reversed([at for at, word in enumerate(words) if word == "=" and at]):
        if words[at - 1] in ("!", ">", "<"):
            words[at - 1 : at + 1] = [words[at - 1] + "="]
    return words


def _map_names(words: Sequence[str], columns: Columns) -> dict[str, str]:
    """Return word → table: a table's own name, or the word before its AS."""
    aliases = {words[at + 1]: words[at - 1] for at, word in enumerate(words) if word == "as"}
    for table in columns:
        if table in aliases:
            raise NotSpider(f"the alias {table} is the name of a table")
    return aliases | {table: table for table in columns}


class _SpiderParser:
    """A recursive-descent parser of the words up to `end`.

    Every method takes a position and returns the next one.
    """

    def __init__(
        self, words: Sequence[str], end: int, names: Mapping[str, str], columns: Columns
    ) -> None:
        self._words, self._end, self._names, self._columns = words, end, names, columns

    def _word(self, at: int) -> str:
        """Return the word at a position; "" after the last one."""
        return self._words[at] if at < self._end else ""

    def _require_word(self, at: int) -> str:
        if at >= self._end:
            raise NotSpider("it ends too early")
        return self._words[at]

    def _expect(self, at: int, word: str) -> int:
        if self._word(at) != word:
            raise NotSpider(f"expected {word!r}, got {self._word(at)!r}")
        return at + 1

    def _skip_bracket(self, at: int) -> tuple[bool, int]:
        return (True, at + 1) if self._require_word(at) == "(" else (False, at)

    def query(self, at: int) -> tuple[SpiderQuery, int]:
        block, at = self._skip_bracket(at)
        tables, sources, join_conditions, after_from = self._from(at)
        distinct, select = self._select(at, sources)
        where, at = self._where(after_from, sources)
        group_by, at = self._group_by(at, sources)
        having, at = self._having(at, sources)
        direction, order_by, at = self._order_by(at, sources)
        limited = self._word(at) == "limit"
        if limited:
            self._require_word(at + 1)
            at += 2
        at = self._skip_semicolons(at)
        if block:
            at = self._skip_semicolons(self._expect(at, ")"))
        operator, other = "", None
        if self._word(at) in SET_OPERATORS:
            operator = self._word(at)
            other, at = self.query(at + 1)
        read = SpiderQuery(
            tables, join_conditions, distinct, select, where, group_by, having,
            direction, order_by, limited, operator, other,
        )  # fmt: skip
        return read, at

    def _skip_semicolons(self, at: int) -> int:
        while self._word(at) == ";":
            at += 1
        return at

    def _from(self, at: int) -> tuple[tuple[str | SpiderQuery, ...], list[str], Conditions, int]:
        """Return all tables, the named ones, the join conditions, and the next position."""
        at = next((i for i in range(at, self._end) if self._words[i] == "from"), self._end) + 1
        if at > self._end:
            raise NotSpider("there is no FROM")
        tables: list[str | SpiderQuery] = []
        sources: list[str] = []
        conditions: list[Condition | str] = []
        while at < self._end:
            block, at = self._skip_bracket(at)
            if self._require_word(at) == "select":
                query, at = self.query(at)
                tables.append(query)
            else:
                at += self._word(at) == "join"
                name, at = self._table(at)
                tables.append(name)
                sources.append(name)
            if self._word(at) == "on":
                joined, at = self._conditions(at + 1, sources)
                conditions += ["and", *joined] if conditions else joined
            if block:
                at = self._expect(at, ")")
            if self._word(at) in (*CLAUSES, ")", ";"):
                break
        return tuple(tables), sources, tuple(conditions), at

    def _table(self, at: int) -> tuple[str, int]:
        name = self._names[self._require_word(at)]
        if name not in self._columns:
            raise NotSpider(f"{name} is no table")
        return name, at + (3 if self._word(at + 1) == "as" else 1)

    def _select(self, at: int, sources: Sequence[str]) -> tuple[bool, tuple[tuple[str, Term], ...]]:
        at = self._expect(at, "select")
        distinct = self._word(at) == "distinct"
        at += distinct
        selected: list[tuple[str, Term]] = []
        while at < self._end and self._words[at] not in CLAUSES:
            aggregate, at = self._aggregate(at)
            term, at = self._term(at, sources)
            selected.append((aggregate, term))
            at += self._word(at) == ","
        return distinct, tuple(selected)

    def _aggregate(self, at: int) -> tuple[str, int]:
        word = self._require_word(at)
        return (word, at + 1) if word in AGGREGATES else ("", at)

    def _term(self, at: int, sources: Sequence[str]) -> tuple[Term, int]:
        block, at = self._skip_bracket(at)
        left, at = self._column(at, sources)
        operator, right = "", None
        if self._word(at) in ARITHMETIC:
            operator = self._word(at)
            right, at = self._column(at + 1, sources)
        return Term(operator, left, right), self._expect(at, ")") if block else at

    def _column(self, at: int, sources: Sequence[str]) -> tuple[SpiderColumn, int]:
        block, at = self._skip_bracket(at)
        aggregate, at = self._aggregate(at)
        if aggregate:
            at = self._expect(at, "(")
        distinct = self._require_word(at) == "distinct"
        name = self._column_name(self._require_word(at + distinct), sources)
        at += distinct + 1
        # A bracket around an aggregate stays open, as in the original.
        return SpiderColumn(aggregate, name, distinct), (
            self._expect(at, ")") if block or aggregate else at
        )

    def _column_name(self, word: str, sources: Sequence[str]) -> str:
        if word == ALL_COLUMNS:
            return ALL_COLUMNS
        if "." in word:
            alias, _, name = word.partition(".")
            table = self._names[alias]
            if "." in name or name not in self._columns[table]:
                raise NotSpider(f"{word} is no column")
            return f"{table}.{name}"
        for table in sources:
            if word in self._columns[table]:
                return f"{table}.{word}"
        raise NotSpider(f"{word!r} is no column")

    def _where(self, at: int, sources: Sequence[str]) -> tuple[Conditions, int]:
        return self._conditions(at + 1, sources) if self._word(at) == "where" else ((), at)

    def _having(self, at: int, sources: Sequence[str]) -> tuple[Conditions, int]:
        return self._conditions(at + 1, sources) if self._word(at) == "having" else ((), at)

    def _conditions(self, at: int, sources: Sequence[str]) -> tuple[Conditions, int]:
        conditions: list[Condition | str] = []
        while at < self._end:
            condition, at = self._condition(at, sources)
            conditions.append(condition)
            if self._word(at) in (*CLAUSES, ")", ";", "join", "on", "as"):
                break
            if self._word(at) in ("and", "or"):
                conditions.append(self._word(at))
                at += 1
        return tuple(conditions), at

    def _condition(self, at: int, sources: Sequence[str]) -> tuple[Condition, int]:
        term, at = self._term(at, sources)
        negated = self._word(at) == "not"
        at += negated
        comparison = self._word(at)
        # The official parser takes "not" as a comparison, too: `a not not 1`.
        if comparison not in (*COMPARISONS, "not"):
            raise NotSpider(f"expected a comparison, got {comparison!r}")
        first, at = self._value(at + 1, sources)
        second = None
        if comparison == "between":
            second, at = self._value(self._expect(at, "and"), sources)
        return Condition(negated, comparison, term, first, second), at

    def _value(
        self, start: int, sources: Sequence[str]
    ) -> tuple[float | str | SpiderColumn | SpiderQuery, int]:
        block, at = self._skip_bracket(start)
        word = self._require_word(at)
        value: float | str | SpiderColumn | SpiderQuery
        if word == "select":
            value, at = self.query(at)
        elif '"' in word:
            value, at = word, at + 1
        elif (number := _parse_number(word)) is not None:
            value, at = number, at + 1
        else:
            while at < self._end and self._words[at] not in _VALUE_ENDS:
                at += 1
            inner = _SpiderParser(self._words, at, self._names, self._columns)
            value, _ = inner._column(start, sources)
        return value, self._expect(at, ")") if block else at

    def _group_by(self, at: int, sources: Sequence[str]) -> tuple[tuple[SpiderColumn, ...], int]:
        if self._word(at) != "group":
            return (), at
        at = self._expect(at + 1, "by")
        columns: list[SpiderColumn] = []
        while at < self._end and self._words[at] not in (*CLAUSES, ")", ";"):
            column, at = self._column(at, sources)
            columns.append(column)
            if self._word(at) != ",":
                break
            at += 1
        return tuple(columns), at

    def _order_by(self, at: int, sources: Sequence[str]) -> tuple[str, tuple[Term, ...], int]:
        if self._word(at) != "order":
            return "", (), at
        at = self._expect(at + 1, "by")
        direction, terms = "asc", list[Term]()
        while at < self._end and self._words[at] not in (*CLAUSES, ")", ";"):
            term, at = self._term(at, sources)
            terms.append(term)
            if self._word(at) in ("asc", "desc"):
                direction = self._word(at)
                at += 1
            if self._word(at) != ",":
                break
            at += 1
        return direction, tuple(terms), at


_VALUE_ENDS = (",", ")", "and", *CLAUSES, "join", "on", "as")


def _parse_number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None
