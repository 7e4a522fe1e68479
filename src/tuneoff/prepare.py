"""Everything a run needs, looked up and checked before anything is written or spent."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tuneoff.config import BakeOff, TaskSettings
from tuneoff.contenders import load_contender
from tuneoff.errors import ConfigError, DataError, unknown
from tuneoff.prompts import Template
from tuneoff.records import Example, Split
from tuneoff.scoring import Scorer, load_scorer
from tuneoff.tasks import Place, Task, load_task, splits

DATA_VARIABLE = "TUNEOFF_DATA"


@dataclass(frozen=True, slots=True)
class Parts:
    """A bake-off file with its ids resolved."""

    bakeoff: BakeOff
    task: Task
    settings: TaskSettings
    scorer: Scorer
    template: Template
    place: Place
    max_new_tokens: int


def parts(bakeoff: BakeOff) -> Parts:
    """Resolves task, source, metrics and contender kinds. Reads no data.

    Raises:
        ConfigError: an id is unknown, a base or a file is not there, a key does not fit.
    """
    task = load_task(bakeoff.task.id, bakeoff.folder)
    settings = _with_source(bakeoff.task, task)
    scorer = load_scorer(task.SCORER)
    for metric in settings.metrics or ():
        if metric not in scorer.METRICS:
            raise ConfigError(f"task.metrics: {unknown('metric', metric, scorer.METRICS)}.")
    for contender in bakeoff.contenders:
        load_contender(contender.id).check(contender, bakeoff.folder)
    template = task.template(settings)
    return Parts(
        bakeoff=bakeoff,
        task=task,
        settings=settings,
        scorer=scorer,
        template=template.short() if settings.prompt == "short" else template,
        place=Place(bakeoff.folder, data_dir(bakeoff)),
        max_new_tokens=settings.max_new_tokens or task.MAX_NEW_TOKENS,
    )


def data(parts: Parts) -> tuple[Mapping[Split, list[Example]], list[str]]:
    """The examples by split, limited and checked, and warnings about them.

    Raises:
        DataError: they cannot be read, a split is empty, or splits overlap.
    """
    settings = parts.settings
    loaded = parts.task.load(settings, parts.place)
    chosen = splits.limited(loaded, settings.limit, settings.seed)
    warnings = splits.check(chosen, seed_arrangement=settings.splits == "seed")
    return chosen, warnings


def data_dir(bakeoff: BakeOff) -> Path | None:
    """Local data sets: `data_dir:` of the file, else the environment's TUNEOFF_DATA.

    Raises:
        DataError: the folder does not exist.
    """
    written = bakeoff.data_dir or os.environ.get(DATA_VARIABLE)
    if not written:
        return None
    folder = bakeoff.path(written) if bakeoff.data_dir else Path(written).expanduser().resolve()
    if not folder.is_dir():
        source = "data_dir" if bakeoff.data_dir else DATA_VARIABLE
        raise DataError(f"{source}: there is no folder {folder}; check the path.")
    return folder


def _with_source(settings: TaskSettings, task: Task) -> TaskSettings:
    """Settings with the source filled in."""
    if not task.SOURCES:
        if settings.source is not None:
            raise ConfigError(
                f"task.source: {settings.id} reads your own files and has no source; drop it."
            )
        return settings
    source = settings.source or task.SOURCES[0]
    if source not in task.SOURCES:
        raise ConfigError(f"task.source: {unknown('source', source, task.SOURCES)}.")
    for key in ("train", "validation", "test", "columns"):
        if getattr(settings, key) is not None:
            raise ConfigError(f"task.{key}: only chat reads your own files; use id: chat.")
    return settings.model_copy(update={"source": source})
