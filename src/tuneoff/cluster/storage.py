"""Keeps trainings in progress: in a folder that all machines see, or in a bucket (`s3://…`,
`gs://…`) through fsspec.

A key holds one training. Each try claims a number and writes below it: the files, named by the
sha256 of their content, and then `manifest.json`, which lists them and is written last. So a
manifest that can be read is always complete, an unchanged file is not sent again, and a worker that
was given up but still runs disturbs nobody. The highest number with a manifest counts.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tuneoff.errors import ConfigError

MANIFEST, STARTED = "manifest.json", "begun"
# How often to read a manifest again after a later one replaced its files.
MAX_READS = 5
# The files of a training. Answers are not among them: they go to the driver as they arrive. The
# weights come last, because they complete a training.
TRAINING_FILES = (
    "training.json",
    "loss.jsonl",
    "learning_rates.jsonl",
    "checkpoints",
    "epochs",
    "adapter",
    "model",
)


class TrainingStorage:
    """Trainings by key, below a folder or a URL.

    Raises:
        ConfigError: fsspec does not know this kind of URL, or lacks the package for it.
    """

    def __init__(self, url: str) -> None:
        from fsspec.core import url_to_fs
        from fsspec.implementations.local import LocalFileSystem

        try:
            self._files, self._root = url_to_fs(url)
        except (ValueError, ImportError) as error:
            first = str(error).splitlines()[0]
            raise ConfigError(
                f"--storage {url}: {first}; give a folder that all machines see, or a URL of an "
                "installed fsspec file system (s3://… wants s3fs, gs://… gcsfs)."
            ) from None
        self._local = isinstance(self._files, LocalFileSystem)
        # An absolute path, because workers have another current folder.
        self.url = str(self._root) if self._local else url
        # (size, mtime) and sha256 of files, to avoid hashing unchanged ones.
        self._hashed: dict[Path, tuple[tuple[int, int], str]] = {}

    def start_try(self, key: str) -> int:
        """Claim and return a number for a new try.

        No other try gets it, even if this one writes nothing.
        """
        number = max(self._numbers(key), default=0) + 1
        self._write(f"{self._place(key, number)}/{STARTED}", b"")
        return number

    def push(self, key: str, number: int, folder: Path) -> None:
        """Store the current state of a training and delete older tries."""
        place = self._place(key, number)
        stored = self._names(place)
        manifest = {}
        for file in _list_files(folder):
            sha256 = self._hash_file(file)
            manifest[file.relative_to(folder).as_posix()] = sha256
            if sha256 not in stored:
                self._put(f"{place}/{sha256}", file)
                stored.add(sha256)
        self._write(f"{place}/{MANIFEST}", json.dumps(manifest).encode())
        # A worker that was given up may still be writing; leftovers are removed with the key.
        with contextlib.suppress(OSError):
            for name in stored - {MANIFEST, STARTED, *manifest.values()}:
                self._files.rm_file(f"{place}/{name}")
            for older in self._numbers(key):
                if older < number:
                    self._files.rm(self._place(key, older), recursive=True)

    def pull(self, key: str, folder: Path, without: str | None = None) -> bool:
        """Fetch the latest state into a folder, except for its part `without`; return False if
        there is none."""
        for look in range(MAX_READS):
            latest = self._read_manifest(key)
            if latest is None:
                return False
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            try:
                self._fetch(*latest, folder, without)
            except FileNotFoundError:
                if look + 1 == MAX_READS:
                    raise
            else:
                return True
        return False

    def _fetch(
        self, place: str, manifest: Mapping[str, str], folder: Path, without: str | None
    ) -> None:
        """Fetch the files of a manifest."""
        for name, sha256 in manifest.items():
            if Path(name).parts[0] != without:
                file = folder / name
                file.parent.mkdir(parents=True, exist_ok=True)
                self._files.get_file(f"{place}/{sha256}", str(file))

    def state(self, key: str) -> Any:
        """Return a value that changes when a training makes progress in storage."""
        latest = self._read_manifest(key)
        return None if latest is None else latest[1]

    def has_weights(self, key: str) -> bool:
        """Return whether storage holds a complete training."""
        latest = self._read_manifest(key)
        return latest is not None and any(
            Path(name).parts[0] in ("adapter", "model") for name in latest[1]
        )

    def remove(self, key: str) -> None:
        """Delete a training."""
        with contextlib.suppress(FileNotFoundError):
            self._files.rm(f"{self._root}/{key}", recursive=True)

    def _read_manifest(self, key: str) -> tuple[str, dict[str, str]] | None:
        """Return the latest manifest with its folder; None if there is none."""
        for number in sorted(self._numbers(key), reverse=True):
            place = self._place(key, number)
            with contextlib.suppress(FileNotFoundError):
                manifest: dict[str, str] = json.loads(self._files.cat_file(f"{place}/{MANIFEST}"))
                return place, manifest
        return None

    def _place(self, key: str, number: int) -> str:
        """Return the folder of a try."""
        return f"{self._root}/{key}/{number}"

    def _numbers(self, key: str) -> list[int]:
        """Return the numbers of all tries."""
        return [int(name) for name in self._names(f"{self._root}/{key}") if name.isdecimal()]

    def _names(self, place: str) -> set[str]:
        """Return the names in a folder."""
        # Drop fsspec's cache to see what other machines wrote.
        self._files.invalidate_cache(place)
        try:
            paths: list[Any] = self._files.ls(place, detail=False)
        except FileNotFoundError:
            return set()
        return {str(path).rstrip("/").rpartition("/")[2] for path in paths}

    def _hash_file(self, file: Path) -> str:
        """Return the sha256 of a file; unchanged files are not hashed again."""
        status = file.stat()
        state = status.st_size, status.st_mtime_ns
        cached = self._hashed.get(file)
        if cached is None or cached[0] != state:
            with file.open("rb") as stream:
                cached = state, hashlib.file_digest(stream, "sha256").hexdigest()
            self._hashed[file] = cached
        return cached[1]

    def _put(self, target: str, file: Path) -> None:
        """Upload a file so that it appears complete or not at all."""
        if not self._local:  # an upload to a bucket is atomic
            self._files.put_file(str(file), target)
            return
        beside = f"{target}.{secrets.token_hex(4)}.part"
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        self._files.put_file(str(file), beside)
        Path(beside).replace(target)

    def _write(self, target: str, content: bytes) -> None:
        """Write content so that it appears complete or not at all."""
        if not self._local:
            self._files.pipe_file(target, content)
            return
        beside = Path(f"{target}.{secrets.token_hex(4)}.part")
        beside.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(content)
        beside.replace(target)


def _list_files(folder: Path) -> Iterator[Path]:
    """Yield the files of a training; names with a leading dot are still being written."""
    for part in TRAINING_FILES:
        path = folder / part
        files = [path] if path.is_file() else sorted(path.rglob("*"))
        for file in files:
            hidden = any(name.startswith(".") for name in file.relative_to(folder).parts)
            if file.is_file() and not hidden:
                yield file
