"""Files that stay whole when the process is killed.

Whole files are written beside their place and renamed, so a reader never sees half of one. Files
that grow (`*.jsonl`) are appended line by line; a last line torn by a kill is cut off before the
next append and ignored by readers.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

# Threads of one process append to the same file (events); they must not cut each other's lines.
_APPEND_LOCK = threading.Lock()


def write_text(path: Path, text: str) -> None:
    """Write a whole file, or nothing."""
    _write_atomically(path, (text.encode(),))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file as it came, or nothing."""
    _write_atomically(path, (content,))


def _write_atomically(path: Path, pieces: Iterable[bytes]) -> None:
    """Write a file from pieces, or nothing: beside its place first, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with beside.open("wb") as stream:
            stream.writelines(pieces)
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(path)
        _sync_folder(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Sync a folder to disk; without that, a rename may not survive a power cut."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def format_line(row: Mapping[str, Any]) -> str:
    """Return a row as one line of JSON.

    A lone surrogate, which a model's answer may hold, cannot be written as UTF-8; such a row is
    escaped.
    """
    text = json.dumps(row, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(row)
    return text + "\n"


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a whole JSONL file, or nothing."""
    _write_atomically(path, (format_line(row).encode() for row in rows))


def append_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append rows to a JSONL file, cutting off a torn last line first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _APPEND_LOCK, path.open("a+b") as stream:
        _cut_torn_line(stream)
        for row in rows:
            stream.write(format_line(row).encode())
        stream.flush()


def _cut_torn_line(stream: Any) -> None:
    """Cut off a last line without a line end."""
    end = stream.seek(0, os.SEEK_END)
    position = end
    while position > 0:
        stream.seek(position - 1)
        if stream.read(1) == b"\n":
            break
        position -= 1
    if position < end:
        stream.truncate(position)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a JSONL file written here; a missing file has none."""
    if not path.exists():
        return
    # Bytes: a torn last line may end inside a character.
    with path.open("rb") as stream:
        for line in stream:
            if line.endswith(b"\n") and line.strip():
                yield json.loads(line)


def remove_folder(folder: Path) -> None:
    """Remove a folder that may exist; it vanishes at once, never half."""
    gone = folder.with_name(f".gone-{folder.name}")
    shutil.rmtree(gone, ignore_errors=True)  # from a removal that was interrupted
    with contextlib.suppress(FileNotFoundError):
        folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)
