"""SQLite databases in a folder, `DIR/<db_id>/*.sqlite`: found by id, hashed, read as committed.

The file alone may not be the database. A write-ahead log (`-wal`) beside it holds what was
committed since the last checkpoint. A hot journal (`-journal`) holds what must be rolled back of an
unfinished transaction. SQLite applies both when it opens the file, and writes beside it to do so.
Nothing is written beside a user's database here: both are applied in a copy.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Iterable
from contextlib import closing
from functools import cache
from pathlib import Path

from tuneoff.errors import DataError

_WAL, _JOURNAL = "-wal", "-journal"
# A journal is hot if it begins with these bytes; after the transaction it is empty or begins with
# zeros.
_HOT_JOURNAL = bytes.fromhex("d9d505f920a163d7")
# Attempts to make a copy during which the files did not change.
_MAX_ATTEMPTS = 10
_CHUNK_BYTES = 1 << 20

_Key = tuple[tuple[str, int, int], ...]
_copies: dict[_Key, Path] = {}
_originals: dict[str, Path] = {}
_COPYING = threading.Lock()


def find_database(folder: Path, db_id: str) -> Path:
    """Return the SQLite file of a database: `DIR/<db_id>/<db_id>.sqlite`, or the only one there.

    Raises:
        DataError: there is no file or no single one, or `db_id` is not a plain folder name.
    """
    # The name comes from data and must not lead out of the folder.
    if db_id in ("", ".", "..") or "/" in db_id or "\\" in db_id or "\0" in db_id:
        raise DataError(f"db_id {db_id!r} is not the name of a folder below {folder}.")
    named = folder / db_id / f"{db_id}.sqlite"
    files = [named] if named.is_file() else sorted((folder / db_id).glob("*.sqlite"))
    if not files:
        raise DataError(
            f"there is no database {db_id!r} in {folder} (looked for {db_id}/*.sqlite); "
            "give the folder that holds one folder for each db_id."
        )
    if len(files) > 1:
        raise DataError(
            f"{folder / db_id} holds {len(files)} SQLite files and none is {named.name}; "
            "rename the one to use."
        )
    return files[0]


def find_suite(folder: Path, db_id: str, more: Path | None = None) -> list[Path]:
    """Return every SQLite file of a database, its own (`find_database`) first.

    The others follow by name, then those in the folder `more`.

    Raises:
        DataError: as in `find_database`.
    """
    own = find_database(folder, db_id)
    others = [path for path in sorted((folder / db_id).glob("*.sqlite")) if path != own]
    return [own, *others, *(sorted((more / db_id).glob("*.sqlite")) if more else ())]


def hash_databases(folder: Path, db_ids: Iterable[str], more: Path | None = None) -> dict[str, str]:
    """Return the SHA-256 of every file that answers are executed on.

    The keys are sorted: `db_id`, and `db_id/name.sqlite` for the other files of a suite. Files are
    read in pieces. The hash covers the file, then its log or hot journal.

    Raises:
        DataError: a database is missing or cannot be read.
    """
    hashes: dict[str, str] = {}
    for db_id in sorted(set(db_ids)):
        own, *others = find_suite(folder, db_id, more)
        for name, path in ((db_id, own), *((f"{db_id}/{path.name}", path) for path in others)):
            hashes[name] = _hash_database(path)
    return hashes


def find_committed(path: Path) -> Path:
    """Return a file with everything that is committed to a database: its own, or a copy.

    A copy is made where a log or hot journal lies beside the file. It lasts as long as this
    process.

    Raises:
        DataError: the database cannot be copied whole, or SQLite cannot apply the log or journal.
    """
    with _COPYING:
        try:
            return _find_committed(path)
        except OSError as error:
            raise DataError(_explain_unapplied(path, error.strerror or str(error))) from None


def find_original(path: str) -> str:
    """Return the database that a copy was made of, for messages.

    The path itself, if it is no copy.
    """
    return str(_originals.get(path, path))


def _find_committed(path: Path) -> Path:
    for _ in range(_MAX_ATTEMPTS):
        files = [path, *_find_log_files(path)]
        if len(files) == 1:
            return path
        key = tuple((str(f.absolute()), (s := f.stat()).st_size, s.st_mtime_ns) for f in files)
        if key in _copies:
            return _copies[key]
        copy = Path(tempfile.mkdtemp(dir=_create_copies_dir())) / path.name
        try:
            before = [_copy_file(file, _get_copy_path(copy, file)) for file in files]
            if [path, *_find_log_files(path)] == files and before == [
                _hash_file(file) for file in files
            ]:
                _apply_log(path, copy)
                _copies[key], _originals[str(copy.resolve())] = copy, path
                return copy
        except FileNotFoundError:
            pass  # its writer has applied it meanwhile
        shutil.rmtree(copy.parent, ignore_errors=True)
    raise DataError(_explain_unapplied(path, "it is being written to all the time"))


def _find_log_files(path: Path) -> list[Path]:
    """Return the log and the hot journal of a database.

    SQLite looks beside the file that a link points to. A user may have linked both files, so the
    link's own folder is searched, too.
    """
    files = []
    for ending in (_WAL, _JOURNAL):
        for base in dict.fromkeys((path.resolve(), path.absolute())):
            file = base.with_name(base.name + ending)
            if file.is_file() and file.stat().st_size and (ending == _WAL or _is_hot(file)):
                files.append(file)
                break
    return files


def _is_hot(journal: Path) -> bool:
    with journal.open("rb") as stream:
        return stream.read(len(_HOT_JOURNAL)) == _HOT_JOURNAL


def _get_copy_path(copy: Path, file: Path) -> Path:
    ending = next((e for e in (_WAL, _JOURNAL) if file.name.endswith(e)), "")
    return copy.with_name(copy.name + ending)


def _copy_file(file: Path, to: Path) -> str:
    """Copy a file, and return the hash of the copied bytes."""
    digest = hashlib.sha256()
    with file.open("rb") as source, to.open("wb") as target:
        while piece := source.read(_CHUNK_BYTES):
            digest.update(piece)
            target.write(piece)
    return digest.hexdigest()


def _hash_file(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _apply_log(path: Path, copy: Path) -> None:
    """Let SQLite apply the log or journal beside a copy."""
    try:
        with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.Error as error:
        raise DataError(_explain_unapplied(path, str(error))) from None
    if _find_log_files(copy):
        raise DataError(_explain_unapplied(path, "SQLite leaves it as it is"))


def _explain_unapplied(path: Path, why: str) -> str:
    return (
        f"{path}: what is committed cannot be read together with the log or journal beside it "
        f"({why}); let the program that writes it end, run `PRAGMA wal_checkpoint(TRUNCATE)` on it "
        "(sqlite3), and try again."
    )


@cache
def _create_copies_dir() -> Path:
    """Return the folder for copies; it is deleted when this process ends."""
    folder, owner = tempfile.mkdtemp(prefix="tuneoff-databases-"), os.getpid()

    def clean() -> None:
        if os.getpid() == owner:
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(clean)
    return Path(folder)


def _hash_database(path: Path) -> str:
    try:
        digest = hashlib.sha256()
        for file in (path, *_find_log_files(path)):
            with file.open("rb") as stream:
                while piece := stream.read(_CHUNK_BYTES):
                    digest.update(piece)
        return digest.hexdigest()
    except OSError as error:
        raise DataError(f"{path}: the database cannot be read ({error.strerror}).") from None
