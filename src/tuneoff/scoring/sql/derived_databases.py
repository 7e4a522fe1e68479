"""Derives databases of the same schema, on which a wrong query gives a wrong result.

On one database many wrong queries return the right result by chance. Zhong, Yu and Klein (EMNLP
2020, "Semantic Evaluation for Text-to-SQL with Distilled Test Suites") execute both queries on
several. Here such databases are derived from the original, without a model and without any
prediction. A derived database keeps the schema with its keys, and has few rows made of few values:
those of the original, the constants that the references compare a column with, and their
neighbours. So some rows fail only one of several conditions, some match limits exactly, and values
occur more than once. Some databases have doubled rows (with keys of their own), others have one
empty table.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from tuneoff.errors import DataError
from tuneoff.scoring.sql.sandbox import CellValue, read_columns
from tuneoff.storage.databases import find_committed, find_database

Constants = Mapping[str, Sequence[CellValue]]

# The least and most rows of a table, before doubling; and the least and most different values of a
# column.
ROW_RANGE = (6, 30)
CHOICE_RANGE = (2, 6)
_KEPT_VALUES = 50
_ATTEMPTS = 8
_NUMERIC = ("INT", "REAL", "NUM", "DEC", "FLO", "DOU")


@dataclass(frozen=True, slots=True)
class _Column:
    name: str
    type: str
    required: bool
    key: bool
    references: tuple[str, str] | None


@dataclass(frozen=True, slots=True)
class _Table:
    name: str
    columns: tuple[_Column, ...]
    values: Mapping[str, Sequence[CellValue]]


def derive_suites(
    folder: Path, golds: Iterable[tuple[str, str]], into: Path, count: int, seed: int = 0
) -> None:
    """Write `into/<db_id>/derived-NN.sqlite`, exactly `count` of them per database.

    Existing files are kept, so a repeated call does nothing.

    Args:
        golds: (db_id, reference query); their constants are put into the rows.
    """
    queries: dict[str, set[str]] = defaultdict(set)
    for db_id, sql in golds:
        queries[db_id].add(sql)
    for db_id, texts in sorted(queries.items()):
        for extra in sorted((into / db_id).glob("derived-*.sqlite"))[count:]:
            extra.unlink()  # from a call with a higher count
        missing = [
            (number, path)
            for number in range(count)
            if not (path := into / db_id / f"derived-{number:02d}.sqlite").exists()
        ]
        if missing:
            original = find_database(folder, db_id)
            constants = collect_constants(sorted(texts))
            for number, path in missing:
                derive_database(
                    original, path, constants, random.Random(f"{seed} {db_id} {number}"), number
                )


def derive_database(
    original: Path, path: Path, constants: Constants, rng: random.Random, number: int = 0
) -> None:
    """Write one derived database, or nothing.

    Every third one has an empty table, every second one doubled rows.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.part")
    shutil.copyfile(find_committed(original), beside)
    beside.chmod(0o644)
    try:
        with closing(sqlite3.connect(beside, isolation_level=None)) as connection:
            connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
            connection.execute("PRAGMA journal_mode = OFF")
            connection.execute("PRAGMA foreign_keys = OFF")
            connection.execute("BEGIN")
            _refill(connection, constants, rng, number)
            connection.execute("COMMIT")
            connection.execute("VACUUM")
        beside.replace(path)
    except (sqlite3.DatabaseError, UnicodeError) as error:
        raise DataError(f"{original}: nothing can be derived from it ({error}).") from None
    finally:
        beside.unlink(missing_ok=True)


def collect_constants(queries: Iterable[str]) -> dict[str, list[CellValue]]:
    """Return the constants that queries compare each column with, by lower-case column name."""
    # sqlglot is loaded where it is used.
    from sqlglot import exp

    from tuneoff.scoring.sql.normal_form import NotParsed, parse_query

    constants: dict[str, list[CellValue]] = defaultdict(list)
    for sql in queries:
        try:
            tree = parse_query(sql)
        except NotParsed:
            continue
        for node in tree.find_all(exp.Predicate):
            if isinstance(node, exp.Connector):
                continue
            names = {column.name.lower() for column in node.find_all(exp.Column)}
            for value in _find_constants(node):
                for name in names:
                    if value not in constants[name]:
                        constants[name].append(value)
    return dict(constants)


