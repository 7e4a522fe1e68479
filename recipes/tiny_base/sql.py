"""Questions about tables and the queries that answer them, both ways, with schema lookups."""

# ruff: noqa: SIM905
from __future__ import annotations

import random
from collections.abc import Callable

from tiny_base.copying import Document
from tiny_base.schema import Column, Schema, Table, cell, draw_schema

Pair = tuple[str, str]  # question and query

_ASK = (
    "Show me|Return|Get|Fetch|I want to see|Display|Report|What are|Which are|Look up|I need|Print"
    "|We are looking for|Select|Please find|Can you tell me"
).split("|")
_OF = "of the {m}|for all {m}|of {m}|from the {o} table|belonging to the {m}|of any {o}".split("|")
_IS = (
    "where the {c} is {v}|whose {c} equals {v}|with the {c} {v}|having {v} as the {c}"
    "|that have {c} {v}|if their {c} is {v}|with {v} as their {c}"
).split("|")
_OVER = (
    "with a {c} over {v}|where the {c} exceeds {v}|with {c} higher than {v}|with more {c} than {v}"
    "|whose {c} is bigger than {v}|with more than {v} {c}"
).split("|")
_UNDER = (
    "with a {c} under {v}|where the {c} stays below {v}|with {c} lower than {v}"
    "|with less {c} than {v}|whose {c} is smaller than {v}|with fewer than {v} {c}"
).split("|")
_FUNCTIONS = {
    "MAX": "highest largest maximum biggest greatest".split(),
    "MIN": "lowest smallest minimum least".split(),
    "AVG": "average mean typical".split(),
    "SUM": ["total", "sum of the", "combined", "overall"],
}


def _ask(rng: random.Random, text: str) -> str:
    front = rng.choice(_ASK)
    end = "?" if front.startswith(("What", "Which", "Can")) else "."
    return f"{front} {text}{end}"


def _of(rng: random.Random, t: Table) -> str:
    return rng.choice(_OF).format(m=t.many, o=t.one)


def _columns(rng: random.Random, t: Table) -> tuple[str, str, list[Column]]:
    """Spoken columns, written columns."""
    pool = [c for c in t.columns if c.ident != t.parent]
    chosen = rng.sample(pool, min(len(pool), rng.choice((1, 1, 1, 2, 2, 3))))
    *first, last = [c.said for c in chosen]
    said = f"{', '.join(first)} and {last}" if first else last
    the = rng.choice(("the ", "the ", ""))
    return the + said, ", ".join(c.ident for c in chosen), chosen


def _quoted(c: Column, v: str) -> str:
    return "'" + v.replace("'", "''") + "'" if c.text else v


def _condition(rng: random.Random, t: Table, prefix: str = "") -> Pair:
    """A condition in words and in SQL."""
    c = rng.choice(t.of(rng.random() < 0.6))
    v = cell(rng, c)
    sort = rng.random()
    if c.text or sort < 0.3:
        phrases, op = _IS, "="
        if c.text and sort > 0.9:
            return f"whose {c.said} is not {v}", f"{prefix}{c.ident} != {_quoted(c, v)}"
    elif sort < 0.6:
        phrases, op = _OVER, ">"
    elif sort < 0.9:
        phrases, op = _UNDER, "<"
    else:
        low, high = sorted((int(v), rng.randint(1, 9999)))
        said = f"whose {c.said} lies between {low} and {high}"
        return said, f"{prefix}{c.ident} BETWEEN {low} AND {high}"
    return rng.choice(phrases).format(c=c.said, v=v), f"{prefix}{c.ident} {op} {_quoted(c, v)}"


def plain(rng: random.Random, s: Schema) -> Pair:
    t = rng.choice(s.tables)
    said, written, _ = _columns(rng, t)
    distinct = rng.random() < 0.25
    if distinct:
        kinds = ("the different ", "the distinct ", "each different ")
        said = rng.choice(kinds) + said.removeprefix("the ")
    query = f"SELECT {'DISTINCT ' * distinct}{written} FROM {t.ident}"
    return _ask(rng, f"{said} {_of(rng, t)}"), query


