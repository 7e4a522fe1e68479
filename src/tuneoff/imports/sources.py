"""Finds the files to import, and reads their rows one by one."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any, cast

from tuneoff.errors import DataError
from tuneoff.tasks.readers import parse_json
from tuneoff.tasks.text_lines import BYTE_ORDER_MARK

SUFFIXES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz", ".json")
# The number of rows that a form is recognised by.
MAX_FIRST_ROWS = 100
NOT_UTF8, NOT_JSON, NO_OBJECT = "not UTF-8", "not JSON", "not a JSON object"


def find_files(sources: Sequence[Path]) -> list[Path]:
    """Return the files to read: those given, and those in each folder given.

    Raises:
        DataError: a source does not exist, is no JSONL or JSON, or is given twice.
    """
    files: list[Path] = []
    for source in sources:
        if source.is_dir():
            inside = sorted(file for file in source.iterdir() if _is_readable(file))
            if not inside:
                raise DataError(
                    f"{source}: no JSONL or JSON file in this folder ({_join_suffixes()})."
                )
            files += inside
        elif not source.is_file():
            raise DataError(f"{source}: there is no such file; check the path.")
        elif not _is_readable(source):
            raise DataError(
                f"{source}: not a JSONL or JSON file by its name (allowed: {_join_suffixes()})."
            )
        else:
            files.append(source)
    resolved = [file.resolve() for file in files]
    twice = next((file for file in resolved if resolved.count(file) > 1), None)
    if twice is not None:
        raise DataError(f"{twice}: the file is given twice; give it once.")
    return files


def read_rows(file: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Yield each line's number, from 1, and its row, or why it cannot be read.

    A JSON file is one row, or a list or an API's page of rows, which are numbered.

    Raises:
        DataError: the file cannot be read, or is not gzip or JSON though its name says so.
    """
    if file.suffix.lower() == ".json":
        yield from _read_json(file)
        return
    opened: Any = gzip.open if file.suffix == ".gz" else open
    try:
        with cast("IO[bytes]", opened(file, "rb")) as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield number, _read_row(line)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{file}: this is not gzip, or damaged ({error}); pack it anew.") from None
    except OSError as error:
        raise DataError(f"{file}: the file cannot be read ({error.strerror or error}).") from None


def read_first_rows(files: Sequence[Path]) -> list[dict[str, Any]]:
    """Return the first readable rows.

    Raises:
        DataError: there is none.
    """
    readable = (row for file in files for _, row in read_rows(file) if isinstance(row, dict))
    rows = list(islice(readable, MAX_FIRST_ROWS))
    if not rows:
        raise DataError(
            f"{', '.join(map(str, files)):.200}: there is no row that can be read; each line must "
            "be one JSON object."
        )
    return rows


def _read_json(file: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Yield the rows of a JSON file, numbered from 1."""
    try:
        value = parse_json(file.read_text(encoding="utf-8").removeprefix(BYTE_ORDER_MARK))
    except OSError as error:
        raise DataError(f"{file}: the file cannot be read ({error.strerror or error}).") from None
    except (ValueError, DataError) as error:
        raise DataError(
            f"{file}: this is not JSON ({error}); a file with one object a line is called .jsonl."
        ) from None
    if isinstance(value, dict) and value.get("object") == "list":  # a page of an API's list
        value = value.get("data")
    for number, row in enumerate(value if isinstance(value, list) else [value], 1):
        yield number, row if isinstance(row, dict) else NO_OBJECT


def _read_row(line: bytes) -> dict[str, Any] | str:
    """Return the row of a line, or why it cannot be read."""
    try:
        row = parse_json(line.decode("utf-8").removeprefix(BYTE_ORDER_MARK))
    except UnicodeDecodeError:
        return NOT_UTF8
    except (json.JSONDecodeError, DataError):
        return NOT_JSON
    return row if isinstance(row, dict) else NO_OBJECT


def _is_readable(file: Path) -> bool:
    """Return whether a path is a file with one of the suffixes."""
    return file.is_file() and file.name.lower().endswith(SUFFIXES)


def _join_suffixes() -> str:
    """Return the suffixes as text."""
    return ", ".join(SUFFIXES)
