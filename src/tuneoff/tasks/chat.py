"""Your own data: chat JSONL, prompt/completion JSONL, CSV or Parquet.

Example (one line of OpenAI's chat format):

    {"messages": [{"role": "system", "content": "Answer with one word."},
                  {"role": "user", "content": "Capital of Peru?"},
                  {"role": "assistant", "content": "Lima"}]}

The last assistant turn is the reference; the turns before it are the prompt. `training_rows.py`
says which keys a row may have. In a file of columns each row becomes one user turn, and one system
turn if it has such a text. The columns are named under `columns:`, or found by their names
(`columns.py`). Blanks around a text are part of it. Without a `validation` or `test` file, a tenth
of train (at most 500) is carved for each; equal inputs stay together. Metric: exact match, unless
`metrics:` names others.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from tuneoff.config.base import Columns
from tuneoff.config.schema import TaskConfig
from tuneoff.errors import ConfigError, DataError
from tuneoff.prompts import CHAT_PASS_THROUGH, Template
from tuneoff.records import Example, Split
from tuneoff.tasks import training_rows
from tuneoff.tasks.base import DataPaths, Splits
from tuneoff.tasks.columns import (
    TURN_KEYS,
    ColumnUsage,
    describe_columns,
    find_columns,
    make_example,
)
from tuneoff.tasks.readers import DataRow, Record, get_row_id, read_records
from tuneoff.tasks.splits import carve, compute_carved_size, count_repeated_inputs, find_repeated_id
from tuneoff.tasks.text_lines import Warn, ignore_warning

SCORER = "text"
SOURCES: tuple[str, ...] = ()
MAX_NEW_TOKENS = 256
CLUSTER = None


def load(settings: TaskConfig, place: DataPaths) -> Splits:
    """Return all examples by split.

    Raises:
        ConfigError: no `train` file is named.
        DataError: a file or one of its rows cannot be used.
    """
    if settings.train is None:
        raise ConfigError("task: chat needs train: FILE (and, if you have them, validation, test).")

    def read_split(file: str) -> list[Example]:
        path = place.path(file)
        warn_chosen_columns(path, settings.columns, place.warn)
        return load_checked_examples(path, settings.columns, place.warn)

    train = read_split(settings.train)
    total, count = len(train), compute_carved_size(len(train))
    if settings.test is not None:
        test = read_split(settings.test)
    else:
        train, test = carve(train, count, settings.seed)
    if settings.validation is not None:
        validation = read_split(settings.validation)
    else:
        train, validation = carve(train, count, settings.seed + 1)
    if not train:
        raise DataError(
            f"{settings.train}: {total} examples are too few to carve the missing splits out of "
            "(equal inputs stay together); give task.validation and task.test, or more examples."
        )
    return {"train": train, "validation": validation, "test": test}


def template(settings: TaskConfig) -> Template:
    """Return the template that passes the turns through."""
    return CHAT_PASS_THROUGH


def databases(settings: TaskConfig, place: DataPaths, into: Path) -> None:
    """Return no databases; raise if some are named."""
    if settings.databases is not None:
        raise ConfigError("task.databases: chat executes nothing; drop it.")


def read_examples(path: Path, columns: Columns | None = None) -> list[Example]:
    """Return the examples of a file; an id is the row's own, or file name and line."""
    return list(iterate_examples(path, columns))


def load_checked_examples(path: Path, columns: Columns | None, warn: Warn) -> list[Example]:
    """Return the examples of a file, and warn about doubtful ones.

    `check` and the bake-off both use it, so they give the same warnings.

    Raises:
        DataError: a row cannot be used, or an id occurs twice.
    """
    examples = list(iterate_examples(path, columns, warn))
    twice = find_repeated_id(example.id for example in examples)
    if twice is not None:
        places = _find_places(path, columns, lambda example: example.id == twice)
        raise DataError(
            f"{path}: the id {twice!r} is there twice ({' and '.join(places[:2])}); ids must "
            "differ."
        )
    exact, alike = count_repeated_inputs(examples)
    if exact:
        warn(f"{path}: {exact} inputs are repeated; a split keeps equal ones together.")
    if alike:
        warn(f"{path}: {alike} more inputs differ only in case, blanks or punctuation.")
    return examples


def read_stored_examples(path: Path) -> Iterator[Example]:
    """Yield the examples of a file that was checked when it was stored.

    It is not checked again: the rules have changed since, and accepted files stay readable.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; it was deleted meanwhile.")
    with path.open(encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                yield _build_example(json.loads(line), f"{path.stem}-{number}")


def iterate_examples(
    path: Path, columns: Columns | None = None, warn: Warn = ignore_warning
) -> Iterator[Example]:
    """Yield the examples of a file; without `columns` they are found by name."""
    for _, example in _read_placed_examples(path, columns, warn):
        yield example


def warn_chosen_columns(path: Path, columns: Columns | None, warn: Warn) -> None:
    """Warn which columns were chosen, where the bake-off file does not name them.

    Silent for one prompt column without a system text.
    """
    if columns is None or not columns.names_columns:
        chosen = find_columns(path, columns.encoding if columns else None)
        if chosen is not None and (chosen.system or len(chosen.prompts) > 1):
            warn(f"{path}: the columns were chosen by their names ({describe_columns(chosen)}).")


def places(
    settings: TaskConfig, place: DataPaths, split: Split, wanted: Callable[[Example], bool], /
) -> list[str]:
    """Return file and line of each wanted example of a split."""
    file = getattr(settings, split) or settings.train or ""
    return _find_places(place.path(file), settings.columns, wanted)


def _find_places(
    path: Path, columns: Columns | None, wanted: Callable[[Example], bool]
) -> list[str]:
    placed = _read_placed_examples(path, columns, ignore_warning)
    return [record.where for record, example in placed if wanted(example)]


def _read_placed_examples(
    path: Path, columns: Columns | None, warn: Warn
) -> Iterator[tuple[Record, Example]]:
    encoding = columns.encoding if columns else None
    named = columns if columns and columns.names_columns else None
    chosen = named or find_columns(path, encoding)
    watch, stem = ColumnUsage(), path.stem
    for record in read_records(path, encoding, warn):
        default_id = f"{stem}-{record.number}"
        if "messages" in record.row and named is None:
            if (fault := training_rows.find_fault(record.row)) is not None:
                raise DataError(f"{record.where}: {fault}.")
            watch.add_row(record.row, TURN_KEYS)
            yield record, _build_example(record.row, default_id)
        else:
            used = chosen or Columns()
            watch.add_row(record.row, (*used.prompts, used.completion, used.system, used.id))
            yield record, make_example(record, used, default_id)
    watch.warn(path, chosen, warn)


def _build_example(row: DataRow, default_id: str) -> Example:
    before, answer = training_rows.split_answer(row["messages"])
    meta = row.get("meta")
    return Example(
        get_row_id(row, "id", default_id),
        {"messages": before},
        answer,
        meta if isinstance(meta, dict) else {},
    )