def where(rng: random.Random, s: Schema) -> Pair:
    t = rng.choice(s.tables)
    said, written, _ = _columns(rng, t)
    words_1, sql_1 = _condition(rng, t)
    query = f"SELECT {written} FROM {t.ident} WHERE {sql_1}"
    text = f"{said} {rng.choice(('of the', 'of', 'for', 'for the', 'of all'))} {t.many} {words_1}"
    if rng.random() < 0.2:
        words_2, sql_2 = _condition(rng, t)
        joint = rng.choice(("and", "or"))
        query += f" {joint.upper()} {sql_2}"
        text += f" {joint} {words_2}"
    front = rng.random()
    if front < 0.15:
        return f"For the {t.many} {words_1}, what {said} do they have?", (
            f"SELECT {written} FROM {t.ident} WHERE {sql_1}"
        )
    return _ask(rng, text), query


def count(rng: random.Random, s: Schema) -> Pair:
    t = rng.choice(s.tables)
    if rng.random() < 0.4:
        text = rng.choice(("Number of {m}?", "Number of {m} in all?", "How many {m} do we have?"))
        return text.format(m=t.many), f"SELECT COUNT(*) FROM {t.ident}"
    said, sql = _condition(rng, t)
    text = rng.choice(
        (f"How many {t.many} exist {said}?", f"I need the number of {t.many} {said}.")
    )
    if rng.random() < 0.2:
        c = rng.choice(t.columns)
        return (
            f"How many different {c.said} do the {t.many} have?",
            f"SELECT COUNT(DISTINCT {c.ident}) FROM {t.ident}",
        )
    return text, f"SELECT COUNT(*) FROM {t.ident} WHERE {sql}"


def aggregate(rng: random.Random, s: Schema) -> Pair:
    t = rng.choice(s.tables)
    c = rng.choice(t.of(text=False))
    chosen = rng.sample(list(_FUNCTIONS), rng.choice((1, 1, 1, 2)))
    *first, last = [rng.choice(_FUNCTIONS[f]) for f in chosen]
    said = f"the {' and '.join([*first, last])} {c.said}"
    query = f"SELECT {', '.join(f'{f}({c.ident})' for f in chosen)} FROM {t.ident}"
    if rng.random() < 0.35:
        words_1, sql_1 = _condition(rng, t)
        return _ask(rng, f"{said} of the {t.many} {words_1}"), f"{query} WHERE {sql_1}"
    return _ask(rng, f"{said} {_of(rng, t)}"), query


def ordered(rng: random.Random, s: Schema) -> Pair:
    t = rng.choice(s.tables)
    said, written, _ = _columns(rng, t)
    c = rng.choice(t.columns)
    down = rng.random() < 0.5
    query = f"SELECT {written} FROM {t.ident} ORDER BY {c.ident} {'DESC' if down else 'ASC'}"
    sort = rng.random()
    if sort < 0.5:
        most = rng.choice(_FUNCTIONS["MAX" if down else "MIN"])
        k = 1 if sort < 0.3 else rng.randint(2, 9)
        who = f"{t.one}" if k == 1 else f"{k} {t.many}"
        return _ask(rng, f"{said} of the {who} with the {most} {c.said}"), f"{query} LIMIT {k}"
    way = rng.choice(
        ("descending", "falling", "from high to low")
        if down
        else ("ascending", "rising", "from low to high")
    )
    by = rng.choice(("ordered by {c}, {w}", "sorted by {c} ({w})", "by {c}, {w}"))
    return _ask(rng, f"{said} {_of(rng, t)}, {by.format(c=c.said, w=way)}"), query


