"""Your own data: chat JSONL, prompt/completion JSONL, CSV or Parquet.

Example (one line of OpenAI's chat format):

    {"messages": [{"role": "system", "content": "Answer with one word."},
                  {"role": "user", "content": "Capital of Peru?"},
                  {"role": "assistant", "content": "Lima"}]}

The last assistant turn is the reference; everything before it is the prompt; what a row may
hold says `training_rows.py`. A prompt/completion row becomes one user turn (and one system
turn, if a column is named). Blanks around a text are part of it. Without a `validation` or
`test` file a tenth of train (at most 500) is carved for each, equal inputs staying together.
Metric: exact match, unless `metrics:` says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tuneoff.config import Columns, TaskSettings
from tuneoff.errors import ConfigError, DataError
from tuneoff.prompts import CHAT_PASS_THROUGH, Template
from tuneoff.records import Example
from tuneoff.tasks import Place, Splits, training_rows
from tuneoff.tasks.rows import Row, read, required
from tuneoff.tasks.splits import carve, carved_size

SCORER = "text"
SOURCES: tuple[str, ...] = ()
MAX_NEW_TOKENS = 256
CLUSTER = None


def load(settings: TaskSettings, place: Place) -> Splits:
    """All examples by split.

    Raises:
        ConfigError: no `train` file is named.
        DataError: a file or a row of it cannot be used.
    """
    if settings.train is None:
        raise ConfigError("task: chat needs train: FILE (and, if you have them, validation, test).")
    train = read_examples(place.path(settings.train), settings.columns)
    given, count = len(train), carved_size(len(train))
    if settings.test is not None:
        test = read_examples(place.path(settings.test), settings.columns)
    else:
        train, test = carve(train, count, settings.seed)
    if settings.validation is not None:
        validation = read_examples(place.path(settings.validation), settings.columns)
    else:
        train, validation = carve(train, count, settings.seed + 1)
    if not train:
        raise DataError(
            f"{settings.train}: {given} examples are too few to carve the missing splits out of "
            "(equal inputs stay together); give task.validation and task.test, or more examples."
        )
    return {"train": train, "validation": validation, "test": test}


def template(settings: TaskSettings) -> Template:
    """The turns are the prompt."""
    return CHAT_PASS_THROUGH


def databases(settings: TaskSettings, place: Place, into: Path) -> None:
    """There is nothing to execute."""
    if settings.databases is not None:
        raise ConfigError("task.databases: chat executes nothing; drop it.")


def read_examples(path: Path, columns: Columns | None = None) -> list[Example]:
    """The examples of a file; ids are the rows' own, or file name and line."""
    return list(examples_in(path, columns))


def examples_in(path: Path, columns: Columns | None = None) -> Iterator[Example]:
    """The same, one after another."""
    for line, row in read(path):
        yield _example(row, f"{path}:{line}", f"{path.stem}-{line}", columns)


def stored_examples(path: Path) -> Iterator[Example]:
    """Yield the examples of a file that was checked when it was stored: what a row may hold has
    changed since, and what was taken once is read for good."""
    for line, row in read(path):
        yield _from_messages(row, f"{path.stem}-{line}")


def _example(row: Row, where: str, default_id: str, columns: Columns | None) -> Example:
    if "messages" in row and columns is None:
        fault = training_rows.find_fault(row)
        if fault is not None:
            raise DataError(f"{where}: {fault}.")
        return _from_messages(row, default_id)
    if (place := training_rows.find_half_pair(row)) is not None:
        raise DataError(f"{where}: {training_rows.HALF_PAIR} ({place}).")
    columns = columns or Columns()

    def text(part: str, key: str) -> str:
        return required(row, key, where if key == part else f"{where}: task.columns.{part}")

    turns = [{"role": "user", "content": text("prompt", columns.prompt)}]
    if columns.system is not None:
        turns.insert(0, {"role": "system", "content": text("system", columns.system)})
    example_id = str(row[columns.id]) if columns.id and columns.id in row else default_id
    return Example(example_id, {"messages": turns}, text("completion", columns.completion))


def _from_messages(row: Row, default_id: str) -> Example:
    before, answer = training_rows.split_answer(row["messages"])
    id = row.get("id")
    meta = row.get("meta")
    return Example(
        default_id if id is None else str(id),
        {"messages": before},
        answer,
        meta if isinstance(meta, dict) else {},
    )
