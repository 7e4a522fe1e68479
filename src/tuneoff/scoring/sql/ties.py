"""Finds tied rows: those whose order a reference leaves open.

ORDER BY leaves open the order of rows with equal keys; with LIMIT, also which of them come.
SQLite's choice says nothing about the question, so `compare.py` allows every choice. To find the
ties, the reference runs once more. sqlglot rewrites it without its LIMIT, selects its keys beside
its columns, and ranks rows by them as SQLite does (with collations and the place of NULL). For a
reference with LIMIT, only the rows up to its last one and their ties are fetched.

Some references cannot be rewritten: those that sqlglot cannot parse, DISTINCT ordered by a column
that is not selected, selected random values, an OFFSET that is not a number. Others have more rows
than a result may have. These have no groups, and SQLite's order is expected.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuneoff.scoring.sql.compare import ABSOLUTE_TOLERANCE, TieGroup, is_allowed_order
from tuneoff.scoring.sql.sandbox import ReadOnlyDatabase, ResultRow, ResultTable, select

# Keys within this relative difference tie: they may differ by the order of a sum. It is far
# narrower than the tolerance for values: a day is 4e-7 of a Julian day number.
KEY_TOLERANCE = 1e-12
_ROWS = '"tuneoff rows"'  # no table of a reference has this name
_VOLATILE = ("random", "randomblob")


def find_tie_groups(
    database: ReadOnlyDatabase, sql: str, result: ResultTable, seconds: float, row_limit: int
) -> list[TieGroup] | None:
    """Return the tie groups of a reference's result, in order; None if they cannot be found.

    Args:
        sql: the reference.
        result: its result on this database.
    """
    try:
        query = _rewrite(sql, result, database.columns.by_table, row_limit)
        ranked = select(database, query.text, seconds, row_limit).rows
        groups = list(_split_groups(ranked, query, len(result.rows)))
    except Exception:  # sqlglot and SQLite raise many kinds of errors on odd queries
        return None
    # The rewritten query must return the reference's own result; else it means something else.
    return groups if is_allowed_order(groups, result.rows) else None


class _NotRewritten(ValueError):
    """A reference that cannot be rewritten."""


@dataclass(frozen=True, slots=True)
class _Query:
    """A rewritten reference. Its columns are the reference's own, further keys, every key, and the
    rank."""

    text: str
    own_columns: int
    first_key: int
    """The index of the first key among the columns."""
    skipped: int
    """The rows that OFFSET skips."""
    enough: int | None
    """The most rows that are fetched, if the reference has a LIMIT."""


@dataclass(frozen=True, slots=True)
class _Key:
    """A key of ORDER BY over the rewritten reference."""

    column: str
    compared: str
    """The column with the key's own collation."""
    term: str
    is_descending: bool


def _rewrite(
    sql: str, result: ResultTable, tables: Mapping[str, Sequence[str]], row_limit: int
) -> _Query:
    """Return the rewritten reference.

    Raises:
        ValueError: it cannot be rewritten.
    """
    # sqlglot is loaded where it is used.
    from sqlglot import exp

    from tuneoff.scoring.sql.normal_form import parse_query

    body = parse_query(sql)
    if not isinstance(body, (exp.Select, exp.SetOperation)):
        raise _NotRewritten
    order, limit, offset = (body.args.get(part) for part in ("order", "limit", "offset"))
    for part in ("order", "limit", "offset"):
        body.set(part, None)
    skipped = int(_render_sql(offset.expression)) if offset is not None else 0
    if skipped < 0 or _is_volatile(body):
        raise _NotRewritten
    outputs = _OutputColumns(
        body, result.columns, {name for names in tables.values() for name in names}
    )
    keys: list[_Key] = []
    for ordered in order.expressions if order is not None else ():
        if _is_volatile(ordered):
            break  # its values hardly ever tie and change each time, so later keys do not count
        keys.append(outputs.find_key(ordered))
    enough = row_limit if limit is not None else None
    last = skipped + len(result.rows) if limit is not None else None
    return _Query(
        _write_query(body, outputs.columns, keys, last, row_limit),
        len(result.columns), len(outputs.columns), skipped, enough,
    )  # fmt: skip


def _render_sql(node: Any) -> str:
    return str(node.sql(dialect="sqlite", comments=False))


def _is_volatile(node: Any) -> bool:
    """Return whether part of a query has another value each time."""
    from sqlglot import exp

    return any(
        isinstance(call, exp.Rand) or call.name.lower() in _VOLATILE
        for call in node.find_all(exp.Rand, exp.Anonymous)
    )


