"""Lines of a text file, decoded one by one, so that trouble with its encoding has its line.

A byte order mark decides, then the encoding that the user names. Without both a line is read as
UTF-8, or as cp1252 where it is no UTF-8; a warning then shows one line as it was read.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from pathlib import Path

from tuneoff.errors import DataError

Warn = Callable[[str], None]
FALLBACK = "cp1252"
# The longest marks first: that of UTF-32 begins with that of UTF-16.
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
MARK = "\ufeff"
# What files begin with that hold no text, whatever their name says.
NO_TEXT = (
    (b"\x1f\x8b", "gzip"),
    (b"PK\x03\x04", "zip (or a spreadsheet)"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"PAR1", "Parquet"),
)
SHOWN = 80


def ignore(line: str) -> None:
    """Does nothing with a warning."""


def decode_lines(
    path: Path, encoding: str | None = None, warn: Warn = ignore
) -> Iterator[tuple[int, str]]:
    """Yields each line with its number, from 1, and its end; tells `warn` at the last one what
    was read as cp1252.

    Raises:
        DataError: the file is no text, or a line is not of its encoding.
    """
    with path.open("rb") as stream:
        start = stream.read(8)
    for magic, form in NO_TEXT:
        if start.startswith(magic):
            raise DataError(
                f"{path}: this is {form}, not text; unpack it, or give it the suffix of what it is."
            )
    marked = next((name for mark, name in MARKS if start.startswith(mark)), None)
    named = marked or (codecs.lookup(encoding).name.removesuffix("-sig") if encoding else None)
    if named is None or marked == "utf-8":
        lines = _utf8_lines(path, warn)
    elif "\n".encode(named) == b"\n":
        lines = _named_lines(path, named)
    else:
        lines = _wide_lines(path, named)
    for number, line in lines:
        if "\0" in line:
            raise DataError(
                f"{path}:{number}: there is a NUL in this line; a file in UTF-16 without a mark "
                "is read with task.columns.encoding: utf-16-le."
            )
        yield number, line.removeprefix(MARK) if number == 1 else line


def _byte_lines(path: Path) -> Iterator[tuple[int, str, bytes]]:
    """Yields lines as bytes, and as what they are where they are ASCII."""
    # Latin-1 has a character for each byte; line ends are those of text.
    with path.open(encoding="latin-1", newline="") as stream:
        for number, line in enumerate(stream, 1):
            yield number, line, b"" if line.isascii() else line.encode("latin-1")


def _utf8_lines(path: Path, warn: Warn) -> Iterator[tuple[int, str]]:
    count, shown = 0, ""
    for number, text, raw in _byte_lines(path):
        line = text
        if raw:
            try:
                line = raw.decode("utf-8")
            except UnicodeDecodeError:
                line = _fallback(raw, f"{path}:{number}")
                count += 1
                shown = shown or f"line {number}: {_around(line)}"
        yield number, line
    if count:
        lines, they = ("1 line is", "it was") if count == 1 else (f"{count} lines are", "they were")
        warn(
            f"{path}: {lines} not UTF-8, so {they} read as {FALLBACK}, {shown}; if that is wrong, "
            "name the encoding as task.columns.encoding, or save the file as UTF-8."
        )


def _fallback(raw: bytes, where: str) -> str:
    try:
        return raw.decode(FALLBACK)
    except UnicodeDecodeError:
        raise DataError(
            f"{where}: this line is neither UTF-8 nor {FALLBACK}; name the encoding as "
            "task.columns.encoding, or save the file as UTF-8."
        ) from None


def _named_lines(path: Path, encoding: str) -> Iterator[tuple[int, str]]:
    for number, text, raw in _byte_lines(path):
        try:
            # In ISO-2022 and UTF-7 ASCII bytes are more than themselves.
            line = (raw or text.encode("latin-1")).decode(encoding)
        except UnicodeError:
            raise _wrong_line(path, number, encoding) from None
        yield number, line


def _wide_lines(path: Path, encoding: str) -> Iterator[tuple[int, str]]:
    """Yield lines of an encoding whose line ends are not a single byte."""
    # Half pairs pass, to be found in their own line: a stream decodes ahead of what it hands out.
    errors = "surrogatepass" if encoding.startswith("utf-") else "strict"
    number = 0
    with path.open(encoding=encoding, newline="", errors=errors) as stream:
        try:
            for number, line in enumerate(stream, 1):
                if any("\ud800" <= character <= "\udfff" for character in line):
                    raise _wrong_line(path, number, encoding)
                yield number, line
        except UnicodeError:
            raise _wrong_line(path, number + 1, encoding) from None


def _wrong_line(path: Path, number: int, encoding: str) -> DataError:
    return DataError(
        f"{path}:{number}: this line is not {encoding}; name the file's own encoding as "
        "task.columns.encoding, or save it as UTF-8."
    )


def _around(line: str) -> str:
    """Return the part of a line around its first character that is not ASCII, quoted."""
    line = line.rstrip("\r\n")
    place = next(i for i, character in enumerate(line) if not character.isascii())
    first = max(0, min(place - SHOWN // 2, len(line) - SHOWN))
    before, after = "…" if first else "", "…" if first + SHOWN < len(line) else ""
    return before + repr(line[first : first + SHOWN]) + after
