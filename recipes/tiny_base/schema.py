"""Random schemas: tables, columns, and how people speak of them."""

from __future__ import annotations

import random
from dataclasses import dataclass

from tiny_base.words import identifier, name, person, word, words


@dataclass(frozen=True)
class Column:
    """A column: its identifier, its words, and whether it holds text."""

    ident: str
    said: str
    type: str
    text: bool


@dataclass(frozen=True)
class Table:
    """A table: its identifier, what one row and many rows are called, its columns."""

    ident: str
    one: str
    many: str
    columns: tuple[Column, ...]
    key: str = ""  # primary key
    parent: str = ""  # the column that points to the other table

    def of(self, text: bool) -> list[Column]:
        """Its text columns, or its number columns that are no keys."""
        keys = (self.key, self.parent)
        return [c for c in self.columns if c.text is text and c.ident not in keys]


@dataclass(frozen=True)
class Schema:
    """One table, or a table and another that points to it."""

    tables: tuple[Table, ...]
    layout: int
    upper: bool

    def text(self) -> str:
        """The CREATE TABLE statements in the schema's layout."""
        mark = ("\n", "\n", "\n", "\n", " ", " ", " ; ", "\n\n")[self.layout]
        return mark.join(self._create(t) for t in self.tables)

    def _create(self, table: Table) -> str:
        create = "CREATE TABLE" if self.upper else "create table"
        cells = [f"{c.ident} {c.type if self.upper else c.type.lower()}" for c in table.columns]
        if self.layout in (2, 5) and table.key:
            cells[0] += " PRIMARY KEY" if self.upper else " primary key"
        if self.layout in (3, 7):
            body = ",\n  ".join(cells)
            return f"{create} {table.ident} (\n  {body}\n)" + ";" * (self.layout == 3)
        return f"{create} {table.ident} ({', '.join(cells)})" + ";" * (self.layout in (1, 5))


def plural(noun: str) -> str:
    """The plural as a rule of thumb."""
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


_TEXT = ("TEXT", "TEXT", "VARCHAR", "VARCHAR(50)", "CHAR")
_NUMBER = ("INTEGER", "INTEGER", "INT", "REAL", "NUMBER", "FLOAT")


def _column(rng: random.Random, parts: list[str], texts: str, numbers: str, join: str) -> Column:
    text = rng.random() < 0.5
    return Column(join.join(parts), " ".join(parts), texts if text else numbers, text)


def draw_schema(rng: random.Random, small: bool = False) -> Schema:
    """A schema with one style throughout."""
    texts, numbers = rng.choice(_TEXT), rng.choice(_NUMBER)
    join = rng.choice(("_", "_", "_", "_", ""))
    keyed, plurals = rng.random() < 0.5, rng.random() < 0.35
    two = not small and rng.random() < 0.5
    made: list[Table] = []
    for noun in words(rng, 2 if two else 1):
        spoken = [noun] if rng.random() < 0.8 else [word(rng), noun]
        ident = join.join([*spoken[:-1], plural(noun) if plurals else noun])
        parent = f"{made[0].one.replace(' ', join)}_id" if made else ""
        columns: dict[str, Column] = {}
        if keyed or (two and not made):
            ident_key = "id" if rng.random() < 0.6 else f"{join.join(spoken)}_id"
            columns[ident_key] = Column(ident_key, ident_key.replace("_", " "), numbers, False)
        key = next(iter(columns), "")
        count = rng.randint(2, 3) if small else rng.randint(2, 6)
        called = rng.random() < 0.3
        if called:
            title = rng.choice(("name", "title", "label"))
            columns[title] = Column(title, title, texts, True)
        for _ in range(count):
            column = _column(rng, identifier(rng), texts, numbers, join)
            columns.setdefault(column.ident, column)
        for text in (True, False):
            if not any(c.text is text and c.ident not in (key, parent) for c in columns.values()):
                parts = identifier(rng)
                kind = texts if text else numbers
                columns[join.join(parts)] = Column(join.join(parts), " ".join(parts), kind, text)
        if parent:
            columns[parent] = Column(parent, parent.replace("_", " "), numbers, False)
        many = " ".join([*spoken[:-1], plural(noun)])
        made.append(Table(ident, " ".join(spoken), many, tuple(columns.values()), key, parent))
    return Schema(tuple(made), rng.randrange(8), rng.random() < 0.85)


def cell(rng: random.Random, column: Column) -> str:
    """A value that the column may hold."""
    if not column.text:
        return str(rng.randint(1, rng.choice((9, 99, 999, 2030, 90000))))
    return rng.choice((name, name, person, word, word))(rng)
