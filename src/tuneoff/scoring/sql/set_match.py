"""Exact set match and hardness: Spider's comparison of two queries, clause by clause.

Yu et al., EMNLP 2018, as the official evaluator computes it (taoyds/test-suite-sql-eval, commit
e97acc54, default flags). Within a clause the order does not matter; values are not compared. Its
quirks are kept, so that every verdict agrees:

- columns joined by foreign keys are the same column, but not inside a query in a condition or in
  FROM; there, order and DISTINCT count, too, and in FROM also values;
- DISTINCT of the outer query counts in strict mode only;
- the conditions of joins count only by their AND, OR, NOT, IN and LIKE;
- GROUP BY must have the same columns in the same order; HAVING counts only beside it;
- LIMIT counts only by its presence, and only beside ORDER BY and among the keywords.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from tuneoff.scoring.sql.spider_grammar import Column, Condition, Conditions, Query, Term

Keys = Mapping[str, str]


def matches(reference: Query, answer: Query, keys: Keys, keep_distinct: bool = False) -> bool:
    """Return whether two queries are the same, clause by clause.

    Args:
        keys: each column of a foreign key → the column that represents its group.
        keep_distinct: whether DISTINCT counts.
    """
    return _same(_prepared(reference, keys, keep_distinct), _prepared(answer, keys, keep_distinct))


def same_columns(
    foreign_keys: Iterable[tuple[str, str]], columns: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """Return, per column of a foreign key, the column that represents its group.

    It is the first in the order of the schema, as in the original, which numbers columns so. A key
    joins the first group that holds either of its columns; two groups are not merged later.

    Args:
        foreign_keys: pairs of `table.column` in lower case.
        columns: each table's columns in lower case, both in the order of the schema.
    """
    names = [f"{table}.{name}" for table, those in columns.items() for name in those]
    place = {name: number for number, name in enumerate(names)}
    groups: list[set[str]] = []
    for pair in foreign_keys:
        known = next((group for group in groups if not group.isdisjoint(pair)), None)
        if known is None:
            known = set[str]()
            groups.append(known)
        known.update(pair)

    def first(group: set[str]) -> str:
        # A key may name a missing column; the name makes the choice deterministic.
        return min(group, key=lambda name: (place.get(name, len(place)), name))

    return {name: first(group) for group in groups for name in group}


def hardness(query: Query) -> str:
    """Return `easy`, `medium`, `hard` or `extra`, by a query's clauses."""
    conditions = [*_only_conditions(query.join_conditions + query.where + query.having)]
    clauses = (
        bool(query.where) + bool(query.group_by) + bool(query.order_by) + query.limited
        + len(query.tables) - 1
        + _connectors(query).count("or")
        + sum(condition.comparison == "like" for condition in conditions)
    )  # fmt: skip
    values = (value for condition in conditions for value in (condition.first, condition.second))
    nested = sum(isinstance(value, Query) for value in values) + (query.other is not None)
    others = (
        (_aggregates(query) > 1) + (len(query.select) > 1)
        # Conditions are counted with their connectors.
        + (len(query.where) > 1) + (len(query.group_by) > 1)
    )  # fmt: skip
    if clauses <= 1 and others == 0 and nested == 0:
        return "easy"
    if nested == 0 and ((others <= 2 and clauses <= 1) or (others < 2 and clauses <= 2)):
        return "medium"
    if nested == 0 and ((others > 2 and clauses <= 2) or (others <= 2 and 2 < clauses <= 3)):
        return "hard"
    return "hard" if clauses <= 1 and others == 0 and nested <= 1 else "extra"


def _aggregates(query: Query) -> int:
    """Return the number of aggregates as the original counts them.

    Each NOT, and each AND or OR of HAVING, is one; those within conditions are none.
    """
    ordered = [column for term in query.order_by for column in (term.left, term.right) if column]
    return (
        sum(bool(aggregate) for aggregate, _ in query.select)
        + sum(condition.negated for condition in _only_conditions(query.where))
        + sum(bool(column.aggregate) for column in (*query.group_by, *ordered))
        + sum(isinstance(item, str) or item.negated for item in query.having)
    )


