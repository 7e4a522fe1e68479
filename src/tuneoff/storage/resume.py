"""Whether a run directory belongs to a bake-off file, and the stored copy of that file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from tuneoff.config.schema import BakeOff
from tuneoff.errors import RunDirectoryError
from tuneoff.storage.files import write_text
from tuneoff.storage.run_dir import RunDir

# These keys may change between two commands. A change of scoring keys only scores answers again.
# The others change what work costs, how much may be spent, how many requests run at once, how often
# each example is answered, whether timing is done, and which model is to be replaced.
SCORING_KEYS = (
    "task.cluster",
    "task.derived_databases",
    "task.memory_gb",
    "task.metrics",
    "task.mode",
    "task.seconds",
)
SPENDING_KEYS = (
    "as_of",
    "budget_usd",
    "measure",
    "migrating_from",
    "prices",
    "requirements",
    "serving",
)
# A deployment is the same model under another name.
SPENDING_KEYS_OF_ONE = ("concurrency", "deployment", "key_variable", "price", "samples")


def dump_resolved(bakeoff: BakeOff) -> dict[str, Any]:
    """Return the file with every default filled in, as plain values."""
    return bakeoff.model_dump(mode="json")


def open_run_dir(path: Path, bakeoff: BakeOff, fresh: str | None = None) -> RunDir:
    """Return the run directory of a bake-off file, created with a copy of the file if missing.

    With `fresh`, the settings of that contender may have changed. The stored copy is then not
    overwritten until `save_config`: results of the old settings must not be attributed to the new
    ones.

    Raises:
        RunDirectoryError: the folder holds something else, or a run of another file; the message
            names the keys that differ. Nothing in it is changed.
    """
    stored = path / "bakeoff.yaml"
    if path.exists() and not path.is_dir():
        raise RunDirectoryError(f"{path}: this is a file; give a folder as --run-dir.")
    if stored.exists():
        _check_unchanged(stored, bakeoff, fresh)
    elif path.exists() and any(path.iterdir()):
        raise RunDirectoryError(
            f"{path}: the folder is not empty and holds no bakeoff.yaml; "
            "give an empty or new folder as --run-dir."
        )
    if fresh is None:
        save_config(path, bakeoff)
    return RunDir(path)


def save_config(path: Path, bakeoff: BakeOff) -> None:
    """Write a run directory's copy of its bake-off file.

    It is written each time, because keys that may change, or are new, have changed. The folder to
    which the file's paths are relative is stored relative to the run directory, so that both can be
    moved together.
    """
    lay = os.path.relpath(bakeoff.folder.resolve(), path.resolve())
    written = {**dump_resolved(bakeoff), "folder": lay}
    text = yaml.safe_dump(written, sort_keys=False, allow_unicode=True)
    write_text(path / "bakeoff.yaml", text)


def _check_unchanged(stored: Path, bakeoff: BakeOff, fresh: str | None) -> None:
    """Raise RunDirectoryError if keys changed that must not change."""
    with contextlib.suppress(yaml.YAMLError):
        before = _fill_defaults(yaml.safe_load(stored.read_text(encoding="utf-8")))
        own = f"contenders.{fresh}"
        changed = sorted(
            key
            for key in _list_changed_keys(before, dump_resolved(bakeoff))
            if not _can_change(key)
            and (fresh is None or not (key == own or key.startswith(f"{own}.")))
        )
        if not changed:
            return
        shown = ", ".join(changed[:6]) + (", …" if len(changed) > 6 else "")
        raise RunDirectoryError(
            f"{stored.parent}: this run was begun with another bake-off file (changed: {shown}); "
            "undo the change, or give another --run-dir."
        )
    raise RunDirectoryError(f"{stored}: this is not valid YAML; give another --run-dir.")


def _can_change(key: str) -> bool:
    """Return whether earlier results stay valid when this key of the file changes."""
    first, *rest = key.split(".")
    if first != "contenders":
        return key in SCORING_KEYS or first in SPENDING_KEYS
    # A contender's name may hold dots; its keys do not.
    own = rest[-2:] if rest[-1].endswith(("_million_tokens", "_hour")) else rest[-1:]
    return own[0] in SPENDING_KEYS_OF_ONE


def _fill_defaults(stored: Any) -> Any:
    """Return a stored file with defaults for keys that did not exist when it was written."""
    try:
        return dump_resolved(BakeOff.model_validate(stored))
    except ValidationError:
        if isinstance(stored, dict):
            stored.pop("folder", None)
        return stored


def load_stored_bakeoff(run_dir: Path) -> BakeOff:
    """Load the resolved bake-off file of a run, with its paths as they were meant.

    Raises:
        RunDirectoryError: the folder is no run directory.
    """
    stored = run_dir / "bakeoff.yaml"
    if not stored.is_file():
        raise RunDirectoryError(f"{run_dir}: there is no bakeoff.yaml in it; give a run directory.")
    value = yaml.safe_load(stored.read_text(encoding="utf-8"))
    # A run from before this was stored uses the current directory.
    value["folder"] = (run_dir / value["folder"]).resolve() if "folder" in value else Path(".")
    return BakeOff.model_validate(value)


def _index_by_name(contenders: list[Any]) -> dict[str, Any]:
    """Return contenders by name."""
    return {str(c.get("name")): c for c in contenders if isinstance(c, Mapping)}


def _list_changed_keys(before: Any, after: Any, place: str = "") -> Iterator[str]:
    """Yield the dotted names of what differs; contenders are compared by name."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in {**before, **after}:
            yield from _list_changed_keys(
                before.get(key), after.get(key), f"{place}.{key}".lstrip(".")
            )
    elif place == "contenders" and isinstance(before, list) and isinstance(after, list):
        yield from _list_changed_keys(_index_by_name(before), _index_by_name(after), place)
    elif before != after:
        yield place
