"""A sample of text-to-SQL: a question about two small tables becomes one SQLite query.

Every database belongs to one split. Its rows are generated too (`write_databases`), so that answers
can be judged by executing them. Numbers are unique within a column, so no query with ORDER BY and
LIMIT has ties.
"""

from __future__ import annotations

import os
import random
import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from tuneoff.records import Example, Split
from tuneoff.tasks.samples.names import draw_full_names, list_all_name_words, list_name_words
from tuneoff.tasks.samples.questions import AGGREGATES, PARENT_SHAPES, SHAPES
from tuneoff.tasks.samples.schemas import (
    Database,
    Table,
    build_databases,
    list_schema_words,
    pluralize,
)

INSTRUCTION = "Write one SQLite query that answers the question, using only the given tables."
SIZES: dict[Split, int] = {"train": 1200, "validation": 150, "test": 200}
GENERIC = frozenset(("name", "title", "label", "surname", "nickname", "alias"))

TableRow = tuple[str | int, ...]
TableRows = dict[str, list[TableRow]]


def generate(seed: int = 0) -> dict[Split, list[Example]]:
    """Return the three splits; no question about a database occurs twice."""
    rng = random.Random(seed)
    rows = {database.db_id: generate_rows(database, seed) for database in build_databases()}
    seen: set[tuple[str, str]] = set()
    splits: dict[Split, list[Example]] = {"train": [], "validation": [], "test": []}
    for split, examples in splits.items():
        candidates = [database for database in build_databases() if database.split == split]
        while len(examples) < SIZES[split]:
            database = rng.choice(candidates)
            shape = list(SHAPES)[len(examples) % len(SHAPES)]
            question, query = _generate_pair(database, shape, rows[database.db_id], rng)
            if (database.db_id, question) in seen:
                continue
            seen.add((database.db_id, question))
            inputs = {"question": question, "context": " ; ".join(database.statements())}
            meta = {"db_id": database.db_id, "shape": shape}
            examples.append(Example(f"sql-{split}-{len(examples):04d}", inputs, query, meta))
    return splits


def write_databases(folder: Path, seed: int = 0) -> None:
    """Write `<db_id>/<db_id>.sqlite` for every database of every split.

    Existing files are kept: use one folder per seed.
    """
    for database in build_databases():
        target = folder / database.db_id / f"{database.db_id}.sqlite"
        if target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        # Written to a temporary file and moved, so that nobody reads half a database.
        beside = target.with_name(f"{target.name}.{os.getpid()}.part")
        beside.unlink(missing_ok=True)
        with closing(sqlite3.connect(beside)) as connection:
            _fill_database(connection, database, generate_rows(database, seed))
        os.replace(beside, target)


def content_words() -> frozenset[str]:
    """Return words that a pretraining corpus must not hold: lower case, four letters or more."""
    words = frozenset(word for word in list_schema_words() if len(word) >= 4)
    return words - GENERIC | list_all_name_words()


def templates() -> tuple[str, ...]:
    """Return the instruction and the question templates, verbatim."""
    return (INSTRUCTION, *(text for _, questions in SHAPES.values() for text in questions))