def grouped(rng: random.Random, s: Schema) -> Pair:
    t = rng.choice(s.tables)
    c = rng.choice(t.of(text=True))
    if rng.random() < 0.4:
        n = rng.choice(t.of(text=False))
        f = rng.choice(list(_FUNCTIONS))
        text = f"for each {c.said}, the {rng.choice(_FUNCTIONS[f])} {n.said} {_of(rng, t)}"
        query = f"SELECT {c.ident}, {f}({n.ident}) FROM {t.ident} GROUP BY {c.ident}"
        return _ask(rng, text), query
    if rng.random() < 0.4:
        k = rng.randint(2, 20)
        than = rng.choice((f"more than {k}", f"over {k}"))
        query = f"SELECT {c.ident} FROM {t.ident} GROUP BY {c.ident} HAVING COUNT(*) > {k}"
        return f"Which {c.said} do {than} {t.many} have?", query
    text = rng.choice(
        (
            "How many {m} for each {c}?",
            "By {c}, the number of {m}.",
            "Each {c} with its number of {m}.",
        )
    ).format(m=t.many, c=c.said)
    return text, f"SELECT {c.ident}, COUNT(*) FROM {t.ident} GROUP BY {c.ident}"


def nested(rng: random.Random, s: Schema) -> Pair:
    t = rng.choice(s.tables)
    said, written, _ = _columns(rng, t)
    c = rng.choice(t.of(text=False))
    above = rng.random() < 0.5
    side = rng.choice(
        ("above", "over", "higher than") if above else ("below", "under", "less than")
    )
    mean = rng.choice(("average", "mean"))
    query = f"SELECT {written} FROM {t.ident} WHERE {c.ident} {'>' if above else '<'} "
    query += f"(SELECT AVG({c.ident}) FROM {t.ident})"
    return _ask(rng, f"{said} of {t.many} whose {c.said} is {side} the {mean}"), query


def joined(rng: random.Random, s: Schema) -> Pair:
    """Columns of one table by a condition on the other."""
    if len(s.tables) < 2:
        return where(rng, s)
    parent, child = s.tables
    on = f"T1.{child.parent} = T2.{parent.key}"
    source = f"FROM {child.ident} AS T1 JOIN {parent.ident} AS T2 ON {on}"
    sort = rng.random()
    if sort < 0.45:
        show = rng.choice([c for c in child.columns if c.ident not in (child.parent, child.key)])
        said, sql = _condition(rng, parent, "T2.")
        link = rng.choice(("in the", "that belong to the", "linked to the", "of the"))
        text = f"the {show.said} of the {child.many} {link} {parent.one} {said}"
        return _ask(rng, text), f"SELECT T1.{show.ident} {source} WHERE {sql}"
    if sort < 0.65:
        show = rng.choice(parent.of(text=True))
        said, sql = _condition(rng, child, "T1.")
        text = f"the {show.said} of the {parent.many} that have a {child.one} {said}"
        return _ask(rng, text), f"SELECT T2.{show.ident} {source} WHERE {sql}"
    if sort < 0.85:
        a, b = rng.choice(child.of(text=True)), rng.choice(parent.of(text=True))
        text = f"the {a.said} of each {child.one} with the {b.said} of its {parent.one}"
        return _ask(rng, text), f"SELECT T1.{a.ident}, T2.{b.ident} {source}"
    b = rng.choice(parent.of(text=True))
    text = f"the {b.said} of each {parent.one} and its number of {child.many}"
    query = f"SELECT T2.{b.ident}, COUNT(*) {source} GROUP BY T1.{child.parent}"
    return _ask(rng, text), query


def member(rng: random.Random, s: Schema) -> Pair:
    """Rows that others point to, or nobody does."""
    if len(s.tables) < 2:
        return ordered(rng, s)
    parent, child = s.tables
    show = rng.choice(parent.of(text=True))
    negated = rng.random() < 0.6
    query = f"SELECT {show.ident} FROM {parent.ident} WHERE {parent.key} {'NOT ' * negated}IN "
    query += f"(SELECT {child.parent} FROM {child.ident})"
    has = rng.choice(("have no", "lack any")) if negated else rng.choice(("have some", "own any"))
    return _ask(rng, f"the {show.said} of the {parent.many} that {has} {child.many}"), query


