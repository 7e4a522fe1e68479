"""Readers of a user's files: JSONL, JSON, CSV and Parquet. Every error names file and line.

`load_from_hub` is the only access to data sets of the Hugging Face hub, through `datasets`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneoff.errors import DataError
from tuneoff.tasks.csv_rows import read_csv, refuse_repeated_columns
from tuneoff.tasks.text_lines import BYTE_ORDER_MARK, Warn, decode_lines, ignore_warning
from tuneoff.tasks.training_rows import LONE_SURROGATE, find_lone_surrogate

DataRow = dict[str, Any]
SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
# Formats that are not read, and the advice that the error gives.
UNSUPPORTED_SUFFIXES = {
    **dict.fromkeys((".gz", ".bz2", ".xz", ".zst", ".zip"), "unpack it first"),
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "save it as CSV first"),
    **dict.fromkeys((".arrow", ".feather", ".orc"), "save it as Parquet first"),
}
# Levels. No training data is nested this deeply; Python's own limit is some thousand.
MAX_NESTING = 100
# In JSON text a quote is escaped by a backslash, so this matches keys only.
JSON_KEY = re.compile(r'"\s*:')
TOO_DEEP = f"the JSON is nested more than {MAX_NESTING} levels deep; take out what is so deep."


@dataclass(frozen=True, slots=True)
class Record:
    """A row with its position in the file."""

    row: DataRow
    """The row's fields."""
    number: int
    """For ids: the line where the row ends; in JSON and Parquet the row's number, from 1."""
    where: str
    """For messages: the file and the line where the row begins."""


def read_records(
    path: Path, encoding: str | None = None, warn: Warn = ignore_warning
) -> Iterator[Record]:
    """Yield the rows of a file, then warn about doubtful ones.

    Args:
        encoding: the encoding of a text file without a byte order mark. None: UTF-8, and cp1252 for
            lines that are not UTF-8.

    Raises:
        DataError: the file is missing, empty, or of an unknown format, or a row is broken.
    """
    readers = {
        ".jsonl": _read_jsonl,
        ".json": _read_json,
        ".csv": _read_csv,
        ".tsv": _read_csv,
        ".parquet": _read_parquet,
    }
    reader: Callable[..., Iterator[Record]] | None = readers.get(path.suffix.lower())
    if path.is_dir():
        raise DataError(f"{path}: this is a folder; give a file ({', '.join(SUFFIXES)}).")
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; check the path.")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty; it needs at least one example.")
    if reader is None:
        raise DataError(
            f"{path}: cannot read {path.suffix or 'a file without suffix'!r} (allowed: "
            f"{', '.join(SUFFIXES)}); "
            f"{UNSUPPORTED_SUFFIXES.get(path.suffix.lower(), 'convert it first')}."
        )
    empty = True
    try:
        for record in reader(path, encoding, warn):
            empty = False
            if (place := find_lone_surrogate(record.row)) is not None:
                raise DataError(f"{record.where}: {LONE_SURROGATE} ({place}).")
            yield record
    except OSError as error:
        raise DataError(f"{path}: the file cannot be read ({error.strerror or error}).") from None
    if empty:
        raise DataError(f"{path}: there is no row in it; it needs at least one example.")


def _read_jsonl(path: Path, encoding: str | None, warn: Warn) -> Iterator[Record]:
    for number, line in decode_lines(path, encoding, warn):
        # Concatenated files may have a byte order mark in the middle.
        text = line.removeprefix(BYTE_ORDER_MARK)
        if text.strip():
            where = f"{path}:{number}"
            try:
                value = _parse_located(text, where)
            except json.JSONDecodeError as error:
                raise DataError(
                    f"{where}: this line is not JSON ({error.msg} at column {error.colno}); "
                    "each line must be one JSON object."
                ) from None
            yield Record(_check_object(value, where), number, where)


def _read_json(path: Path, encoding: str | None, warn: Warn) -> Iterator[Record]:
    text = "".join(line for _, line in decode_lines(path, encoding, warn))
    try:
        value = _parse_located(text, str(path))
    except json.JSONDecodeError as error:
        what_to_do = "it must be a list of rows"
        if error.msg == "Extra data":
            what_to_do += "; a file with one object a line is called .jsonl"
        raise DataError(
            f"{path}:{error.lineno}: this is not JSON ({error.msg} at column {error.colno}); "
            f"{what_to_do}."
        ) from None
    if not isinstance(value, list):
        raise DataError(f"{path}: expected a list of rows, got {type(value).__name__}.")
    for number, row in enumerate(value, 1):
        where = f"{path}, row {number}"
        yield Record(_check_object(row, where), number, where)


