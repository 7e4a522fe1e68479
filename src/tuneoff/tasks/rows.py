"""Rows of a user's files: JSONL, JSON, CSV, Parquet; every problem has its place.

Also the one way to a data set of the hub, through `datasets`.
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
from tuneoff.tasks.csv_rows import read_csv, refuse_repeated
from tuneoff.tasks.text_lines import MARK, Warn, decode_lines, ignore
from tuneoff.tasks.training_rows import HALF_PAIR, find_half_pair

Row = dict[str, Any]
SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
# Files that hold data, too, and what to do about them.
NOT_READ = {
    **dict.fromkeys((".gz", ".bz2", ".xz", ".zst", ".zip"), "unpack it first"),
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "save it as CSV first"),
    **dict.fromkeys((".arrow", ".feather", ".orc"), "save it as Parquet first"),
}
# Nothing people learn from is nested so deeply; Python gives up at some thousand.
MOST_NESTED = 100
# A quote within a text stands behind a backslash: whatever is a key of JSON text is found by this.
KEY = re.compile(r'"\s*:')
TOO_DEEP = f"the JSON is nested more than {MOST_NESTED} levels deep; take out what is so deep."


@dataclass(frozen=True, slots=True)
class Record:
    """A row and its place: `where` for messages, with the line at which it begins; `number` for
    an id, the line at which it ends, or in JSON and Parquet the row's, from 1."""

    row: Row
    number: int
    where: str


def read(path: Path, encoding: str | None = None, warn: Warn = ignore) -> Iterator[Record]:
    """Yields the rows of a file, and at its end tells `warn` what is doubtful about them.

    Args:
        encoding: what a text file is in that has no byte order mark (left out: UTF-8, and cp1252
            in lines that are no UTF-8).

    Raises:
        DataError: the file is missing, empty, of an unknown kind, or a row is broken.
    """
    readers = {
        ".jsonl": _jsonl, ".json": _json, ".csv": _csv, ".tsv": _csv, ".parquet": _parquet,
    }  # fmt: skip
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
            f"{', '.join(SUFFIXES)}); {NOT_READ.get(path.suffix.lower(), 'convert it first')}."
        )
    empty = True
    try:
        for record in reader(path, encoding, warn):
            empty = False
            if (place := find_half_pair(record.row)) is not None:
                raise DataError(f"{record.where}: {HALF_PAIR} ({place}).")
            yield record
    except OSError as error:
        raise DataError(f"{path}: the file cannot be read ({error.strerror or error}).") from None
    if empty:
        raise DataError(f"{path}: there is no row in it; it needs at least one example.")


def _jsonl(path: Path, encoding: str | None, warn: Warn) -> Iterator[Record]:
    for number, line in decode_lines(path, encoding, warn):
        # Files that were put together have the mark of each.
        text = line.removeprefix(MARK)
        if text.strip():
            where = f"{path}:{number}"
            try:
                value = _parsed(text, where)
            except json.JSONDecodeError as error:
                raise DataError(
                    f"{where}: this line is not JSON ({error.msg} at column {error.colno}); "
                    "each line must be one JSON object."
                ) from None
            yield Record(_object(value, where), number, where)


def _json(path: Path, encoding: str | None, warn: Warn) -> Iterator[Record]:
    text = "".join(line for _, line in decode_lines(path, encoding, warn))
    try:
        value = _parsed(text, str(path))
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
        yield Record(_object(row, where), number, where)


def parse_json(text: str) -> Any:
    """Return the value of JSON text.

    Raises:
        json.JSONDecodeError: it is no JSON.
        DataError: it is, but no row that can be kept as it stands. Where it stands is not said.
    """
    try:
        value = _DECODER.decode(text)
        if text.count("[") + text.count("{") > MOST_NESTED:
            _refuse_nested(value)
        # A text may spell a key, and a hook is slow: it is for the few that may hold one twice.
        if len(KEY.findall(text)) != _count_keys(value):
            json.loads(text, object_pairs_hook=_once)
    except (json.JSONDecodeError, DataError):
        raise
    except RecursionError:
        raise DataError(TOO_DEEP) from None
    except ValueError:  # Python reads no whole number of more than 4,300 digits
        raise DataError("a number has too many digits; write it as text.") from None
    return value


def _parsed(text: str, where: str) -> Any:
    try:
        return parse_json(text)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def _count_keys(value: Any) -> int:
    count, left = 0, [value]
    for each in left:
        if isinstance(each, dict):
            count += len(each)
            left += each.values()
        elif isinstance(each, list):
            left += each
    return count


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object each of whose keys is there once: json itself lets the last one win."""
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise DataError(f"the key {twice!r} is there twice in one object; rename or drop one.")
    return found


def _refuse_constant(name: str) -> None:
    raise DataError(f"{name} is not JSON; write null where there is no value.")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def _refuse_nested(value: Any) -> None:
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MOST_NESTED:
            raise DataError(TOO_DEEP)
        lists = [each for each in level if isinstance(each, list)]
        objects = [each for each in level if isinstance(each, dict)]
        level = [inner for each in lists for inner in each]
        level += [inner for each in objects for inner in each.values()]


def _object(value: Any, where: str) -> Row:
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected a JSON object, got {type(value).__name__}.")
    return value


def _csv(path: Path, encoding: str | None, warn: Warn) -> Iterator[Record]:
    for begins, ends, row in read_csv(path, encoding, warn):
        yield Record(row, ends, f"{path}:{begins}")


def _parquet(path: Path, encoding: str | None, warn: Warn) -> Iterator[Record]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path, page_checksum_verification=True) as file:
            refuse_repeated(file.schema_arrow.names, str(path))
            number = 0
            for batch in file.iter_batches(batch_size=1024):
                for row in _rows_of(batch, path, number):
                    number += 1
                    yield Record(row, number, f"{path}, row {number}")
    except (pyarrow.ArrowException, OSError) as error:
        first = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise DataError(
            f"{path}: this is not Parquet, or damaged ({first}); write it anew."
        ) from None


def _rows_of(batch: Any, path: Path, before: int) -> list[Row]:
    """Yield a batch's rows; `before` is how many the file has before them."""
    try:
        rows: list[Row] = batch.to_pylist()
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
    """Say whether a value is none at all: null, or the NaN that stands for it in tables."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def required(row: Row, key: str, where: str) -> str:
    """A row's text field.

    Raises:
        DataError: the field is missing, empty or no text; says which fields there are.
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


def optional(row: Row, key: str, where: str) -> str | None:
    """Return a row's text field; None where it is missing, null or blank.

    Raises:
        DataError: the field is no text.
    """
    value = row.get(key)
    if is_missing(value) or (isinstance(value, str) and not value.strip()):
        return None
    return required(row, key, where)


def row_id(row: Row, key: str, default: str) -> str:
    """Return a row's own id, or another one where it has none."""
    value = row.get(key)
    return default if is_missing(value) or value == "" else str(value)


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
