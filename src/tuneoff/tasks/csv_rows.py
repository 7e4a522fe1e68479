"""Reads CSV files with any usual delimiter: comma, semicolon, tab or bar.

`csv.Sniffer` counts characters, and texts full of commas mislead it. Here the first records are
parsed in each candidate dialect. The first dialect in which every record has as many fields as the
header is used.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from tuneoff.errors import DataError
from tuneoff.tasks.text_lines import BYTE_ORDER_MARK, Warn, decode_lines, ignore_warning

DELIMITERS = (",", ";", "\t", "|")
# The size of the sample in which the dialect is looked for.
SAMPLE_LINES, SAMPLE_CHARACTERS = 1000, 2**20
# Lines. A longer unfinished record means a quote that is never closed.
MAX_UNFINISHED_LINES = 100
BACKSLASHED = re.compile(r"\\(.)", re.DOTALL)
# Python's own limit of a field is 128 KiB; this is what a C long holds everywhere.
MAX_FIELD_CHARACTERS = 2**31 - 1
# Spreadsheets name the delimiter in this first line.
SEPARATOR_LINE = re.compile(r"sep=(.)\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Dialect:
    """A CSV dialect: delimiter, quote and escape character."""

    delimiter: str = ","
    quotechar: str | None = '"'
    escapechar: str | None = None
    skipinitialspace: bool = False

    def records(self, lines: Iterable[str]) -> Any:
        """Return a `csv.reader` over the lines; it counts them."""
        if self.escapechar is not None:
            lines = map(self._keep_backslashes, lines)
        return csv.reader(
            lines,
            delimiter=self.delimiter,
            quotechar=self.quotechar,
            quoting=csv.QUOTE_NONE if self.quotechar is None else csv.QUOTE_MINIMAL,
            escapechar=self.escapechar,
            skipinitialspace=self.skipinitialspace,
            strict=True,
        )

    def _keep_backslashes(self, line: str) -> str:
        """Double each backslash that escapes nothing.

        So `C:\\temp` is read as written, even if another field escapes a quote.
        """
        escaped = (self.quotechar, self.escapechar, self.delimiter)
        return BACKSLASHED.sub(lambda m: m[0] if m[1] in escaped else f"\\{m[0]}", line)


def read_csv(
    path: Path, encoding: str | None = None, warn: Warn = ignore_warning
) -> Iterator[tuple[int, int, dict[str, str]]]:
    """Yield each record's first line, last line, and fields by header name.

    Raises:
        DataError: the file is not CSV, two columns have one name, or a record has another number of
            fields than the header.
    """
    csv.field_size_limit(MAX_FIELD_CHARACTERS)
    dialect, skipped = _find_dialect(path, encoding)
    lines = (line for number, line in decode_lines(path, encoding, warn) if number > skipped)
    reader = dialect.records(lines)
    names: list[str] = []
    begins = skipped + 1
    while True:
        begins = skipped + reader.line_num + 1
        try:
            record = next(reader, None)
        except csv.Error as error:
            raise DataError(
                f"{path}:{begins}: this is not CSV ({error}); a text with quotes stands in quotes, "
                "and a quote in it is written twice."
            ) from None
        if record is None:
            return
        if not record:
            continue
        if not names:
            names = _read_header(record, f"{path}:{begins}")
            continue
        if len(record) != len(names):
            raise DataError(
                f"{path}:{begins}: this record has not as many fields as the header has names "
                f"({len(record)} and {len(names)}); put quotes around texts that hold "
                f"{dialect.delimiter!r}."
            )
        if [field.strip() for field in record] == names:
            raise DataError(
                f"{path}:{begins}: this line has the names of the columns once more; take it out."
            )
        yield begins, skipped + reader.line_num, dict(zip(names, record, strict=True))


def _read_header(record: list[str], where: str) -> list[str]:
    """Return the header's names, stripped; an empty name becomes `column N`."""
    names = [name.strip(BYTE_ORDER_MARK + " \t\r\n") for name in record]
    names = [name or f"column {number}" for number, name in enumerate(names, 1)]
    refuse_repeated_columns(names, where)
    return names


