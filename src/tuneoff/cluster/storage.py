"""Where the machines of a cluster keep what a training has reached: a folder that all of them
see, or a bucket (`s3://…`, `gs://…`) through fsspec.

A key holds one training. Each try at it claims a number, and writes below it: the files under the
sha256 of their content, then `manifest.json`, which names them and is written last. So what can
be read is always whole, a file that did not change is not sent again, and a worker that was
given up and lives on disturbs nobody. The highest number with a manifest is what counts.
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

MANIFEST, BEGUN = "manifest.json", "begun"
# How often a manifest is read anew whose files a later one has replaced meanwhile.
LOOKS = 5
# What of a contender's folder makes a training; answers go to the driver as they come.
# The weights are last: with them it is complete.
PARTS = ("training.json", "loss.jsonl", "learning_rates.jsonl", "checkpoints", "epochs", "adapter",
         "model")  # fmt: skip


class Storage:
    """Trainings by key, below a folder's path or a URL.

    Raises:
        ConfigError: fsspec knows no such kind of URL, or lacks the package for it.
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
        # Workers have another current folder.
        self.url = str(self._root) if self._local else url
        # Of files that did not change since: (size, modified) and sha256.
        self._hashed: dict[Path, tuple[tuple[int, int], str]] = {}

    def begin(self, key: str) -> int:
        """Claims a number for a new try, which no other gets, even if this one writes nothing."""
        number = max(self._numbers(key), default=0) + 1
        self._write(f"{self._place(key, number)}/{BEGUN}", b"")
        return number

    def push(self, key: str, number: int, folder: Path) -> None:
        """Keeps a training as it is now; older tries are dropped."""
        place = self._place(key, number)
        kept = self._names(place)
        manifest = {}
        for file in _files_of(folder):
            sha256 = self._sha256(file)
            manifest[file.relative_to(folder).as_posix()] = sha256
            if sha256 not in kept:
                self._put(f"{place}/{sha256}", file)
                kept.add(sha256)
        self._write(f"{place}/{MANIFEST}", json.dumps(manifest).encode())
        # A worker that was given up may be writing there; what stays is removed with the key.
        with contextlib.suppress(OSError):
            for name in kept - {MANIFEST, BEGUN, *manifest.values()}:
                self._files.rm_file(f"{place}/{name}")
            for older in self._numbers(key):
                if older < number:
                    self._files.rm(self._place(key, older), recursive=True)

    def pull(self, key: str, folder: Path, without: str | None = None) -> bool:
        """Fetches what was kept last into a folder, but for its part `without`; False where nothing
        was."""
        for look in range(LOOKS):
            found = self._manifest(key)
            if found is None:
                return False
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            try:
                self._fetch(*found, folder, without)
            except FileNotFoundError:
                if look + 1 == LOOKS:
                    raise
            else:
                return True
        return False

    def _fetch(
        self, place: str, manifest: Mapping[str, str], folder: Path, without: str | None
    ) -> None:
        for name, sha256 in manifest.items():
            if Path(name).parts[0] != without:
                file = folder / name
                file.parent.mkdir(parents=True, exist_ok=True)
                self._files.get_file(f"{place}/{sha256}", str(file))

    def state(self, key: str) -> Any:
        """Something that changes when more of a training is kept."""
        found = self._manifest(key)
        return None if found is None else found[1]

    def has_weights(self, key: str) -> bool:
        """Whether a training that is complete was kept."""
        found = self._manifest(key)
        return found is not None and any(
            Path(name).parts[0] in ("adapter", "model") for name in found[1]
        )

    def remove(self, key: str) -> None:
        """Forgets a training."""
        with contextlib.suppress(FileNotFoundError):
            self._files.rm(f"{self._root}/{key}", recursive=True)

    def _manifest(self, key: str) -> tuple[str, dict[str, str]] | None:
        for number in sorted(self._numbers(key), reverse=True):
            place = self._place(key, number)
            with contextlib.suppress(FileNotFoundError):
                manifest: dict[str, str] = json.loads(self._files.cat_file(f"{place}/{MANIFEST}"))
                return place, manifest
        return None

    def _place(self, key: str, number: int) -> str:
        return f"{self._root}/{key}/{number}"

    def _numbers(self, key: str) -> list[int]:
        return [int(name) for name in self._names(f"{self._root}/{key}") if name.isdecimal()]

    def _names(self, place: str) -> set[str]:
        # What another machine has written must be seen, so nothing is kept from the last look.
        self._files.invalidate_cache(place)
        try:
            found: list[Any] = self._files.ls(place, detail=False)
        except FileNotFoundError:
            return set()
        return {str(path).rstrip("/").rpartition("/")[2] for path in found}

    def _sha256(self, file: Path) -> str:
        status = file.stat()
        state = status.st_size, status.st_mtime_ns
        known = self._hashed.get(file)
        if known is None or known[0] != state:
            with file.open("rb") as stream:
                known = state, hashlib.file_digest(stream, "sha256").hexdigest()
            self._hashed[file] = known
        return known[1]

    def _put(self, target: str, file: Path) -> None:
        if not self._local:  # an object of a bucket is there as a whole, or not at all
            self._files.put_file(str(file), target)
            return
        beside = f"{target}.{secrets.token_hex(4)}.part"
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        self._files.put_file(str(file), beside)
        Path(beside).replace(target)

    def _write(self, target: str, content: bytes) -> None:
        if not self._local:
            self._files.pipe_file(target, content)
            return
        beside = Path(f"{target}.{secrets.token_hex(4)}.part")
        beside.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(content)
        beside.replace(target)


def _files_of(folder: Path) -> Iterator[Path]:
    """The files of a training; what is being written has a dot before its name."""
    for part in PARTS:
        path = folder / part
        found = [path] if path.is_file() else sorted(path.rglob("*"))
        for file in found:
            hidden = any(name.startswith(".") for name in file.relative_to(folder).parts)
            if file.is_file() and not hidden:
                yield file