def parse_json(text: str) -> Any:
    """Return the value of JSON text.

    Raises:
        json.JSONDecodeError: the text is not JSON.
        DataError: the value cannot be kept as it is (too deep, a repeated key, NaN). The message
            does not name the place.
    """
    try:
        value = _DECODER.decode(text)
        if text.count("[") + text.count("{") > MAX_NESTING:
            _refuse_nested(value)
        # The hook is slow, so it runs only for texts that may hold a key twice; a text value can
        # look like a key.
        if len(JSON_KEY.findall(text)) != _count_keys(value):
            json.loads(text, object_pairs_hook=_build_unique_object)
    except (json.JSONDecodeError, DataError):
        raise
    except RecursionError:
        raise DataError(TOO_DEEP) from None
    except ValueError:  # Python reads no whole number of more than 4,300 digits
        raise DataError("a number has too many digits; write it as text.") from None
    return value


def _parse_located(text: str, where: str) -> Any:
    try:
        return parse_json(text)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def _count_keys(value: Any) -> int:
    count, left = 0, [value]
    for node in left:
        if isinstance(node, dict):
            count += len(node)
            left += node.values()
        elif isinstance(node, list):
            left += node
    return count


def _build_unique_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object; raise if it has a key twice.

    Python's json would let the last one win.
    """
    parsed = dict(pairs)
    if len(parsed) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise DataError(f"the key {twice!r} is there twice in one object; rename or drop one.")
    return parsed


def _refuse_constant(name: str) -> None:
    raise DataError(f"{name} is not JSON; write null where there is no value.")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def _refuse_nested(value: Any) -> None:
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_NESTING:
            raise DataError(TOO_DEEP)
        lists = [container for container in level if isinstance(container, list)]
        objects = [container for container in level if isinstance(container, dict)]
        level = [inner for container in lists for inner in container]
        level += [inner for container in objects for inner in container.values()]


def _check_object(value: Any, where: str) -> DataRow:
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected a JSON object, got {type(value).__name__}.")
    return value


def _read_csv(path: Path, encoding: str | None, warn: Warn) -> Iterator[Record]:
    for begins, ends, row in read_csv(path, encoding, warn):
        yield Record(row, ends, f"{path}:{begins}")


def _read_parquet(path: Path, encoding: str | None, warn: Warn) -> Iterator[Record]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path, page_checksum_verification=True) as file:
            refuse_repeated_columns(file.schema_arrow.names, str(path))
            number = 0
            for batch in file.iter_batches(batch_size=1024):
                for row in _convert_batch(batch, path, number):
                    number += 1
                    yield Record(row, number, f"{path}, row {number}")
    except (pyarrow.ArrowException, OSError) as error:
        first = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise DataError(
            f"{path}: this is not Parquet, or damaged ({first}); write it anew."
        ) from None


def _convert_batch(batch: Any, path: Path, before: int) -> list[DataRow]:
    """Return the rows of a record batch.

    Args:
        before: the number of rows in the file before this batch.
    """
    try:
        rows: list[DataRow] = batch.to_pylist()
    except UnicodeDecodeError:
        for place in range(batch.num_rows):
            try:
                batch.slice(place, 1).to_pylist()
            except UnicodeDecodeError:
                raise DataError(
                    f"{path}, row {before + place + 1}: a text of this row is not UTF-8, as "
                    "Parquet's are; write the file anew."
                ) from None
        raise
    return rows


def is_missing(value: Any) -> bool:
    """Return whether a value is null, or the NaN that stands for null in tables."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def get_required_text(row: DataRow, key: str, where: str) -> str:
    """Return a text field of a row.

    Raises:
        DataError: the field is missing, empty or not text. The message lists the fields there are.
    """
    if key not in row:
        raise DataError(
            f"{where}: the row has no {key!r} (it has: {', '.join(map(str, row)) or 'nothing'})."
        )
    value = row[key]
    if is_missing(value):
        raise DataError(f"{where}: {key!r} is null; fill it in, or take the row out.")
    if not isinstance(value, str):
        raise DataError(f"{where}: {key!r} must be text, got {type(value).__name__}.")
    if not value.strip():
        raise DataError(f"{where}: {key!r} is empty; fill it in, or take the row out.")
    return value


def get_optional_text(row: DataRow, key: str, where: str) -> str | None:
    """Return a text field of a row; None if it is missing, null or blank.

    Raises:
        DataError: the field is not text.
    """
    value = row.get(key)
    if is_missing(value) or (isinstance(value, str) and not value.strip()):
        return None
    return get_required_text(row, key, where)


def get_row_id(row: DataRow, key: str, default: str) -> str:
    """Return a row's own id, or the default."""
    value = row.get(key)
    return default if is_missing(value) or value == "" else str(value)


def load_from_hub(name: str, split: str, revision: str | None = None) -> Iterator[DataRow]:
    """Yield the rows of a data set of the Hugging Face hub.

    Raises:
        DataError: the hub cannot be reached, or has no such data set.
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
