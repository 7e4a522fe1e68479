"""Reading rows from a user's files: JSONL, JSON, CSV, Parquet; every problem has a line.

Also the one way to a data set of the hub, through `datasets`.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tuneoff.errors import DataError

Row = dict[str, Any]
SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")


def read(path: Path) -> Iterator[tuple[int, Row]]:
    """(line number, row) of a file; for Parquet the number is the row's, from 1.

    Raises:
        DataError: the file is missing, empty, of an unknown kind, or a line is broken.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; check the path.")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty; it needs at least one example.")
    readers = {".jsonl": _jsonl, ".json": _json, ".csv": _csv, ".parquet": _parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"{path}: cannot read {path.suffix or 'a file without suffix'!r} "
            f"(allowed: {', '.join(SUFFIXES)}); convert it first."
        )
    empty = True
    for numbered in reader(path):
        empty = False
        yield numbered
    if empty:
        raise DataError(f"{path}: there is no row in it; it needs at least one example.")


def _jsonl(path: Path) -> Iterator[tuple[int, Row]]:
    # utf-8-sig: files written on Windows begin with a byte order mark.
    with path.open(encoding="utf-8-sig", errors="strict") as stream:
        number = 0
        try:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield number, _object(json.loads(line), f"{path}:{number}")
        except json.JSONDecodeError as error:
            raise DataError(
                f"{path}:{number}: this line is not JSON ({error.msg} at column {error.colno}); "
                "each line must be one JSON object."
            ) from None
        except UnicodeDecodeError:
            raise DataError(
                f"{path}:{number + 1}: this line is not UTF-8; save the file as UTF-8."
            ) from None


def _json(path: Path) -> Iterator[tuple[int, Row]]:
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: this is not JSON ({error}); it must be a list of rows.") from None
    if not isinstance(value, list):
        raise DataError(f"{path}: expected a list of rows, got {type(value).__name__}.")
    for number, row in enumerate(value, 1):
        yield number, _object(row, f"{path}, row {number}")


def _object(value: Any, where: str) -> Row:
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected a JSON object, got {type(value).__name__}.")
    return value


def _csv(path: Path) -> Iterator[tuple[int, Row]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream, strict=True)
        try:
            for row in reader:
                if None in row or None in row.values():
                    raise DataError(
                        f"{path}:{reader.line_num}: this line has not as many fields as the first "
                        "line has names; put quotes around texts with commas."
                    )
                yield reader.line_num, dict(row)
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{path}:{reader.line_num + 1}: this is not CSV ({error}).") from None


def _parquet(path: Path) -> Iterator[tuple[int, Row]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"{path}: this is not Parquet ({error}).") from None


def required(row: Row, key: str, where: str) -> str:
    """A row's text field.

    Raises:
        DataError: the field is missing, empty or no text; says which fields there are.
    """
    value = row.get(key)
    if value is None:
        raise DataError(
            f"{where}: the row has no {key!r} (it has: {', '.join(map(str, row)) or 'nothing'})."
        )
    if not isinstance(value, str):
        raise DataError(f"{where}: {key!r} must be text, got {type(value).__name__}.")
    if not value.strip():
        raise DataError(f"{where}: {key!r} is empty; fill it in, or take the row out.")
    return value


def from_hub(name: str, split: str, revision: str | None = None) -> Iterator[Row]:
    """Rows of a data set of the Hugging Face hub, through `datasets`.

    Raises:
        DataError: the hub cannot be reached or has no such data set.
    """
    import datasets

    try:
        yield from datasets.load_dataset(name, split=split, revision=revision)
    except (OSError, ValueError, RuntimeError) as error:
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(
            f"data set {name}: could not be loaded from the hub ({first}); with a local copy, set "
            "data_dir in the file or TUNEOFF_DATA."
        ) from None