def refuse_repeated_columns(names: Iterable[str], where: str) -> None:
    """Raise if two columns have the same name, since a row could keep only one.

    Raises:
        DataError: names the column.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DataError(f"{where}: two columns are named {name!r}; rename one, or take it out.")
        seen.add(name)


def _find_dialect(path: Path, encoding: str | None) -> tuple[Dialect, int]:
    """Return the file's dialect, and the number of lines before its header."""
    lines, whole = _read_sample(path, encoding)
    separator = SEPARATOR_LINE.fullmatch(lines[0]) if lines else None
    skipped = 1 if separator else 0
    lines = lines[skipped:]
    header = next((line for line in lines if line.strip()), "")
    order = ("\t", *DELIMITERS) if path.suffix.lower() == ".tsv" else DELIMITERS
    delimiters = (separator[1],) if separator else tuple(dict.fromkeys(order))
    plain = [_build_dialect(delimiter, header) for delimiter in delimiters]
    for dialect in chain(plain, _list_rare_dialects(plain)):
        if _is_consistent(dialect, lines, whole):
            return dialect, skipped
    # No dialect fits. Use the likeliest one, so that the error names the record that does not fit.
    return max(plain, key=lambda dialect: _count_fields(dialect, [header])), skipped


def _read_sample(path: Path, encoding: str | None) -> tuple[list[str], bool]:
    """Return the file's first lines, and whether that is the whole file."""
    lines: list[str] = []
    characters = 0
    stream = decode_lines(path, encoding)
    for _, line in islice(stream, SAMPLE_LINES):
        lines.append(line)
        characters += len(line)
        if characters > SAMPLE_CHARACTERS:
            break
    return lines, next(stream, None) is None


def _build_dialect(delimiter: str, header: str) -> Dialect:
    """Return the usual dialect of a delimiter.

    Single quotes around header names mean that texts are quoted so, too. A blank after each
    delimiter of the header is not part of the fields.
    """
    quote = "'" if header.lstrip(BYTE_ORDER_MARK).startswith("'") else '"'
    after = header.rstrip("\r\n").split(delimiter)[1:]
    blanks = delimiter != "\t" and bool(after) and all(part.startswith(" ") for part in after)
    return Dialect(delimiter, quote, None, blanks)


def _list_rare_dialects(plain: Iterable[Dialect]) -> Iterator[Dialect]:
    """Yield rarer dialects: escaped quotes, and no quoting.

    Tab-separated texts are often written without quoting.
    """
    for dialect in plain:
        yield Dialect(dialect.delimiter, dialect.quotechar, "\\", dialect.skipinitialspace)
    for dialect in plain:
        if dialect.delimiter in "\t|":
            yield Dialect(dialect.delimiter, None)


def _is_consistent(dialect: Dialect, lines: list[str], whole: bool) -> bool:
    """Return whether all records have as many fields as the header, and more than one."""
    reader, width = dialect.records(lines), 0
    while True:
        begins = reader.line_num
        try:
            record = next(reader, None)
        except csv.Error:
            # A sample may end within a record.
            at_end = not whole and reader.line_num == len(lines)
            return at_end and width > 1 and len(lines) - begins < MAX_UNFINISHED_LINES
        if record is None:
            return width > 1
        if record and width and len(record) != width:
            return False
        width = width or len(record)
        if dialect.quotechar is None and any(_is_quoted(field) for field in record):
            return False


def _is_quoted(field: str) -> bool:
    return len(field) > 1 and field.startswith('"') and field.endswith('"')


def _count_fields(dialect: Dialect, lines: list[str]) -> int:
    """Return the number of fields of the first record; 0 if it cannot be read."""
    try:
        return len(next(dialect.records(lines), []))
    except csv.Error:
        return 0