def _find_constants(node: object) -> list[CellValue]:
    from sqlglot import exp

    assert isinstance(node, exp.Expression)
    constants: list[CellValue] = [
        str(literal.this) if literal.is_string else _parse_number(str(literal.this))
        for literal in node.find_all(exp.Literal)
    ]
    # In Spider's queries, a double-quoted text is more often a value than a name.
    constants += [
        column.name
        for column in node.find_all(exp.Column)
        if isinstance(column.this, exp.Identifier) and column.this.quoted and not column.table
    ]
    return constants


def _parse_number(text: str) -> CellValue:
    try:
        return int(text)
    except ValueError:
        return float(text)


def _refill(
    connection: sqlite3.Connection, constants: Constants, rng: random.Random, number: int
) -> None:
    tables = _read_tables(connection)
    for table in tables:
        connection.execute(f"DELETE FROM {_quote_name(table.name)}")
    empty = rng.choice(tables).name if tables and number % 3 == 2 else None
    made: dict[str, list[dict[str, CellValue]]] = {}
    for table in _sort_parents_first(tables):
        rows = [] if table.name == empty else _generate_rows(table, constants, made, rng)
        if number % 2:
            rows += [dict(row) for row in rows]
        made[table.name.lower()] = _insert_rows(connection, table, rows, rng)


def _read_tables(connection: sqlite3.Connection) -> list[_Table]:
    names = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' "
        "ESCAPE '\\' AND sql NOT LIKE 'CREATE VIRTUAL%' ORDER BY name"
    ).fetchall()
    pairs = read_columns(connection).foreign_keys
    return [_read_table(connection, name, pairs) for (name,) in names]


def _read_table(
    connection: sqlite3.Connection, name: str, pairs: Sequence[tuple[str, str]]
) -> _Table:
    keys = (pair for pair in pairs if pair[0].startswith(f"{name.lower()}."))
    references = {
        own.rpartition(".")[2]: (other.partition(".")[0], other.partition(".")[2])
        for own, other in keys
    }
    columns = tuple(
        _Column(column, kind, bool(required), bool(key), references.get(column.lower()))
        for _, column, kind, required, _, key in connection.execute(
            f"PRAGMA table_info({_quote_name(name)})"
        ).fetchall()
    )
    values = {
        column.name: [
            value
            for (value,) in connection.execute(
                f"SELECT DISTINCT {_quote_name(column.name)} FROM {_quote_name(name)} LIMIT "
                f"{_KEPT_VALUES}"
            )
        ]
        for column in columns
    }
    return _Table(name, columns, values)


def _sort_parents_first(tables: Sequence[_Table]) -> list[_Table]:
    """Return the tables, each after the tables of its foreign keys, unless they form a cycle."""
    left, ordered = list(tables), list[_Table]()
    while left:
        waiting = {table.name.lower() for table in left}
        ready = next(
            (t for t in left if not _list_parents(t) & (waiting - {t.name.lower()})), left[0]
        )
        left.remove(ready)
        ordered.append(ready)
    return ordered


def _list_parents(table: _Table) -> set[str]:
    return {column.references[0] for column in table.columns if column.references}


def _generate_rows(
    table: _Table,
    constants: Constants,
    made: Mapping[str, Sequence[Mapping[str, CellValue]]],
    rng: random.Random,
) -> list[dict[str, CellValue]]:
    """Return new rows; each value is one of a column's few choices."""
    choices = {
        column.name: _build_choices(column, table.values[column.name], constants, made, rng)
        for column in table.columns
    }
    wanted = rng.randint(*ROW_RANGE)
    return [
        {name: rng.choice(values) if values else None for name, values in choices.items()}
        for _ in range(wanted)
    ]


