"""SQLite databases in a folder: `DIR/<db_id>/*.sqlite`, found by id and hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from tuneoff.errors import DataError


def find_database(folder: Path, db_id: str) -> Path:
    """The SQLite file of a database: `DIR/<db_id>/<db_id>.sqlite`, or the only one there.

    Raises:
        DataError: there is none or no single one, or `db_id` is not a plain folder name.
    """
    # The name comes from data; it must not lead out of the folder.
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
    """Every SQLite file of a database, its own (`find_database`) first, then its others by name,
    then those of the same id in the folder `more`.

    Raises:
        DataError: as for `find_database`.
    """
    own = find_database(folder, db_id)
    others = [path for path in sorted((folder / db_id).glob("*.sqlite")) if path != own]
    return [own, *others, *(sorted((more / db_id).glob("*.sqlite")) if more else ())]


def database_hashes(
    folder: Path, db_ids: Iterable[str], more: Path | None = None
) -> dict[str, str]:
    """SHA-256 of every file that answers are executed on, by db_id (`db_id/name.sqlite` for the
    others of a suite), sorted; files are not read into memory.

    Raises:
        DataError: a database is missing.
    """
    hashes: dict[str, str] = {}
    for db_id in sorted(set(db_ids)):
        own, *others = find_suite(folder, db_id, more)
        for name, path in ((db_id, own), *((f"{db_id}/{path.name}", path) for path in others)):
            with path.open("rb") as stream:
                hashes[name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return hashes
