"""Rows of a CSV file, whatever stands between its fields: a comma, a semicolon, a tab, a bar.

`csv.Sniffer` guesses from how often characters occur, and texts full of commas mislead it. Here
the first records are read in each dialect, and the first one by which all of them have as many
fields as the header is the file's.
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
from tuneoff.tasks.text_lines import MARK, Warn, decode_lines, ignore

DELIMITERS = (",", ";", "\t", "|")
# How much is looked at to find the dialect.
SAMPLE_LINES, SAMPLE_CHARACTERS = 1000, 2**20
# A record of a sample that has no end after so many lines has a quote that is never closed.
MOST_UNFINISHED = 100
BACKSLASHED = re.compile(r"\\(.)", re.DOTALL)
# Python's own limit of a field is 128 KiB; this is what a C long holds everywhere.
MOST_CHARACTERS = 2**31 - 1
# Spreadsheets write this line to say what the delimiter is.
SEPARATOR_LINE = re.compile(r"sep=(.)\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Dialect:
    """How fields are told apart."""

    delimiter: str = ","
    quotechar: str | None = '"'
    escapechar: str | None = None
    skipinitialspace: bool = False

    def records(self, lines: Iterable[str]) -> Any:
        """Reads lines; the reader that comes back counts them."""
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
        """Doubles each backslash that escapes nothing: `C:\\temp` is what the file says, though
        another field of it escapes a quote."""
        escaped = (self.quotechar, self.escapechar, self.delimiter)
        return BACKSLASHED.sub(lambda m: m[0] if m[1] in escaped else f"\\{m[0]}", line)


def read_csv(
    path: Path, encoding: str | None = None, warn: Warn = ignore
) -> Iterator[tuple[int, int, dict[str, str]]]:
    """Yields each record's first line, its last line, and its fields by the header's names.

    Raises:
        DataError: the file is no CSV, two columns have one name, or a record has not as many
            fields as the header.
    """
    csv.field_size_limit(MOST_CHARACTERS)
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
            names = _names(record, f"{path}:{begins}")
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


def _names(record: list[str], where: str) -> list[str]:
    """Return the header's names, without outer blanks; a column without one has its number."""
    names = [name.strip(MARK + " \t\r\n") for name in record]
    names = [name or f"column {number}" for number, name in enumerate(names, 1)]
    refuse_repeated(names, where)
    return names


def refuse_repeated(names: Iterable[str], where: str) -> None:
    """Refuses two columns of one name, of which a row could keep only one.

    Raises:
        DataError: says which name.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DataError(f"{where}: two columns are named {name!r}; rename one, or take it out.")
        seen.add(name)


def _find_dialect(path: Path, encoding: str | None) -> tuple[Dialect, int]:
    """Find the file's dialect; return it, and how many lines stand before its header."""
    lines, whole = _sample(path, encoding)
    said = SEPARATOR_LINE.fullmatch(lines[0]) if lines else None
    skipped = 1 if said else 0
    lines = lines[skipped:]
    header = next((line for line in lines if line.strip()), "")
    order = ("\t", *DELIMITERS) if path.suffix.lower() == ".tsv" else DELIMITERS
    delimiters = (said[1],) if said else tuple(dict.fromkeys(order))
    plain = [_dialect(delimiter, header) for delimiter in delimiters]
    for dialect in chain(plain, _others(plain)):
        if _fits(dialect, lines, whole):
            return dialect, skipped
    # None fits: by the likeliest one, the record that does not fit will be named.
    return max(plain, key=lambda dialect: _width(dialect, [header])), skipped


def _sample(path: Path, encoding: str | None) -> tuple[list[str], bool]:
    """Return the file's first lines, and whether that is all of them."""
    lines: list[str] = []
    characters = 0
    stream = decode_lines(path, encoding)
    for _, line in islice(stream, SAMPLE_LINES):
        lines.append(line)
        characters += len(line)
        if characters > SAMPLE_CHARACTERS:
            break
    return lines, next(stream, None) is None


def _dialect(delimiter: str, header: str) -> Dialect:
    """Return the usual dialect of a delimiter. Names in single quotes say that texts are, too, and
    a blank after each delimiter of the header belongs to none of them."""
    quote = "'" if header.lstrip(MARK).startswith("'") else '"'
    after = header.rstrip("\r\n").split(delimiter)[1:]
    blanks = delimiter != "\t" and bool(after) and all(part.startswith(" ") for part in after)
    return Dialect(delimiter, quote, None, blanks)


def _others(plain: Iterable[Dialect]) -> Iterator[Dialect]:
    """Yield rarer dialects: quotes behind a backslash; no quoting at all, as tab-separated texts
    are often written."""
    for each in plain:
        yield Dialect(each.delimiter, each.quotechar, "\\", each.skipinitialspace)
    for each in plain:
        if each.delimiter in "\t|":
            yield Dialect(each.delimiter, None)


def _fits(dialect: Dialect, lines: list[str], whole: bool) -> bool:
    """Say whether all records have as many fields as the header, which are several."""
    reader, width = dialect.records(lines), 0
    while True:
        begins = reader.line_num
        try:
            record = next(reader, None)
        except csv.Error:
            # A sample may end within a record.
            at_end = not whole and reader.line_num == len(lines)
            return at_end and width > 1 and len(lines) - begins < MOST_UNFINISHED
        if record is None:
            return width > 1
        if record and width and len(record) != width:
            return False
        width = width or len(record)
        if dialect.quotechar is None and any(_is_quoted(field) for field in record):
            return False


def _is_quoted(field: str) -> bool:
    return len(field) > 1 and field.startswith('"') and field.endswith('"')


def _width(dialect: Dialect, lines: list[str]) -> int:
    """Count the fields of the first record; none if it cannot be read."""
    try:
        return len(next(dialect.records(lines), []))
    except csv.Error:
        return 0