class _OutputColumns:
    """The columns of a rewritten reference: its own, and further keys."""

    def __init__(self, body: Any, columns: Sequence[str], known: set[str]) -> None:
        from sqlglot import exp

        self._body, self._known = body, known
        self._names = [name.lower() for name in columns]
        self._selected = list(body.selects)
        self._aliases = {
            output.alias.lower(): output.this
            for output in self._selected
            if isinstance(output, exp.Alias)
        }
        # DISTINCT and UNION depend on all selected columns, so none may be added.
        self._may_add = isinstance(body, exp.Select) and not body.args.get("distinct")
        self.columns = [f"c{number}" for number in range(len(columns))]

    def find_key(self, ordered: Any) -> _Key:
        """Return the key of a term of ORDER BY; adds it to the selected columns if needed.

        Raises:
            _Unclear: it cannot be added.
        """
        from sqlglot import exp

        key, collation = ordered.this.unnest(), None
        if isinstance(key, exp.Collate):
            key, collation = key.this.unnest(), key.args["expression"]
        column = self._find(key) or self._add(ordered.this)
        node: Any = exp.column(column)
        if collation is not None:
            node = exp.Collate(this=node, expression=collation.copy())
        term = ordered.copy()
        term.set("this", node)
        return _Key(column, _render_sql(node), _render_sql(term), bool(ordered.args.get("desc")))

    def _find(self, key: Any) -> str | None:
        """Return the output column of a key, by number or alias, or None.

        If no column may be added, also by name or text.
        """
        from sqlglot import exp

        if isinstance(key, exp.Literal) and not key.is_string and str(key.this).isdigit():
            return self.columns[int(key.this) - 1]
        name = key.name.lower() if isinstance(key, exp.Column) and not key.table else None
        may_be_output = name in self._aliases or (name is not None and not self._may_add)
        if may_be_output and self._names.count(str(name)) == 1:
            return self.columns[self._names.index(str(name))]
        if self._may_add or len(self._selected) != len(self._names):  # there is a star among them
            return None
        texts = [_render_sql(output.unalias()).lower() for output in self._selected]
        text = _render_sql(key).lower()
        return self.columns[texts.index(text)] if text in texts else None

    def _add(self, key: Any) -> str:
        from sqlglot import exp

        if not self._may_add:
            raise _NotRewritten
        # ORDER BY sees aliases, selected columns do not; a real column of that name comes first.
        added = exp.Paren(this=key.copy())
        for column in list(added.find_all(exp.Column)):
            name = column.name.lower()
            if not column.table and name in self._aliases and name not in self._known:
                column.replace(exp.Paren(this=self._aliases[name].copy()))
        self._body.append("expressions", added)
        self.columns.append(f"k{len(self.columns)}")
        return self.columns[-1]


def _write_query(
    body: Any, columns: Sequence[str], keys: Sequence[_Key], last: int | None, row_limit: int
) -> str:
    """Return the query that ranks a reference's rows.

    Args:
        last: the number of the reference's last row, if it has a LIMIT.
    """
    rows = f"WITH {_ROWS}({', '.join(columns)}) AS ({_render_sql(body)})"
    selected = ", ".join([*columns, *(key.column for key in keys)])
    if not keys:
        return f"{rows} SELECT {selected}, 0 FROM {_ROWS} LIMIT {row_limit}"
    order = ", ".join(key.term for key in keys)
    bound = "" if last is None else _build_bound(keys[0], order, last)
    return (
        f"{rows} SELECT {selected}, rank() OVER (ORDER BY {order}) AS place FROM {_ROWS}{bound}"
        f" ORDER BY place LIMIT {row_limit}"
    )


def _build_bound(key: _Key, order: str, last: int) -> str:
    """Return a condition that skips rows after the reference's last row.

    It uses the first key only, so that those rows need not be ranked. NULL may come first or last,
    and stays. A real number is widened by the possible rounding error.
    """
    sign, compare = ("-", ">=") if key.is_descending else ("+", "<=")
    widened = f"bound {sign} (abs(bound) * {KEY_TOLERANCE} + {ABSOLUTE_TOLERANCE})"
    return (
        f", (SELECT {key.column} AS bound FROM {_ROWS} ORDER BY {order} LIMIT 1 OFFSET {last - 1})"
        f" WHERE bound IS NULL OR {key.column} IS NULL OR {key.compared} {compare}"
        f" CASE typeof(bound) WHEN 'real' THEN {widened} ELSE bound END"
    )


def _split_groups(ranked: Sequence[ResultRow], query: _Query, rows: int) -> Iterator[TieGroup]:
    """Yield the groups from which the reference takes rows.

    Args:
        rows: the number of rows that it takes.

    Raises:
        _Unclear: a group may have more rows than were fetched.
    """
    begin, last = 0, query.skipped + rows
    while begin < min(last, len(ranked)):
        end = begin + 1
        while end < len(ranked) and _is_tied(ranked[begin], ranked[end], query.first_key):
            end += 1
        if query.enough is not None and end >= query.enough:
            raise _NotRewritten
        taken = min(end, last) - max(begin, query.skipped)
        if taken > 0:
            yield TieGroup([row[: query.own_columns] for row in ranked[begin:end]], taken)
        begin = end


def _is_tied(left: ResultRow, right: ResultRow, first_key: int) -> bool:
    """Return whether rows have the same rank, or keys within rounding."""
    if left[-1] == right[-1]:
        return True
    for one, other in zip(left[first_key:-1], right[first_key:-1], strict=True):
        if one != other:
            return (
                isinstance(one, (int, float))
                and isinstance(other, (int, float))
                and (isinstance(one, float) or isinstance(other, float))
                and math.isclose(one, other, rel_tol=KEY_TOLERANCE, abs_tol=ABSOLUTE_TOLERANCE)
            )
    return False
