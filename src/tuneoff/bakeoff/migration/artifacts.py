"""Saves the files of a tuned model into a folder: its examples, its job, its curves.

`saved.json` records where each file came from and what it holds (`files`: id, bytes, lines,
sha256), which files could not be downloaded and why (`missing`), and the captured answers
(`answers`). A file is written whole and then recorded, so an existing file is not downloaded again,
recorded or not.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tuneoff.errors import DataError, ProviderError, RejectedError
from tuneoff.progress import Progress
from tuneoff.providers.base import Provider, TunedModel
from tuneoff.providers.retries import retry, use_short_retries
from tuneoff.storage.files import format_line, write_bytes, write_text

MANIFEST_FILE, CAPTURE_FILE = "saved.json", "capture.yaml"
TRAIN_FILE, TEST_FILE = "train.jsonl", "test.jsonl"
JOB_FILE, CHECKPOINTS_FILE, LOSSES_FILE, RESULTS_FILE = (
    "job.json",
    "checkpoints.json",
    "losses.jsonl",
    "results.csv",
)
# Max length of a folder's name, and of the hash in it: the run directory of a bake-off file is
# named like its folder, with 60 letters at most.
MAX_LETTERS, HASH_LETTERS = 60, 8
# Downloads of one file: an incomplete one is downloaded again.
MAX_FETCHES = 2


@dataclass(frozen=True, slots=True)
class FetchedFile:
    """A downloaded file of examples, with its hash at download."""

    path: Path
    sha256: str

    def is_unchanged(self) -> bool:
        """Return whether the file still exists unchanged."""
        return self.path.is_file() and _hash_content(self.path.read_bytes()) == self.sha256


class Manifest:
    """A folder's `saved.json`; every change is written at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._value: dict[str, Any] = {"files": {}, "missing": {}}
        self._value |= read_manifest(folder) or {}

    @property
    def files(self) -> dict[str, dict[str, Any]]:
        """Return the facts of the files by name."""
        files: dict[str, dict[str, Any]] = self._value["files"]
        return files

    @property
    def missing(self) -> dict[str, str]:
        """Return why files could not be downloaded, by name."""
        reasons: dict[str, str] = self._value["missing"]
        return reasons

    def describe(self, model: TunedModel) -> None:
        """Record which model the folder belongs to."""
        self._change({"model": model.model, "base": model.base, "job": model.job})

    def record_file(self, name: str, **facts: Any) -> None:
        """Record a file that exists."""
        if self.files.get(name) != facts or name in self.missing:
            missing = {other: why for other, why in self.missing.items() if other != name}
            self._change({"files": {**self.files, name: facts}, "missing": missing})

    def record_missing(self, name: str, why: str) -> None:
        """Record why a file could not be downloaded."""
        self._change({"missing": {**self.missing, name: why}})

    def answers(self) -> dict[str, Any]:
        """Return the record of a finished capture; empty before."""
        return dict(self._value.get("answers") or {})

    def record_answers(self, facts: dict[str, Any]) -> None:
        """Record a finished capture."""
        self._change({"answers": facts})

    def _change(self, changes: dict[str, Any]) -> None:
        """Write the changes, if there are any."""
        changed = {**self._value, **changes}
        if changed != self._value or not (self.folder / MANIFEST_FILE).exists():
            self._value = changed
            write_text(self.folder / MANIFEST_FILE, json.dumps(changed, indent=2) + "\n")


