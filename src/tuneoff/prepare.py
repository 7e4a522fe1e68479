"""Everything a run needs, looked up and checked before anything is written or spent."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tuneoff.config import BakeOff, JudgeSettings, TaskSettings
from tuneoff.contender_settings import RecordedSettings
from tuneoff.contenders import Work, lengths, load_contender
from tuneoff.costs.pricebook import PriceBook, book
from tuneoff.databases import find_committed, find_database
from tuneoff.errors import ConfigError, DataError, unknown
from tuneoff.progress import Silent
from tuneoff.prompts import Template
from tuneoff.records import SPLITS, Example, Split
from tuneoff.rundir import NOWHERE
from tuneoff.scoring import Options, Scorer, load_scorer, primary_metric
from tuneoff.scoring.combined import combined
from tuneoff.scoring.judge import Judge
from tuneoff.scoring.own import OwnMetric
from tuneoff.scoring.power import describe_power
from tuneoff.tasks import Place, Task, load_task, splits

DATA_VARIABLE = "TUNEOFF_DATA"


@dataclass(frozen=True, slots=True)
class Parts:
    """A bake-off file with its ids resolved. `metrics` are the ones it asks for (none: all),
    `cluster` the `meta` key that a test of a difference goes by."""

    bakeoff: BakeOff
    task: Task
    settings: TaskSettings
    scorer: Scorer
    template: Template
    place: Place
    max_new_tokens: int
    metrics: tuple[str, ...]
    cluster: str | None

    def deciding_metric(self, options: Options) -> str:
        """Return the metric by which contenders are compared: the first that is asked for."""
        return self.metrics[0] if self.metrics else primary_metric(self.scorer, options)


def parts(bakeoff: BakeOff) -> Parts:
    """Resolves task, source, metrics and contender kinds. Reads no data.

    Raises:
        ConfigError: an id is unknown, a base or a file is not there, a key does not fit.
    """
    task = load_task(bakeoff.task.id, bakeoff.folder)
    settings = _with_source(bakeoff.task, task)
    scorer = load_scorer(task.SCORER)
    asked = list(settings.metrics or ())
    added = [build_added(metric, bakeoff.folder) for metric in asked]
    scorer = combined(scorer, [each for each in added if each is not None])
    metrics = [
        str(metric) if each is None else each.PRIMARY
        for metric, each in zip(asked, added, strict=True)
    ]
    for metric in metrics:
        if metric not in scorer.METRICS:
            raise ConfigError(f"task.metrics: {unknown('metric', metric, scorer.METRICS)}.")
    for contender in bakeoff.contenders:
        load_contender(contender.id).check(contender, bakeoff.folder)
    price_book(bakeoff)
    template = task.template(settings)
    _check_settings(bakeoff, settings, template, scorer)
    return Parts(
        bakeoff=bakeoff,
        task=task,
        settings=settings,
        scorer=scorer,
        template=template,
        place=Place(bakeoff.folder, data_dir(bakeoff)),
        max_new_tokens=settings.max_new_tokens or task.MAX_NEW_TOKENS,
        metrics=tuple(metrics),
        cluster=settings.cluster or task.CLUSTER,
    )


def build_added(metric: str | JudgeSettings, folder: Path) -> Scorer | None:
    """Return the scorer of a metric that the task's own one does not have; None for an id of it."""
    if isinstance(metric, JudgeSettings):
        return Judge(metric)
    return OwnMetric((folder / metric).resolve()) if metric.endswith(".py") else None


def build_free_scorer(parts: Parts) -> Scorer:
    """Return the scorer of a bake-off file without its judge, which would have to be paid."""
    free = [each for each in parts.settings.metrics or () if isinstance(each, str)]
    added = (build_added(metric, parts.bakeoff.folder) for metric in free)
    return combined(load_scorer(parts.task.SCORER), [each for each in added if each is not None])


def build_options(parts: Parts, databases: Path | None, derived: Path | None = None) -> Options:
    """Return how a bake-off file's answers are scored, on these databases."""
    settings = parts.settings
    return Options(
        databases=databases,
        derived=derived,
        mode=settings.mode,
        time_limit_seconds=settings.seconds,
        memory_limit_bytes=round(settings.memory_gb * 1e9),
    )


def data(parts: Parts) -> tuple[Mapping[Split, list[Example]], list[str]]:
    """The examples by split, limited and checked, and warnings about them.

    Raises:
        DataError: they cannot be read, a split is empty, splits overlap, or an example does
            not fit into a base.
    """
    if only_figures(parts.bakeoff):
        line = "no examples are read: every contender is figures that were reported elsewhere."
        return {split: [] for split in SPLITS}, [line]
    chosen, warnings = choose_examples(parts)
    places = getattr(parts.task, "places", None)
    warnings += splits.check(
        chosen,
        parts.settings.splits == "seed",
        partial(places, parts.settings, parts.place) if places else None,
    )
    warnings += _databases(parts, chosen["test"])
    _check_cluster(parts, chosen["test"])
    warnings += _lengths(parts, chosen)
    return chosen, warnings


def choose_examples(parts: Parts) -> tuple[Mapping[Split, list[Example]], list[str]]:
    """Read the examples; return them by split, limited and not yet checked, and warnings about the
    splits.

    Raises:
        DataError: they cannot be read.
    """
    settings = parts.settings
    warnings: list[str] = []
    place = replace(parts.place, warn=warnings.append)
    loaded = parts.task.load(settings, place)
    complete, lines = splits.with_validation(loaded, parts.task.CLUSTER, settings.seed)
    if settings.drop_overlap and settings.splits != "seed":
        complete, dropped = splits.drop_overlap(complete)
        lines += dropped
    chosen = splits.limited(complete, settings.limit, settings.seed)
    return chosen, [*warnings, *lines, *_carved_by_chat(settings, complete)]