SHAPES: dict[Callable[[random.Random, Schema], Pair], float] = {
    plain: 2,
    where: 4,
    count: 2.5,
    aggregate: 2,
    ordered: 2,
    grouped: 2,
    nested: 1,
    joined: 4,
    member: 1.5,
}
_ORDERS = (
    "", "", "", "Write the SQL.\n", "Answer with a query.\n\n", "-- SQL for the question below\n",
    "Use these tables to write SQL.\n\n", "Text to SQL\n", "You know the tables; give the query.\n",
)  # fmt: skip
_HEADS = (
    ("", "", ""),
    ("Schema:\n", "Question: ", "\nSQL:"), ("### Tables\n", "### Ask\n", "\n### Query"),
    ("# Database\n", "# Request: ", ""), ("", "-- ", ""), ("[tables]\n", "[ask] ", "\n[sql]"),
    ("### Given:\n", "### Task:\n", "\n\n### SQL:"), ("/* ", " */ ", ""), ("DB: ", "Q: ", "\nA:"),
)  # fmt: skip


def questions(rng: random.Random, small: bool) -> Document:
    """A schema and one to four questions with their queries."""
    schema = draw_schema(rng, small)
    given, asked, answer = rng.choice(_HEADS)
    shapes = rng.choices(list(SHAPES), list(SHAPES.values()), k=rng.choice((1, 2, 2, 3, 4)))
    pairs = [shape(rng, schema) for shape in shapes]
    order = rng.choice(_ORDERS)
    tables = f"{given}{schema.text()}\n"
    gap = rng.choice(("", "\n"))
    lower = rng.random() < 0.1
    if lower:
        order = "Keywords in lower case.\n" + order
    document: Document = []
    last = rng.random() < 0.35  # the schema behind the first question
    for question, query in pairs:
        if lower:
            for keyword in _KEYWORDS:
                query = query.replace(keyword, keyword.lower())
        if document:
            lead = f"\n{gap}{asked}{question}{answer}\n"
        elif last:
            lead = f"{order}{asked}{question}\n{gap}{tables.rstrip()}{answer}\n"
        else:
            lead = f"{order}{tables}{gap}{asked}{question}{answer}\n"
        document += [(lead, False), (query, True)]
    return document


_KEYWORDS = (
    *"SELECT FROM WHERE COUNT( DISTINCT MAX( MIN( AVG( SUM( LIMIT DESC ASC BETWEEN HAVING".split(),
    *("JOIN", " AS ", " ON ", " AND ", " OR ", " NOT ", " IN ", "ORDER BY", "GROUP BY"),
)


def lookups(rng: random.Random, small: bool) -> Document:
    """Which columns, which table, which type, which identifier for a phrase."""
    schema = draw_schema(rng, small)
    document: Document = [(schema.text() + "\n", False)]
    for _ in range(rng.randint(2, 4)):
        t = rng.choice(schema.tables)
        c = rng.choice(t.columns)
        question, answer = rng.choice(
            (
                (f"columns of {t.ident}", ", ".join(x.ident for x in t.columns)),
                (f"Which table knows the {c.said}?", t.ident),
                (f"type of {c.ident}", c.type if schema.upper else c.type.lower()),
                (f"column for the {c.said} of {t.many}", c.ident),
                (f"the table of {t.many}", t.ident),
                ("numbers in " + t.ident, ", ".join(x.ident for x in t.columns if not x.text)),
                ("all tables", ", ".join(x.ident for x in schema.tables)),
                (f"{t.one} and {c.said}", f"{t.ident}.{c.ident}"),
            )
        )
        document += [(("\n" if len(document) > 1 else "") + question + "\n", False), (answer, True)]
    return document


def backwards(rng: random.Random, small: bool) -> Document:
    """A query, then the question that it answers; or the rest of a query."""
    schema = draw_schema(rng, small)
    shape = rng.choices(list(SHAPES), list(SHAPES.values()))[0]
    question, query = shape(rng, schema)
    if rng.random() < 0.5:
        return [(f"{schema.text()}\n{query}\nIn words:\n", False), (question, True)]
    return [(f"{schema.text()}\n{query}\nThe same query:\n", False), (query, True)]


def make(rng: random.Random, small: bool = False) -> Document:
    """One document of this family."""
    sort = rng.random()
    if sort < (0.4 if small else 0.15):
        return lookups(rng, small)
    return questions(rng, small) if sort < 0.94 else backwards(rng, small)
