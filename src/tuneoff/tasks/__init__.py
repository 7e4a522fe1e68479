"""Tasks: where examples come from, how they become a prompt, what judges an answer.

One file a task. A task is a module with these names (see `Task`): no class to inherit, no
registry. `functional_representation`, `text_to_sql` and `chat` come with tuneoff; your
own is a Python file or an installed module, named by `task: {id: ./my_task.py}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from tuneoff import discovery
from tuneoff.config import TaskSettings
from tuneoff.prompts import Template
from tuneoff.records import Example, Split
from tuneoff.tasks.text_lines import Warn, ignore

Splits = Mapping[Split, list[Example]]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a task may read: the bake-off file's folder, and local data sets if any. `warn` is
    told what is doubtful about what was read there."""

    folder: Path
    data_dir: Path | None = None
    warn: Warn = ignore

    def path(self, written: str) -> Path:
        return (self.folder / Path(written).expanduser()).resolve()


class Task(Protocol):
    """What a task's module has.

    `SCORER` names a module of `tuneoff.scoring`; `SOURCES` lists what `source:` may be
    (the first is the default; empty: the task reads files); `MAX_NEW_TOKENS` bounds an
    answer; `CLUSTER` names the `meta` key whose examples are not independent (None: they are).
    """

    SCORER: str
    SOURCES: tuple[str, ...]
    MAX_NEW_TOKENS: int
    CLUSTER: str | None

    def load(self, settings: TaskSettings, place: Place) -> Splits:
        """Return all examples by split, before `limit`. A task that reads a user's files may have a
        function `places(settings, place, split, wanted)` beside, which says where examples are."""
        ...

    def template(self, settings: TaskSettings) -> Template:
        """The task's full prompt; `prompt: short` is applied by the caller."""
        ...

    def databases(self, settings: TaskSettings, place: Place, into: Path) -> Path | None:
        """Folder of `<db_id>/*.sqlite` for scoring (generated ones go below `into`), or None."""
        ...


NEEDS = ("SCORER", "SOURCES", "MAX_NEW_TOKENS", "CLUSTER", "load", "template", "databases")


def load_task(id: str, folder: Path | None = None) -> Task:
    """The task of an id; a file's path is relative to `folder`.

    Raises:
        ConfigError: there is no such task.
    """
    if id.endswith(".py") and folder is not None:
        id = str((folder / id).resolve())
    return cast(Task, discovery.find(__name__, id, "task", NEEDS))