def generate_rows(database: Database, seed: int) -> TableRows:
    """Return the rows of both tables, by table name; some parents have no child."""
    rng = random.Random(f"{seed}/{database.db_id}")
    parents = _generate_columns(database, database.parent, rng.randint(20, 30), rng)
    children = _generate_columns(database, database.child, rng.randint(40, 60), rng)
    keys = list(range(1, len(parents[0]) + 1))
    with_child = rng.sample(keys, len(keys) * 7 // 10)
    parents.insert(0, keys)
    children.append([rng.choice(with_child) for _ in children[0]])
    return {
        database.parent.name: list(zip(*parents, strict=True)),
        database.child.name: list(zip(*children, strict=True)),
    }


def _generate_columns(
    database: Database, table: Table, count: int, rng: random.Random
) -> list[Sequence[str | int]]:
    """Return the values of a table, one list per column, without the key."""
    columns: list[Sequence[str | int]] = [draw_full_names(database.split, count, rng)]
    for _ in table.words:
        choices = rng.sample(list_name_words(database.split), rng.randint(4, 6))
        columns.append(rng.choices(choices, k=count))
    for _ in table.numbers:
        low = rng.choice((10, 100))
        columns.append(rng.sample(range(low, low * 10), count))
    return columns


def _fill_database(connection: sqlite3.Connection, database: Database, rows: TableRows) -> None:
    for statement in database.statements(keys=True):
        connection.execute(statement)
    for table, values in rows.items():
        marks = ", ".join("?" for _ in values[0])
        connection.executemany(f"INSERT INTO {table} VALUES ({marks})", values)
    connection.commit()


def _generate_pair(
    database: Database, shape: str, rows: TableRows, rng: random.Random
) -> tuple[str, str]:
    """Return a question and its query."""
    query, questions = SHAPES[shape]
    child_only = shape in PARENT_SHAPES
    table = database.child if child_only else rng.choice((database.parent, database.child))
    fields = _choose_fields(database, table, query, rows, rng)
    return rng.choice(questions).format(**fields), query.format(**fields)


def _choose_fields(
    database: Database, table: Table, query: str, rows: TableRows, rng: random.Random
) -> dict[str, str]:
    """Return the template fields of a query, with values that occur in the rows."""
    parent = database.parent
    word, number = rng.choice(table.words), rng.choice(table.numbers)
    parent_word = rng.choice(parent.words)
    used = {word if "{word}" in query else "", number if "{number}" in query else ""}
    free = [column for column in table.columns if column not in used]
    # Queries that use all of a table's columns never show two others.
    show, also = rng.sample(free, 2) if len(free) > 1 else free * 2
    aggregate = rng.choice(list(AGGREGATES))
    cells = _collect_cells(database, table, rows)
    return {
        "table": table.name,
        "tables": pluralize(table.name),
        "parent": parent.name,
        "parents": pluralize(parent.name),
        "key": database.key,
        "title": table.title,
        "word": word,
        "number": number,
        "show": show,
        "also": also,
        "aggregate": aggregate,
        "function": AGGREGATES[aggregate],
        "value": str(rng.choice(cells[word])),
        "called": str(rng.choice(cells[table.title])),
        "limit": str(_choose_middle(cells[number], rng)),
        "often": str(_choose_count(cells[word], rng)),
        "parent_title": parent.title,
        "parent_word": parent_word,
        "parent_value": str(_choose_parent_value(database, parent_word, rows, rng)),
    }


def _collect_cells(database: Database, table: Table, rows: TableRows) -> dict[str, list[str | int]]:
    """Return the values of each column of a table."""
    columns = zip(*rows[table.name], strict=True)
    return dict(zip(database.header(table), map(list, columns), strict=True))


def _choose_middle(values: Sequence[str | int], rng: random.Random) -> str | int:
    """Return a value with at least a fifth of the others on either side."""
    ranked = sorted(values, key=int)
    return rng.choice(ranked[len(ranked) // 5 : -(len(ranked) // 5)])


def _choose_count(values: Sequence[str | int], rng: random.Random) -> int:
    """Return a count that at least one value exceeds, and not all of them if possible."""
    counts = sorted(Counter(values).values())
    below = [count for count in counts if count < counts[-1]]
    return rng.choice(below) if below else counts[-1] - 1


def _choose_parent_value(
    database: Database, column: str, rows: TableRows, rng: random.Random
) -> str | int:
    """Return a value of a parent that has a child."""
    cells = _collect_cells(database, database.parent, rows)
    key = rng.choice(_collect_cells(database, database.child, rows)[database.key])
    return cells[column][cells[database.key].index(key)]
