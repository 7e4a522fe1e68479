"""Text to SQL: a question and a database's schema become the query that answers it.

Example (spider-create-context's form, invented row):

    question:    How many ships were built after 1990?
    context:     CREATE TABLE ship (built INTEGER)
    completion:  SELECT COUNT(*) FROM ship WHERE built > 1990

Data: `source: spider-create-context` is the seed experiment's intersection of Spider (Yu et al.,
EMNLP 2018; CC BY-SA 4.0; hub id xlangai/spider) and sql-create-context (hub id
b-mc2/sql-create-context, CC BY 4.0). Rows are matched on question and query, so that each gets its
`db_id`. It is read ready-made from `spider_create_context/{train,validation}.jsonl` below
`data_dir`, or computed from raw copies there (`sql_create_context.json[l]`,
`spider/train_spider.json`, `spider/dev.json`), or from the hub.

Splits: test is the 568-row split. Validation is carved out of train by whole databases, because
validation must never be test. Train rows whose input recurs in test or validation are dropped.
`splits: seed` is the seed experiment's own arrangement: all 3,961 rows train, the 568 both validate
and test. `context: schema` puts the whole schema, read from the SQLite file, before the question.

A schema is one line of text in Spider's own form:

    singer : singer_id [ INT ] primary_key name [ TEXT ] concert : singer_id [ INT ]
    concert.singer_id = singer.singer_id

Tables come in the order of creation. A column is followed by its declared type in upper case, then
by `primary_key` if it is part of the key, then by the column that it refers to.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from tuneoff.config.schema import TaskConfig
from tuneoff.errors import DataError
from tuneoff.prompts import Template
from tuneoff.records import Example
from tuneoff.storage.databases import find_committed, find_database
from tuneoff.tasks.base import DataPaths, Splits
from tuneoff.tasks.readers import DataRow, get_required_text, load_from_hub, read_records
from tuneoff.tasks.samples import sql
from tuneoff.tasks.splits import carve_groups, exclude_inputs


def serialize_schema(file: Path) -> str:
    """Return the schema of a SQLite file as text.

    Raises:
        DataError: the file is not a SQLite database.
    """
    try:
        uri = f"{find_committed(file).resolve().as_uri()}?mode=ro&immutable=1"
        with closing(sqlite3.connect(uri, uri=True)) as database:
            tables = [
                name
                for (name,) in database.execute(
                    "SELECT name FROM sqlite_master WHERE type = 'table' "
                    "AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY rowid"
                )
            ]
            return " ".join(_serialize_table(database, name) for name in tables)
    except sqlite3.DatabaseError as error:
        raise DataError(f"{file}: this is not a SQLite database ({error}).") from None


def _serialize_table(database: sqlite3.Connection, table: str) -> str:
    references = {
        own.lower(): f"{other}.{theirs or own}"
        for _, _, other, own, theirs, *_ in database.execute(
            "SELECT * FROM pragma_foreign_key_list(?)", (table,)
        )
    }
    parts = [f"{table} :"]
    for _, column, kind, _, _, key in database.execute(
        "SELECT * FROM pragma_table_info(?)", (table,)
    ):
        parts.append(f"{column} [ {kind.upper()} ]")
        if key:
            parts.append("primary_key")
        if column.lower() in references:
            parts.append(f"{table}.{column} = {references[column.lower()]}")
    return " ".join(parts)


SCORER = "sql"
SOURCES = ("spider-create-context", "sample")
MAX_NEW_TOKENS = 192
CLUSTER = "db_id"
VALIDATION_FRACTION = 0.08
CREATE_CONTEXT_HUB, SPIDER_HUB = "b-mc2/sql-create-context", "xlangai/spider"

INSTRUCTION = (
    "You are a powerful text-to-SQL model. Your job is to answer questions about a database. "
    "You are given a question and context regarding one or more tables.\n\n"
    "You must output the SQL query that answers the question."
)
CONTEXT = "### Context:\n{context}"
QUESTION_FIRST = "### Input:\n{question}\n\n### Context:\n{context}\n\n### Response:\n"
CONTEXT_FIRST = "### Context:\n{context}\n\n### Input:\n{question}\n\n### Response:\n"


def load(settings: TaskConfig, place: DataPaths) -> Splits:
    """Return all examples by split.

    Raises:
        DataError: files, hub or databases cannot be read.
    """
    if settings.source == "sample":
        return sql.generate(settings.seed)
    train, test = _load_spider_create_context(place)
    if settings.context == "schema":
        folder = databases(settings, place, Path())
        if folder is None:
            raise DataError(
                "context: schema reads the schemas from Spider's SQLite files, and there are none; "
                "set task.databases to the folder of <db_id>/<db_id>.sqlite."
            )
        train, test = (add_schemas(examples, folder) for examples in (train, test))
    if settings.splits == "seed":
        return {"train": train, "validation": test, "test": test}
    train, validation = carve_groups(train, "db_id", VALIDATION_FRACTION, settings.seed)
    validation = exclude_inputs(validation, test)
    return {
        "train": exclude_inputs(train, [*validation, *test]),
        "validation": validation,
        "test": test,
    }


def template(settings: TaskConfig) -> Template:
    """Return the prompt; the sample has a short instruction of its own."""
    before = settings.context == "schema" or settings.source == "sample"
    instruction = sql.INSTRUCTION if settings.source == "sample" else INSTRUCTION
    return Template(
        instruction=instruction,
        text_instruction=instruction,
        context=CONTEXT,
        user="{question}",
        body=CONTEXT_FIRST if before else QUESTION_FIRST,
    )


def databases(settings: TaskConfig, place: DataPaths, into: Path) -> Path | None:
    """Return the folder of `<db_id>/*.sqlite`, or None.

    The sample's databases are generated below `into`.

    Raises:
        DataError: `task.databases` names a folder that does not exist.
    """
    if settings.databases is not None:
        folder = place.path(settings.databases)
        if not folder.is_dir():
            raise DataError(
                f"task.databases: there is no folder {folder}; it must hold <db_id>/<db_id>.sqlite."
            )
        return folder
    if settings.source == "sample":
        sql.write_databases(into, settings.seed)
        return into
    local = place.data_dir / "spider" / "databases" if place.data_dir else None
    return local if local is not None and local.is_dir() else None


def add_schemas(examples: Iterable[Example], folder: Path) -> list[Example]:
    """Return the examples with their database's whole schema as context."""
    schemas: dict[str, str] = {}
    changed = []
    for example in examples:
        db_id = str(example.meta["db_id"])
        if db_id not in schemas:
            schemas[db_id] = serialize_schema(find_database(folder, db_id))
        inputs = {**example.inputs, "context": schemas[db_id]}
        changed.append(Example(example.id, inputs, example.completion, example.meta))
    return changed


