"""The normal form of a query, which ignores its spelling.

sqlglot parses and writes it as SQLite's SQL. Two queries have the same normal form if they differ
only in blanks, case of words and names, comments, quoting, `AS`, needless brackets, ASC, INNER, the
names of aliases, or whether a column is written with its table. Quoted texts keep their case. A
double-quoted text that names nothing in the database is a value, as in SQLite. The order of
columns, tables and conditions counts. A wrong query is classified by the first part that
differs from the reference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlglot
from sqlglot import TokenType, exp

from tuneoff.scoring.sql.sandbox import QueryStopped

# sqlglot takes about a second for this many characters; no real answer is longer.
MAX_CHARACTERS = 50_000
_FIRST = (TokenType.SELECT, TokenType.WITH, TokenType.VALUES)

Schema = Mapping[str, Sequence[str]]
# A source in scope: its name in the normal form, and its columns if they are known.
_Source = tuple[str, Sequence[str] | None]
_Scope = dict[str, _Source]


class NotParsed(ValueError):
    """A text that is not one query."""


# Every other exception of a parse becomes NotParsed.
_PASSED_ON = (NotParsed, QueryStopped, MemoryError)


@dataclass(frozen=True, slots=True)
class NormalForm:
    """A query's normal form and its parts, to say where two of them differ."""

    text: str
    tables: frozenset[str]
    columns: Counter[str]
    conditions: Counter[str]
    grouping: Counter[str]
    ordering: tuple[str, ...]


def parse_query(sql: str) -> Any:
    """Return the syntax tree of one query (SELECT or VALUES, with or without WITH).

    Raises:
        NotParsed: the text is not one query.
    """
    if len(sql) > MAX_CHARACTERS:
        raise NotParsed(f"{len(sql)} characters are too many")
    try:
        tokens = sqlglot.tokenize(sql, read="sqlite")
        # sqlglot accepts nearly any words as an expression, so other beginnings are refused first.
        if not tokens or tokens[0].token_type not in _FIRST:
            raise NotParsed("it does not begin like a query")
        statements = [
            statement for statement in sqlglot.parse(sql, read="sqlite") if statement is not None
        ]
    except _PASSED_ON:
        raise
    except Exception as error:  # sqlglot trips over some calls, with IndexError and others
        raise NotParsed(str(error)) from None
    if len(statements) != 1 or not isinstance(statements[0], (exp.Query, exp.Values)):
        raise NotParsed("it is not one query")
    return statements[0]


def build_normal_form(sql: str, schema: Schema | None = None) -> NormalForm:
    """Return the normal form of a query.

    Args:
        schema: the columns of each table, in lower case; without it, every double-quoted text is a
            value.

    Raises:
        NotParsed: the text is not one query.
    """
    tree = parse_query(sql)
    try:
        _lower_names(tree, schema)
        for select in tree.find_all(exp.Select):
            _drop_aliases(select)
        _TableRenamer(schema or {}).visit(tree, {})
        _drop_needless(tree)
        return _split_parts(tree)
    except _PASSED_ON:
        raise
    except Exception as error:
        raise NotParsed(str(error)) from None


def _render_sql(node: Any) -> str:
    return str(node.sql(dialect="sqlite", comments=False))


def _lower_names(tree: Any, schema: Schema | None) -> None:
    known = {*(schema or {}), *(name for names in (schema or {}).values() for name in names)}
    known |= {alias.name.lower() for alias in tree.find_all(exp.Alias, exp.TableAlias)}
    for column in list(tree.find_all(exp.Column)):
        name = column.this
        quoted = isinstance(name, exp.Identifier) and name.quoted and not column.table
        if quoted and name.name.lower() not in known:
            column.replace(exp.Literal.string(name.name))
    for name in tree.find_all(exp.Identifier):
        name.set("this", name.name.lower())
        name.set("quoted", False)


def _drop_aliases(select: Any) -> None:
    """Remove the aliases of selected columns, unless an outer query needs them."""
    if isinstance(select.find_ancestor(exp.Subquery, exp.CTE, exp.In, exp.Select), exp.CTE) or (
        isinstance(select.parent, exp.Subquery) and select.parent.alias
    ):
        return
    named = {
        selected.alias: selected.this
        for selected in select.expressions
        if isinstance(selected, exp.Alias)
    }
    if not named:
        return
    select.set("expressions", [selected.unalias() for selected in select.expressions])
    for part in ("group", "having", "order"):
        for column in list(select.args[part].find_all(exp.Column)) if select.args.get(part) else ():
            if not column.table and column.name in named:
                column.replace(named[column.name].copy())


