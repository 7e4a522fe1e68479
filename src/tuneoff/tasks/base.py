"""Tasks: where examples come from, how they become a prompt, and which scorer judges the answers.

A task is one file: a module with the names of `Task`. There is no class to inherit and no registry.
`functional_representation`, `text_to_sql` and `chat` come with tuneoff. Your own task is a Python
file or an installed module, named by `task: {id: ./my_task.py}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from tuneoff import plugins
from tuneoff.config.schema import TaskConfig
from tuneoff.prompts import Template
from tuneoff.records import Example, Split
from tuneoff.tasks.text_lines import Warn, ignore_warning

Splits = Mapping[Split, list[Example]]


@dataclass(frozen=True, slots=True)
class DataPaths:
    """The paths that a task may read."""

    folder: Path
    """The bake-off file's folder; relative paths start here."""
    data_dir: Path | None = None
    """Local copies of the data sets, if there are any."""
    warn: Warn = ignore_warning
    """Receives warnings about the data that was read."""

    def path(self, written: str) -> Path:
        """Return a path of the bake-off file as an absolute path."""
        return (self.folder / Path(written).expanduser()).resolve()


class Task(Protocol):
    """The names that a task's module defines."""

    SCORER: str
    """The id of a module of `tuneoff.scoring`."""
    SOURCES: tuple[str, ...]
    """The allowed values of `source:`, the default first. Empty: the task reads files."""
    MAX_NEW_TOKENS: int
    """The most new tokens of an answer."""
    CLUSTER: str | None
    """The `meta` key that groups dependent examples (for instance a database). None: they are
    independent."""

    def load(self, settings: TaskConfig, place: DataPaths) -> Splits:
        """Return all examples by split, before `limit`.

        A task that reads a user's files may also define `places(settings, place, split, wanted)`,
        which returns the file and line of examples.
        """
        ...

    def template(self, settings: TaskConfig) -> Template:
        """Return the task's full prompt; the caller applies `prompt: short`."""
        ...

    def databases(self, settings: TaskConfig, place: DataPaths, into: Path) -> Path | None:
        """Return the folder of `<db_id>/*.sqlite` for scoring, or None.

        Generated databases go below `into`.
        """
        ...


NEEDS = ("SCORER", "SOURCES", "MAX_NEW_TOKENS", "CLUSTER", "load", "template", "databases")


def load_task(id: str, folder: Path | None = None) -> Task:
    """Return the task with this id.

    Args:
        folder: the folder that a file's path is relative to.

    Raises:
        ConfigError: there is no such task.
    """
    if id.endswith(".py") and folder is not None:
        id = str((folder / id).resolve())
    return cast(Task, plugins.find("tuneoff.tasks", id, "task", NEEDS))
