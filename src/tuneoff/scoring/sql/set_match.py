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

from tuneoff.scoring.sql.spider_parser import Condition, Conditions, SpiderColumn, SpiderQuery, Term

Keys = Mapping[str, str]


def is_set_match(
    reference: SpiderQuery, answer: SpiderQuery, keys: Keys, keep_distinct: bool = False
) -> bool:
    """Return whether two queries are the same, clause by clause.

    Args:
        keys: each column of a foreign key → the column that represents its group.
        keep_distinct: whether DISTINCT counts.
    """
    return _is_same_query(
        _prepare_query(reference, keys, keep_distinct), _prepare_query(answer, keys, keep_distinct)
    )


def group_columns(
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


def classify_hardness(query: SpiderQuery) -> str:
    """Return `easy`, `medium`, `hard` or `extra`, by a query's clauses."""
    conditions = [*_drop_connectors(query.join_conditions + query.where + query.having)]
    clauses = (
        bool(query.where) + bool(query.group_by) + bool(query.order_by) + query.limited
        + len(query.tables) - 1
        + _list_connectors(query).count("or")
        + sum(condition.comparison == "like" for condition in conditions)
    )  # fmt: skip
    values = (value for condition in conditions for value in (condition.first, condition.second))
    nested = sum(isinstance(value, SpiderQuery) for value in values) + (query.other is not None)
    others = (
        (_count_aggregates(query) > 1) + (len(query.select) > 1)
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


def _count_aggregates(query: SpiderQuery) -> int:
    """Return the number of aggregates as the original counts them.

    Each NOT, and each AND or OR of HAVING, is one; those within conditions are none.
    """
    ordered = [column for term in query.order_by for column in (term.left, term.right) if column]
    return (
        sum(bool(aggregate) for aggregate, _ in query.select)
        + sum(condition.negated for condition in _drop_connectors(query.where))
        + sum(bool(column.aggregate) for column in (*query.group_by, *ordered))
        + sum(isinstance(item, str) or item.negated for item in query.having)
    )


def _prepare_query(query: SpiderQuery, keys: Keys, keep_distinct: bool) -> SpiderQuery:
    """Return a query without values and DISTINCT, with foreign-key columns unified."""
    tables = {table for table in query.tables if isinstance(table, str)}
    names = {name: key for name, key in keys.items() if name.partition(".")[0] in tables}
    return _rename_columns(_drop_values(query), names, keep_distinct)


def _drop_values(query: SpiderQuery) -> SpiderQuery:
    """Return a query whose conditions keep only nested queries as values."""
    return replace(
        query,
        join_conditions=_drop_condition_values(query.join_conditions),
        where=_drop_condition_values(query.where),
        having=_drop_condition_values(query.having),
        other=query.other and _drop_values(query.other),
    )


def _drop_condition_values(conditions: Conditions) -> Conditions:
    return tuple(
        condition
        if isinstance(condition, str)
        else condition._replace(
            first=_get_nested_query(condition.first), second=_get_nested_query(condition.second)
        )
        for condition in conditions
    )


def _get_nested_query(value: object) -> SpiderQuery | None:
    return _drop_values(value) if isinstance(value, SpiderQuery) else None


def _rename_columns(query: SpiderQuery, names: Keys, keep_distinct: bool) -> SpiderQuery:
    """Return a query and its set-operation partners with columns renamed by `names`."""

    def column(old: SpiderColumn) -> SpiderColumn:
        return SpiderColumn(
            old.aggregate, names.get(old.name, old.name), old.distinct and keep_distinct
        )

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
        other=query.other and _rename_columns(query.other, names, keep_distinct),
    )


def _is_same_query(reference: SpiderQuery, answer: SpiderQuery) -> bool:
    return (
        reference.distinct == answer.distinct
        and Counter(reference.select) == Counter(answer.select)
        and Counter(_drop_connectors(reference.where)) == Counter(_drop_connectors(answer.where))
        and set(reference.where[1::2]) == set(answer.where[1::2])
        and _has_same_grouping(reference, answer)
        and _has_same_order(reference, answer)
        and _collect_keywords(reference) == _collect_keywords(answer)
        and Counter(reference.tables) == Counter(answer.tables)
        and _has_same_other(reference, answer)
    )


def _has_same_grouping(reference: SpiderQuery, answer: SpiderQuery) -> bool:
    names = [[column.name for column in query.group_by] for query in (reference, answer)]
    return names[0] == names[1] and (not names[0] or reference.having == answer.having)


def _has_same_order(reference: SpiderQuery, answer: SpiderQuery) -> bool:
    return (reference.direction, reference.order_by) == (answer.direction, answer.order_by) and (
        not reference.order_by or reference.limited == answer.limited
    )


def _has_same_other(reference: SpiderQuery, answer: SpiderQuery) -> bool:
    if reference.other is None or answer.other is None:
        return reference.other is answer.other
    return reference.set_operator == answer.set_operator and _is_same_query(
        reference.other, answer.other
    )


def _collect_keywords(query: SpiderQuery) -> set[str]:
    conditions = [*_drop_connectors(query.join_conditions + query.where + query.having)]
    comparisons = {condition.comparison for condition in conditions} & {"in", "like"}
    clauses = {
        "where": bool(query.where),
        "group": bool(query.group_by),
        "having": bool(query.having),
        "order": bool(query.order_by),
        "limit": query.limited,
        "or": "or" in _list_connectors(query),
        "not": any(condition.negated for condition in conditions),
    }
    present = {word for word, there in clauses.items() if there}
    return present | comparisons | {query.direction, query.set_operator} - {""}


def _list_connectors(query: SpiderQuery) -> list[str]:
    """Return the connectors (AND, OR) of the conditions of joins, WHERE and HAVING."""
    return [
        word
        for conditions in (query.join_conditions, query.where, query.having)
        for word in conditions[1::2]
        if isinstance(word, str)
    ]


def _drop_connectors(conditions: Sequence[Condition | str]) -> Iterable[Condition]:
    return (condition for condition in conditions if isinstance(condition, Condition))