class _TableRenamer:
    """Renames each table to its own name, numbered if it occurs again."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._derived = 0

    def visit(self, node: Any, scope: _Scope) -> None:
        own: _Scope = {}
        if isinstance(node, exp.Select):
            own = self._collect_sources(node, {called for called, _ in scope.values()})
        if isinstance(node, exp.Column):
            self._rename(node, scope)
            return
        scope = _merge_scopes(scope, own) if own else scope
        for child in node.iter_expressions():
            self.visit(child, scope)

    def _collect_sources(self, select: Any, used: set[str]) -> _Scope:
        sources: _Scope = {}
        from_ = select.args.get("from_") or select.args.get("from")
        nodes = [from_.this] if from_ is not None else []
        nodes += [join.this for join in select.args.get("joins") or ()]
        for node in nodes:
            if isinstance(node, exp.Table):
                called = self._free(node.name, used)
                sources[node.alias or node.name] = called, self._schema.get(node.name)
                node.set("alias", _build_alias(called) if called != node.name else None)
            elif isinstance(node, exp.Subquery) and node.alias:
                self._derived += 1
                called = f"derived_{self._derived}"
                sources[node.alias] = called, None
                node.set("alias", _build_alias(called))
        return sources

    def _free(self, name: str, used: set[str]) -> str:
        called, number = name, 1
        while called in used:
            number += 1
            called = f"{name}_{number}"
        used.add(called)
        return called

    def _rename(self, column: Any, scope: _Scope) -> None:
        if column.table:
            source = scope.get(column.table)
            if source is not None:
                column.set("table", exp.to_identifier(source[0]))
            return
        if isinstance(column.this, exp.Star):
            return
        holders = [source for source in scope.values() if column.name in (source[1] or ())]
        if not holders and len(scope) == 1:
            holders = [source for source in scope.values() if source[1] is None]
        if holders:
            column.set("table", exp.to_identifier(holders[0][0]))


def _merge_scopes(scope: _Scope, own: _Scope) -> _Scope:
    """Return the scope with own names first, where an unqualified column is looked up first."""
    return {**own, **{name: source for name, source in scope.items() if name not in own}}


def _build_alias(name: str) -> Any:
    return exp.TableAlias(this=exp.to_identifier(name))


def _drop_needless(tree: Any) -> None:
    for join in tree.find_all(exp.Join):
        if join.args.get("kind") == "INNER":
            join.set("kind", None)
    for ordered in tree.find_all(exp.Ordered):
        ordered.set("desc", bool(ordered.args.get("desc")))
    for paren in list(tree.find_all(exp.Paren)):
        # sqlglot treats AND and OR as functions, but their brackets are needed.
        call = isinstance(paren.this, exp.Func) and not isinstance(paren.this, exp.Binary)
        if call or isinstance(paren.this, (exp.Column, exp.Literal, exp.Paren)):
            paren.replace(paren.this)


def _split_parts(tree: Any) -> NormalForm:
    outer = list(_find_outer_selects(tree))
    outputs = [output for select in outer for output in select.expressions]
    grouping = tree.find_all(exp.AggFunc, exp.Group, exp.Distinct, exp.Having)
    return NormalForm(
        text=_render_sql(tree),
        tables=frozenset(table.name for table in tree.find_all(exp.Table)),
        columns=Counter(
            _render_sql(column)
            for output in outputs
            for column in output.find_all(exp.Column, exp.Star)
        ),
        conditions=Counter(map(_render_sql, _find_conditions(tree))),
        grouping=Counter(map(_render_sql, grouping)),
        ordering=tuple(
            _render_sql(output) for output in tree.find_all(exp.Order, exp.Limit, exp.Offset)
        ),
    )


def _find_outer_selects(tree: Any) -> Iterator[Any]:
    if isinstance(tree, exp.SetOperation):
        yield from _find_outer_selects(tree.left)
        yield from _find_outer_selects(tree.right)
    elif isinstance(tree, exp.Subquery):
        yield from _find_outer_selects(tree.this)
    elif isinstance(tree, exp.Select):
        yield tree


def _find_conditions(tree: Any) -> Iterator[Any]:
    """Yield the conditions of WHERE and ON, split at AND."""
    for where in tree.find_all(exp.Where):
        yield from where.this.flatten() if isinstance(where.this, exp.And) else (where.this,)
    for join in tree.find_all(exp.Join):
        on = join.args.get("on")
        if on is not None:
            yield from on.flatten() if isinstance(on, exp.And) else (on,)


PARTS = (
    ("tables", "wrong tables"),
    ("columns", "wrong columns"),
    ("conditions", "wrong condition"),
    ("grouping", "wrong aggregation or grouping"),
    ("ordering", "wrong order or limit"),
)


def classify_difference(reference: NormalForm, answer: NormalForm) -> str | None:
    """Return the error class of the first part that differs.

    None if only the whole differs, for example by a set operator or the order of selected columns.
    """
    for part, name in PARTS:
        if getattr(reference, part) != getattr(answer, part):
            return name
    return None