class ArtifactSaver:
    """Saves the files of one tuned model. Files that are in its folder stay."""

    def __init__(
        self,
        provider: Provider,
        model: TunedModel,
        folder: Path,
        progress: Progress,
        fetched: dict[str, FetchedFile] | None = None,
    ) -> None:
        """Open the folder.

        Args:
            fetched: files of other folders by id; those of this one are added.
        """
        self._provider, self._model, self._progress = provider, model, progress
        self._fetched = {} if fetched is None else fetched
        self.folder, self.manifest = folder, Manifest(folder)
        self.manifest.describe(model)

    def save_examples(self, name: str, id: str | None) -> None:
        """Save a file of examples, or record why there is none."""
        if (self.folder / name).exists():
            # If the provider could not give it, it is the user's own copy.
            self._format_note(name, None if name in self.manifest.missing else id)
        elif id is None:
            self.manifest.record_missing(name, "the provider does not say what it was tuned on")
        else:
            try:
                self._save_file(name, id)
            except RejectedError as error:
                why = f"its file {id} cannot be fetched any more ({error})"
                self.manifest.record_missing(name, why)

    def save_job(self) -> None:
        """Save its job's settings, its training curves and a list of its checkpoints.

        What cannot be downloaded is recorded, and stops nothing.
        """
        job = self._model.job
        if job is None:
            self.manifest.record_missing(
                JOB_FILE, "its job is not among those that the provider lists"
            )
            return
        self._keep(JOB_FILE, job, lambda: _dump_json(self._provider.job_facts(job)))
        self._keep(CHECKPOINTS_FILE, job, lambda: _dump_json(
            [dataclasses.asdict(each) for each in self._provider.checkpoints(job)]
        ))  # fmt: skip
        path = self.folder / JOB_FILE
        facts = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        results = [str(each) for each in facts.get("result_files") or ()]
        for number, id in enumerate(results, 1):
            name = RESULTS_FILE if number == 1 else f"results-{number}.csv"
            self._keep(name, id, lambda id=id: self._provider.result_text(id))  # type: ignore[misc]
        if not results:
            self._keep(LOSSES_FILE, job, self._losses)

    def _losses(self) -> str:
        """Return the losses of its job as rows."""
        job = self._provider.job(str(self._model.job))
        rows = self._provider.losses(job)
        return "".join(format_line(dataclasses.asdict(each)) for each in rows)

    def _keep(self, name: str, id: str, text: Callable[[], str]) -> None:
        """Save a text that a call returns, or record why it cannot be downloaded."""
        path = self.folder / name
        if not path.exists():
            try:
                with use_short_retries():
                    content = retry(text)
            except ProviderError as error:
                self.manifest.record_missing(name, str(error))
                self._progress.say(f"{self._model.model}: {name} is not saved: {error}")
                return
            write_bytes(path, content.encode(errors="replace"))
        self._format_note(name, id)

    def _save_file(self, name: str, id: str) -> None:
        """Copy a file from another folder, or download it, and check that it is complete."""
        other = self._fetched.get(id)
        if other is not None and other.is_unchanged():
            # No link: a change of one folder's file must not change another's.
            write_bytes(self.folder / name, other.path.read_bytes())
        else:
            content = self._fetch(id)
            write_bytes(self.folder / name, content)
            self._progress.say(f"fetched {id} ({len(content)} bytes)")
        self._format_note(name, id)

    def _fetch(self, id: str) -> bytes:
        """Return a file's content, complete and valid.

        Raises:
            DataError: it is neither after `MAX_FETCHES` downloads.
        """
        size = self._find_size(id)
        for _ in range(MAX_FETCHES):
            content = retry(lambda: self._provider.download(id))
            if size in (None, len(content)):
                break
        else:
            raise DataError(
                f"{self._model.model}: {len(content)} of the {size} bytes of its file {id} came; "
                "nothing of it was kept; give the same command again."
            )
        fault = find_bad_line(content)
        if fault is not None:
            raise DataError(
                f"{self._model.model}: line {fault} of its file {id} is no JSON object; nothing "
                "of it was kept; give the same command again."
            )
        return content

    def _find_size(self, id: str) -> int | None:
        """Return a file's size in bytes by its provider; None if it is not known."""
        try:
            with use_short_retries():
                return retry(lambda: self._provider.file_state(id)).size
        except ProviderError:
            return None

    def _format_note(self, name: str, id: str | None) -> None:
        """Record a file that is in the folder, unless the user changed it."""
        path = self.folder / name
        content = path.read_bytes()
        facts = {
            "id": id,
            "bytes": len(content),
            "lines": len(content.splitlines()),
            "sha256": _hash_content(content),
        }
        before = self.manifest.files.get(name)
        if before is not None and before["sha256"] != facts["sha256"]:
            self._progress.say(f"warning: {path} was changed since it was saved; it stays so")
            return
        if before is not None and before["id"] is None:
            return  # a user's own copy stays one
        self.manifest.record_file(name, **facts)
        if id is not None and name in (TRAIN_FILE, TEST_FILE):
            self._fetched[id] = FetchedFile(path, str(facts["sha256"]))


def find_bad_line(content: bytes) -> int | None:
    """Return the number of the first line that is no JSON object; None if all are."""
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            if isinstance(json.loads(line), dict):
                continue
        except ValueError:
            pass
        return number
    return None


def name_folder(model: str) -> str:
    """Return the name of a model's folder: always the same, and different for different models.

    >>> name_folder("ft:gpt-4o-mini-2024-07-18:acme::AbC")
    'gpt-4o-mini-2024-07-18-acme-AbC-d508e439'
    """
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", model.removeprefix("ft:")).strip("._-")
    # Names may differ in case alone, which some file systems ignore: hence the hash.
    own = hashlib.sha256(model.encode()).hexdigest()[:HASH_LETTERS]
    room = MAX_LETTERS - HASH_LETTERS - 1
    if len(plain) > room:
        half = room // 2
        plain = f"{plain[:half].rstrip('._-')}-{plain[-half:].lstrip('._-')}"[:room]
    return f"{plain}-{own}" if plain else own


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return the content of a folder's `saved.json`; None without one."""
    path = folder / MANIFEST_FILE
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise DataError(
            f"{path}: this is not what tuneoff wrote; delete it, or give another --out."
        )
    return value


def read_owner(folder: Path) -> str | None:
    """Return the model that a folder belongs to; None if it belongs to none.

    Folders of earlier versions have no `saved.json`; their capture's file names the model.
    """
    value = read_manifest(folder)
    if value is not None:
        return value.get("model")
    file = folder / CAPTURE_FILE
    try:
        return str(yaml.safe_load(file.read_text(encoding="utf-8"))["contenders"][0]["model"])
    except (OSError, ValueError, yaml.YAMLError, LookupError, TypeError):
        return None


def find_saved(out: Path) -> dict[str, Path]:
    """Return the models' folders in a folder, by the models' names."""
    folders = sorted(each for each in out.iterdir() if each.is_dir()) if out.is_dir() else []
    owners = ((read_owner(folder), folder) for folder in folders)
    return {model: folder for model, folder in owners if model is not None}


def find_fetched(folders: Mapping[str, Path]) -> dict[str, FetchedFile]:
    """Return the files of examples that folders have recorded, by id."""
    files = {}
    for folder in folders.values():
        for name, facts in Manifest(folder).files.items():
            if name in (TRAIN_FILE, TEST_FILE) and facts["id"] is not None:
                files[facts["id"]] = FetchedFile(folder / name, facts["sha256"])
    return files


def _hash_content(content: bytes) -> str:
    """Return the SHA-256 of a file's content."""
    return hashlib.sha256(content).hexdigest()


def _dump_json(value: Any) -> str:
    """Return a value as indented JSON text."""
    return json.dumps(value, indent=2, sort_keys=True) + "\n"