def _load_spider_create_context(place: DataPaths) -> tuple[list[Example], list[Example]]:
    """Return (train, test), read ready-made or computed."""
    ready = place.data_dir / "spider_create_context" if place.data_dir else None
    if ready is not None and ready.is_dir():
        return (
            _build_examples(_read_rows(ready / "train.jsonl", place), "train", str(ready)),
            _build_examples(_read_rows(ready / "validation.jsonl", place), "test", str(ready)),
        )
    contexts = list(_load_raw(place, "sql_create_context", CREATE_CONTEXT_HUB, "train"))
    train = intersect_rows(contexts, _load_raw(place, "spider/train_spider", SPIDER_HUB, "train"))
    test = intersect_rows(contexts, _load_raw(place, "spider/dev", SPIDER_HUB, "validation"))
    return _build_examples(train, "train", SPIDER_HUB), _build_examples(test, "test", SPIDER_HUB)


def _load_raw(place: DataPaths, name: str, hub_id: str, split: str) -> Iterable[DataRow]:
    for suffix in (".jsonl", ".json"):
        local = place.data_dir / f"{name}{suffix}" if place.data_dir else None
        if local is not None and local.is_file():
            return _read_rows(local, place)
    return load_from_hub(hub_id, split)


def _read_rows(path: Path, place: DataPaths) -> list[DataRow]:
    return [record.row for record in read_records(path, warn=place.warn)]


def intersect_rows(contexts: Iterable[DataRow], spider: Iterable[DataRow]) -> list[DataRow]:
    """Return the rows of sql-create-context that are Spider's, with their `db_id`.

    Rows match on question and query, ignoring blanks, and keep the order of sql-create-context.
    Where Spider asks the same question of several databases, the first row takes the first
    database, the second the second.

    Args:
        contexts: rows with question, context and answer.
        spider: rows with question, query and db_id.
    """
    by_key: Mapping[tuple[str, str], list[str]] = defaultdict(list)
    for row in spider:
        by_key[_build_key(row["question"], row["query"])].append(row["db_id"])
    matched = []
    for row in contexts:
        databases_left = by_key.get(_build_key(row["question"], row["answer"]))
        if databases_left:
            fields = {key: row[key] for key in ("question", "context", "answer")}
            matched.append({**fields, "db_id": databases_left.pop(0)})
    return matched


def _build_key(question: Any, query: Any) -> tuple[str, str]:
    return " ".join(str(question).split()), " ".join(str(query).split())


def _build_examples(rows: Iterable[DataRow], split: str, where: str) -> list[Example]:
    examples = []
    for number, row in enumerate(rows, 1):
        at = f"{where}, {split} row {number}"
        examples.append(
            Example(
                id=f"spider-{split}-{number:05d}",
                inputs={
                    "question": get_required_text(row, "question", at),
                    "context": get_required_text(row, "context", at),
                },
                completion=get_required_text(row, "answer", at),
                meta={"db_id": get_required_text(row, "db_id", at)},
            )
        )
    return examples