def _build_choices(
    column: _Column,
    original: Sequence[CellValue],
    constants: Constants,
    made: Mapping[str, Sequence[Mapping[str, CellValue]]],
    rng: random.Random,
) -> list[CellValue]:
    if column.references is not None:
        other, key = column.references
        known = {row[key] for row in made.get(other, ()) if row.get(key) is not None}
        if known:
            return sorted(known, key=repr)
    number = ROW_RANGE[1] if column.key else rng.randint(*CHOICE_RANGE)
    values = rng.sample(list(original), min(len(original), number))
    special = [
        value for value in constants.get(column.name.lower(), ()) if _can_hold(value, column)
    ]
    for value in rng.sample(special, min(len(special), 3)):
        values += _list_neighbours(value, column)
    if not values:
        values += [_invent_value(column, rng) for _ in range(number)]
    # NULL if it occurs, or sometimes if it may: one value among the others.
    if not column.required and not column.key and (None in original or rng.random() < 0.2):
        values.append(None)
    return values


def _can_hold(value: CellValue, column: _Column) -> bool:
    return (
        isinstance(value, (int, float))
        or not _is_numeric(column)
        or _parse_whole(value) is not None
    )


def _is_numeric(column: _Column) -> bool:
    return any(word in column.type.upper() for word in _NUMERIC)


def _parse_whole(value: CellValue) -> int | None:
    """Return the whole number that a text spells, or None."""
    try:
        return int(str(value))
    except ValueError:
        return None


def _list_neighbours(value: CellValue, column: _Column) -> list[CellValue]:
    """Return a constant and adjacent values, so that `>` and `>=`, `=` and LIKE differ."""
    if isinstance(value, (int, float)):
        return [value, value, value - 1, value + 1]
    text = str(value)
    number = _parse_whole(value)
    if number is not None:
        return [text, text, str(number - 1), str(number + 1)]
    bare = text.replace("%", "").replace("_", "x")
    if bare != text:
        return [bare, f"{bare}a", f"a{bare}", f"a{bare}a"]
    return [text, text, text.swapcase(), f"{text}a"]


def _invent_value(column: _Column, rng: random.Random) -> CellValue:
    return rng.randint(0, 99) if _is_numeric(column) else rng.choice("abcdefgh") * rng.randint(1, 3)


def _insert_rows(
    connection: sqlite3.Connection,
    table: _Table,
    rows: Sequence[dict[str, CellValue]],
    rng: random.Random,
) -> list[dict[str, CellValue]]:
    """Insert rows, and return the inserted ones, with lower-case names.

    A row whose key is taken gets other values a few times; then it is dropped.
    """
    names = [column.name for column in table.columns]
    into = f"INSERT INTO {_quote_name(table.name)} ({', '.join(map(_quote_name, names))})"
    (encoding,) = connection.execute("PRAGMA encoding").fetchone()
    kept: list[dict[str, CellValue]] = []
    for row in rows:
        for attempt in range(_ATTEMPTS):
            try:
                bound = [_bind_value(row[name], encoding) for name in names]
                places = ", ".join(place for place, _ in bound)
                connection.execute(f"{into} VALUES ({places})", [value for _, value in bound])
            except (sqlite3.IntegrityError, OverflowError):
                _change_key(row, table, attempt, rng)
            else:
                kept.append({name.lower(): row[name] for name in names})
                break
    return kept


def _bind_value(value: CellValue, encoding: str) -> tuple[str, CellValue]:
    """Return a value's placeholder in a statement, and the value to bind.

    A text that is not UTF-8 (its bytes were read as lone surrogates) can only be bound as bytes,
    which SQLite takes for UTF-8.
    """
    if not isinstance(value, str) or value.isascii() or encoding != "UTF-8":
        return "?", value
    raw = value.encode("utf-8", "surrogateescape")
    return ("?", value) if raw == value.encode("utf-8", "replace") else ("CAST(? AS TEXT)", raw)


def _change_key(row: dict[str, CellValue], table: _Table, attempt: int, rng: random.Random) -> None:
    """Change a row's own keys, and in later attempts every value that may be unique."""
    for column in table.columns:
        if column.references is not None and attempt < _ATTEMPTS // 2:
            continue
        if column.key or attempt >= 2 or (column.required and row[column.name] is None):
            value = row[column.name]
            if isinstance(value, (int, float)):
                row[column.name] = rng.randint(1, 1_000)
            elif column.references is None:
                text = value if isinstance(value, str) else "x"
                row[column.name] = f"{text}{rng.randint(0, 99)}"


def _quote_name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