def _prepared(query: Query, keys: Keys, keep_distinct: bool) -> Query:
    """Return a query without values and DISTINCT, with foreign-key columns unified."""
    tables = {table for table in query.tables if isinstance(table, str)}
    names = {name: key for name, key in keys.items() if name.partition(".")[0] in tables}
    return _rewritten(_without_values(query), names, keep_distinct)


def _without_values(query: Query) -> Query:
    """Return a query whose conditions keep only nested queries as values."""
    return replace(
        query,
        join_conditions=_no_values(query.join_conditions),
        where=_no_values(query.where),
        having=_no_values(query.having),
        other=query.other and _without_values(query.other),
    )


def _no_values(conditions: Conditions) -> Conditions:
    return tuple(
        condition
        if isinstance(condition, str)
        else condition._replace(
            first=_query_in(condition.first), second=_query_in(condition.second)
        )
        for condition in conditions
    )


def _query_in(value: object) -> Query | None:
    return _without_values(value) if isinstance(value, Query) else None


def _rewritten(query: Query, names: Keys, keep_distinct: bool) -> Query:
    """Return a query and its set-operation partners with columns renamed by `names`."""

    def column(old: Column) -> Column:
        return Column(old.aggregate, names.get(old.name, old.name), old.distinct and keep_distinct)

    def term(old: Term) -> Term:
        return Term(old.operator, column(old.left), old.right and column(old.right))

    def conditions(old: Conditions) -> Conditions:
        return tuple(
            condition
            if isinstance(condition, str)
            else condition._replace(term=term(condition.term))
            for condition in old
        )

    return replace(
        query,
        join_conditions=conditions(query.join_conditions),
        distinct=query.distinct and keep_distinct,
        select=tuple((aggregate, term(selected)) for aggregate, selected in query.select),
        where=conditions(query.where),
        group_by=tuple(map(column, query.group_by)),
        having=conditions(query.having),
        order_by=tuple(map(term, query.order_by)),
        other=query.other and _rewritten(query.other, names, keep_distinct),
    )


def _same(reference: Query, answer: Query) -> bool:
    return (
        reference.distinct == answer.distinct
        and Counter(reference.select) == Counter(answer.select)
        and Counter(_only_conditions(reference.where)) == Counter(_only_conditions(answer.where))
        and set(reference.where[1::2]) == set(answer.where[1::2])
        and _same_grouping(reference, answer)
        and _same_order(reference, answer)
        and _keywords(reference) == _keywords(answer)
        and Counter(reference.tables) == Counter(answer.tables)
        and _same_other(reference, answer)
    )


def _same_grouping(reference: Query, answer: Query) -> bool:
    names = [[column.name for column in query.group_by] for query in (reference, answer)]
    return names[0] == names[1] and (not names[0] or reference.having == answer.having)


def _same_order(reference: Query, answer: Query) -> bool:
    return (reference.direction, reference.order_by) == (answer.direction, answer.order_by) and (
        not reference.order_by or reference.limited == answer.limited
    )


def _same_other(reference: Query, answer: Query) -> bool:
    if reference.other is None or answer.other is None:
        return reference.other is answer.other
    return reference.set_operator == answer.set_operator and _same(reference.other, answer.other)


def _keywords(query: Query) -> set[str]:
    conditions = [*_only_conditions(query.join_conditions + query.where + query.having)]
    comparisons = {condition.comparison for condition in conditions} & {"in", "like"}
    clauses = {
        "where": bool(query.where),
        "group": bool(query.group_by),
        "having": bool(query.having),
        "order": bool(query.order_by),
        "limit": query.limited,
        "or": "or" in _connectors(query),
        "not": any(condition.negated for condition in conditions),
    }
    present = {word for word, there in clauses.items() if there}
    return present | comparisons | {query.direction, query.set_operator} - {""}


def _connectors(query: Query) -> list[str]:
    """Return the connectors (AND, OR) of the conditions of joins, WHERE and HAVING."""
    return [
        word
        for conditions in (query.join_conditions, query.where, query.having)
        for word in conditions[1::2]
        if isinstance(word, str)
    ]


def _only_conditions(conditions: Sequence[Condition | str]) -> Iterable[Condition]:
    return (condition for condition in conditions if isinstance(condition, Condition))
