"""Decodes a text file line by line, so that an encoding error has a line number.

A byte order mark decides the encoding, then the name that the user gives. Without both, a line is
read as UTF-8, or as cp1252 if it is not UTF-8; a warning then shows one such line.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from pathlib import Path

from tuneoff.errors import DataError

Warn = Callable[[str], None]
FALLBACK_ENCODING = "cp1252"
# The longest marks first: UTF-32's mark begins with UTF-16's.
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
BYTE_ORDER_MARK = "\ufeff"
# First bytes of files that hold no text, whatever their suffix says.
BINARY_FORMATS = (
    (b"\x1f\x8b", "gzip"),
    (b"PK\x03\x04", "zip (or a spreadsheet)"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"PAR1", "Parquet"),
)
MAX_SHOWN = 80


def ignore_warning(line: str) -> None:
    """Ignore a warning."""


def decode_lines(
    path: Path, encoding: str | None = None, warn: Warn = ignore_warning
) -> Iterator[tuple[int, str]]:
    """Yield each line's number, from 1, and its text with its line end.

    After the last line, warns about lines that were read as cp1252.

    Raises:
        DataError: the file is not text, or a line is not in its encoding.
    """
    with path.open("rb") as stream:
        start = stream.read(8)
    for magic, form in BINARY_FORMATS:
        if start.startswith(magic):
            raise DataError(
                f"{path}: this is {form}, not text; unpack it, or give it the suffix of what it is."
            )
    marked = next((name for mark, name in BYTE_ORDER_MARKS if start.startswith(mark)), None)
    named = marked or (codecs.lookup(encoding).name.removesuffix("-sig") if encoding else None)
    if named is None or marked == "utf-8":
        lines = _decode_utf8(path, warn)
    elif "\n".encode(named) == b"\n":
        lines = _decode_named(path, named)
    else:
        lines = _decode_wide(path, named)
    for number, line in lines:
        if "\0" in line:
            raise DataError(
                f"{path}:{number}: there is a NUL in this line; a file in UTF-16 without a mark "
                "is read with task.columns.encoding: utf-16-le."
            )
        yield number, line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line


def _read_byte_lines(path: Path) -> Iterator[tuple[int, str, bytes]]:
    """Yield each line's number, its Latin-1 text, and its bytes; no bytes if it is ASCII."""
    # Latin-1 maps each byte to one character and keeps line ends.
    with path.open(encoding="latin-1", newline="") as stream:
        for number, line in enumerate(stream, 1):
            yield number, line, b"" if line.isascii() else line.encode("latin-1")


def _decode_utf8(path: Path, warn: Warn) -> Iterator[tuple[int, str]]:
    count, shown = 0, ""
    for number, text, raw in _read_byte_lines(path):
        line = text
        if raw:
            try:
                line = raw.decode("utf-8")
            except UnicodeDecodeError:
                line = _decode_fallback(raw, f"{path}:{number}")
                count += 1
                shown = shown or f"line {number}: {_quote_around(line)}"
        yield number, line
    if count:
        lines, they = ("1 line is", "it was") if count == 1 else (f"{count} lines are", "they were")
        warn(
            f"{path}: {lines} not UTF-8, so {they} read as {FALLBACK_ENCODING}, {shown}; if that "
            "is wrong, "
            "name the encoding as task.columns.encoding, or save the file as UTF-8."
        )


def _decode_fallback(raw: bytes, where: str) -> str:
    try:
        return raw.decode(FALLBACK_ENCODING)
    except UnicodeDecodeError:
        raise DataError(
            f"{where}: this line is neither UTF-8 nor {FALLBACK_ENCODING}; name the encoding as "
            "task.columns.encoding, or save the file as UTF-8."
        ) from None


def _decode_named(path: Path, encoding: str) -> Iterator[tuple[int, str]]:
    for number, text, raw in _read_byte_lines(path):
        try:
            # In ISO-2022 and UTF-7, ASCII bytes can stand for other characters.
            line = (raw or text.encode("latin-1")).decode(encoding)
        except UnicodeError:
            raise _build_line_error(path, number, encoding) from None
        yield number, line


def _decode_wide(path: Path, encoding: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of an encoding whose line ends have several bytes."""
    # Lone surrogates pass here and are refused on their own line: a stream decodes ahead.
    errors = "surrogatepass" if encoding.startswith("utf-") else "strict"
    number = 0
    with path.open(encoding=encoding, newline="", errors=errors) as stream:
        try:
            for number, line in enumerate(stream, 1):
                if any("\ud800" <= character <= "\udfff" for character in line):
                    raise _build_line_error(path, number, encoding)
                yield number, line
        except UnicodeError:
            raise _build_line_error(path, number + 1, encoding) from None


def _build_line_error(path: Path, number: int, encoding: str) -> DataError:
    return DataError(
        f"{path}:{number}: this line is not {encoding}; name the file's own encoding as "
        "task.columns.encoding, or save it as UTF-8."
    )


def _quote_around(line: str) -> str:
    """Return the part of a line around its first non-ASCII character, quoted."""
    line = line.rstrip("\r\n")
    place = next(i for i, character in enumerate(line) if not character.isascii())
    first = max(0, min(place - MAX_SHOWN // 2, len(line) - MAX_SHOWN))
    before, after = "…" if first else "", "…" if first + MAX_SHOWN < len(line) else ""
    return before + repr(line[first : first + MAX_SHOWN]) + after