def is_local(parts: Parts) -> bool:
    """Say whether the examples are on this machine, or made here."""
    if only_figures(parts.bakeoff):
        return True
    return parts.settings.source in (None, "sample") or parts.place.data_dir is not None


def only_figures(bakeoff: BakeOff) -> bool:
    """Whether there is nothing to tune, answer or score."""
    return all(
        isinstance(contender, RecordedSettings) and contender.predictions is None
        for contender in bakeoff.contenders
    )


def what_can_be_shown(parts: Parts, test: Sequence[Example]) -> str:
    """One sentence about the smallest difference that the test set can show."""
    sizes = None
    if parts.cluster is not None:
        sizes = list(Counter(str(example.meta[parts.cluster]) for example in test).values())
    return describe_power(len(test), sizes, len(parts.bakeoff.contenders), parts.cluster)


def _carved_by_chat(settings: TaskSettings, examples: Mapping[Split, list[Example]]) -> list[str]:
    """A line about the splits that your own data came without."""
    missing: list[Split] = ["validation", "test"]
    carved = [s for s in missing if settings.id == "chat" and getattr(settings, s) is None]
    if not carved:
        return []
    counted = " and ".join(f"{len(examples[split])} {split}" for split in carved)
    files = " and ".join(f"task.{split}" for split in carved)
    return [f"{counted} examples were carved out of train; {files} would name files of their own."]


def build_work(parts: Parts, examples: Mapping[Split, Sequence[Example]]) -> Work:
    """Return the work of a contender of which nothing is kept."""
    return Work(
        folder=parts.bakeoff.folder,
        train=examples["train"],
        validation=examples["validation"],
        test=examples["test"],
        template=parts.template,
        prompt=parts.settings.prompt,
        max_new_tokens=parts.max_new_tokens,
        directory=NOWHERE,
        progress=Silent(),
    )


def _lengths(parts: Parts, examples: Mapping[Split, list[Example]]) -> list[str]:
    """Every example must fit into every base; warnings, each of them once."""
    mine = build_work(parts, examples)
    found = (lengths.check(contender, mine) for contender in parts.bakeoff.contenders)
    return list(dict.fromkeys(line for lines in found for line in lines))


def _databases(parts: Parts, test: Sequence[Example]) -> list[str]:
    """Check that every database of the test set is there and readable; return a warning when there
    are none at all. Those of a sample are generated later, so there is nothing to look for."""
    if parts.settings.source == "sample" and parts.settings.databases is None:
        return []
    folder = parts.task.databases(parts.settings, parts.place, Path())
    if folder is not None:
        for db_id in sorted({str(example.meta["db_id"]) for example in test}):
            find_committed(find_database(folder, db_id))
    elif parts.task.SCORER == "sql":
        if "execution_accuracy" in parts.metrics:
            raise DataError(
                "task.metrics: execution_accuracy needs databases, and there are none; set "
                "task.databases to the folder of <db_id>/*.sqlite."
            )
        return ["no databases: nothing will be executed and exact_match decides (task.databases)."]
    return []


def _check_cluster(parts: Parts, test: Sequence[Example]) -> None:
    """Every test example must say which cluster it belongs to."""
    lacking = next((e for e in test if parts.cluster and parts.cluster not in e.meta), None)
    if lacking is not None:
        raise DataError(
            f"task.cluster: example {lacking.id!r} has no {parts.cluster!r} in its meta "
            f"(it has: {', '.join(sorted(lacking.meta)) or 'nothing'}); name a key that every test "
            "example has."
        )


def _check_settings(
    bakeoff: BakeOff, settings: TaskSettings, template: Template, scorer: Scorer
) -> None:
    """Refuses settings that would silently do nothing."""
    if settings.splits == "seed" and (settings.source or "sample") == "sample":
        raise ConfigError(
            "task.splits: seed is the arrangement of viggo and spider-create-context; drop it."
        )
    if settings.context == "schema" and settings.source != "spider-create-context":
        raise ConfigError("task.context: schema is for source: spider-create-context; drop it.")
    if settings.columns is not None and settings.id != "chat":
        raise ConfigError("task.columns: only chat reads your own files; use id: chat.")
    for key in ("mode", "derived_databases", "seconds", "memory_gb"):
        default = TaskSettings.model_fields[key].default
        if getattr(settings, key) != default and "test_suite_accuracy" not in scorer.METRICS:
            raise ConfigError(f"task.{key}: only tasks whose answers are SQL have it; drop it.")
    short = settings.prompt == "short" or any(c.prompt == "short" for c in bakeoff.contenders)
    if short and template.short() == template:
        raise ConfigError(f"prompt: short drops an instruction, and {settings.id} has none.")
    for contender in bakeoff.contenders:
        for metric in getattr(contender, "scores", None) or ():
            if metric not in scorer.METRICS:
                raise ConfigError(
                    f"contender {contender.name}: {unknown('metric', metric, scorer.METRICS)}."
                )


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


def price_book(bakeoff: BakeOff) -> PriceBook:
    """The price book, behind the file's own `prices:`.

    Raises:
        ConfigError: that file cannot be read.
    """
    return book(bakeoff.path(bakeoff.prices) if bakeoff.prices else None)


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
