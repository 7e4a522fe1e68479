"""Everything a run needs, resolved and checked before anything is written or spent."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tuneoff.config.contenders import RecordedConfig
from tuneoff.config.schema import BakeOff, TaskConfig
from tuneoff.contenders import length_check
from tuneoff.contenders.base import ContenderContext, load_contender
from tuneoff.costs.contender_prices import load_price_book
from tuneoff.errors import ConfigError, DataError, explain_unknown
from tuneoff.progress import SilentProgress
from tuneoff.prompts import Template
from tuneoff.records import SPLITS, Example, Split
from tuneoff.scoring.added_metrics import build_added_scorer
from tuneoff.scoring.base import Options, Scorer, get_primary_metric, load_scorer
from tuneoff.scoring.custom import combine_scorers
from tuneoff.scoring.llm_judge import Judge
from tuneoff.scoring.model_grader import ModelGrader
from tuneoff.scoring.power import describe_power
from tuneoff.storage.databases import find_committed, find_database
from tuneoff.storage.run_dir import NULL_DIR
from tuneoff.tasks import splits
from tuneoff.tasks.base import DataPaths, Task, load_task

DATA_VARIABLE = "TUNEOFF_DATA"


@dataclass(frozen=True, slots=True)
class ResolvedBakeOff:
    """A bake-off file with its ids resolved."""

    bakeoff: BakeOff
    task: Task
    settings: TaskConfig
    scorer: Scorer
    template: Template
    place: DataPaths
    max_new_tokens: int
    metrics: tuple[str, ...]
    """The metrics that it asks for; empty: all."""
    cluster: str | None
    """The `meta` key whose groups a test of a difference resamples."""

    def get_deciding_metric(self, options: Options) -> str:
        """Return the metric by which contenders are compared: the first that is asked for."""
        return self.metrics[0] if self.metrics else get_primary_metric(self.scorer, options)


def resolve(bakeoff: BakeOff) -> ResolvedBakeOff:
    """Resolve task, source, metrics and contender kinds. No data is read.

    Raises:
        ConfigError: an id is unknown, a base or a file is missing, or a key does not fit.
    """
    task = load_task(bakeoff.task.id, bakeoff.folder)
    settings = _fill_source(bakeoff.task, task)
    scorer = load_scorer(task.SCORER)
    requested = list(settings.metrics or ())
    added = [build_added_scorer(metric, bakeoff.folder) for metric in requested]
    scorer = combine_scorers(scorer, [each for each in added if each is not None])
    metrics = [
        str(metric) if each is None else each.PRIMARY
        for metric, each in zip(requested, added, strict=True)
    ]
    for metric in metrics:
        if metric not in scorer.METRICS:
            raise ConfigError(f"task.metrics: {explain_unknown('metric', metric, scorer.METRICS)}.")
    for contender in bakeoff.contenders:
        load_contender(contender.id).check(contender, bakeoff.folder)
    load_price_book(bakeoff)
    template = task.template(settings)
    _check_settings(bakeoff, settings, template, scorer)
    return ResolvedBakeOff(
        bakeoff=bakeoff,
        task=task,
        settings=settings,
        scorer=scorer,
        template=template,
        place=DataPaths(bakeoff.folder, find_data_dir(bakeoff)),
        max_new_tokens=settings.max_new_tokens or task.MAX_NEW_TOKENS,
        metrics=tuple(metrics),
        cluster=settings.cluster or task.CLUSTER,
    )


def build_free_scorer(parts: ResolvedBakeOff) -> Scorer:
    """Return the scorer of a bake-off file without metrics that ask, and pay, a model."""
    added = (
        build_added_scorer(metric, parts.bakeoff.folder) for metric in parts.settings.metrics or ()
    )
    free = [metric for metric in added if not isinstance(metric, Judge | ModelGrader | None)]
    return combine_scorers(load_scorer(parts.task.SCORER), free)


def build_options(
    parts: ResolvedBakeOff, databases: Path | None, derived: Path | None = None
) -> Options:
    """Return how a bake-off file's answers are scored, on these databases."""
    settings = parts.settings
    return Options(
        databases=databases,
        derived=derived,
        mode=settings.mode,
        time_limit_seconds=settings.seconds,
        memory_limit_bytes=round(settings.memory_gb * 1e9),
    )


def load_examples(parts: ResolvedBakeOff) -> tuple[Mapping[Split, list[Example]], list[str]]:
    """Load the examples by split, limited and checked, with warnings about them.

    Raises:
        DataError: they cannot be read, a split is empty, splits overlap, or an example does not fit
            into a base.
    """
    if has_only_figures(parts.bakeoff):
        line = "no examples are read: every contender is figures that were reported elsewhere."
        return {split: [] for split in SPLITS}, [line]
    chosen, warnings = choose_examples(parts)
    places = getattr(parts.task, "places", None)
    warnings += splits.check_splits(
        chosen,
        parts.settings.splits == "seed",
        partial(places, parts.settings, parts.place) if places else None,
    )
    warnings += _check_databases(parts, chosen["test"])
    _check_cluster(parts, chosen["test"])
    warnings += _check_lengths(parts, chosen)
    return chosen, warnings


def choose_examples(parts: ResolvedBakeOff) -> tuple[Mapping[Split, list[Example]], list[str]]:
    """Load the examples by split, limited but not checked, with warnings about the splits.

    Raises:
        DataError: they cannot be read.
    """
    settings = parts.settings
    warnings: list[str] = []
    place = replace(parts.place, warn=warnings.append)
    loaded = parts.task.load(settings, place)
    complete, lines = splits.carve_validation(loaded, parts.task.CLUSTER, settings.seed)
    if settings.drop_overlap and settings.splits != "seed":
        complete, dropped = splits.drop_overlap(complete)
        lines += dropped
    chosen = splits.apply_limits(complete, settings.limit, settings.seed)
    return chosen, [*warnings, *lines, *_explain_carved_splits(settings, complete)]


def is_local(parts: ResolvedBakeOff) -> bool:
    """Return whether the examples are on this machine, or generated here."""
    if has_only_figures(parts.bakeoff):
        return True
    return parts.settings.source in (None, "sample") or parts.place.data_dir is not None


def has_only_figures(bakeoff: BakeOff) -> bool:
    """Return whether there is nothing to tune, answer or score."""
    return all(
        isinstance(contender, RecordedConfig) and contender.predictions is None
        for contender in bakeoff.contenders
    )


def describe_test_power(parts: ResolvedBakeOff, test: Sequence[Example]) -> str:
    """Explain in one sentence the smallest difference that the test set can show."""
    sizes = None
    if parts.cluster is not None:
        sizes = list(Counter(str(example.meta[parts.cluster]) for example in test).values())
    return describe_power(len(test), sizes, len(parts.bakeoff.contenders), parts.cluster)


def _explain_carved_splits(
    settings: TaskConfig, examples: Mapping[Split, list[Example]]
) -> list[str]:
    """Explain which splits were carved out of the user's training data."""
    missing: list[Split] = ["validation", "test"]
    carved = [s for s in missing if settings.id == "chat" and getattr(settings, s) is None]
    if not carved:
        return []
    counted = " and ".join(f"{len(examples[split])} {split}" for split in carved)
    files = " and ".join(f"task.{split}" for split in carved)
    return [f"{counted} examples were carved out of train; {files} would name files of their own."]


def build_context(
    parts: ResolvedBakeOff, examples: Mapping[Split, Sequence[Example]]
) -> ContenderContext:
    """Return the context of a contender that keeps nothing."""
    return ContenderContext(
        folder=parts.bakeoff.folder,
        train=examples["train"],
        validation=examples["validation"],
        test=examples["test"],
        template=parts.template,
        prompt=parts.settings.prompt,
        max_new_tokens=parts.max_new_tokens,
        directory=NULL_DIR,
        progress=SilentProgress(),
    )


def _check_lengths(parts: ResolvedBakeOff, examples: Mapping[Split, list[Example]]) -> list[str]:
    """Check that every example fits into every base; return distinct warnings."""
    contender_work = build_context(parts, examples)
    warnings_by_contender = (
        length_check.check_lengths(contender, contender_work)
        for contender in parts.bakeoff.contenders
    )
    return list(dict.fromkeys(line for lines in warnings_by_contender for line in lines))


def _check_databases(parts: ResolvedBakeOff, test: Sequence[Example]) -> list[str]:
    """Check that every database of the test set is readable; return a warning if there are none.

    A sample's databases are generated later, so there is nothing to check.
    """
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


def _check_cluster(parts: ResolvedBakeOff, test: Sequence[Example]) -> None:
    """Check that every test example names its cluster."""
    lacking = next((e for e in test if parts.cluster and parts.cluster not in e.meta), None)
    if lacking is not None:
        raise DataError(
            f"task.cluster: example {lacking.id!r} has no {parts.cluster!r} in its meta "
            f"(it has: {', '.join(sorted(lacking.meta)) or 'nothing'}); name a key that every test "
            "example has."
        )


def _check_settings(
    bakeoff: BakeOff, settings: TaskConfig, template: Template, scorer: Scorer
) -> None:
    """Raise ConfigError for settings that would silently do nothing."""
    if settings.splits == "seed" and (settings.source or "sample") == "sample":
        raise ConfigError(
            "task.splits: seed is the arrangement of viggo and spider-create-context; drop it."
        )
    if settings.context == "schema" and settings.source != "spider-create-context":
        raise ConfigError("task.context: schema is for source: spider-create-context; drop it.")
    if settings.columns is not None and settings.id != "chat":
        raise ConfigError("task.columns: only chat reads your own files; use id: chat.")
    for key in ("mode", "derived_databases", "seconds", "memory_gb"):
        default = TaskConfig.model_fields[key].default
        if getattr(settings, key) != default and "test_suite_accuracy" not in scorer.METRICS:
            raise ConfigError(f"task.{key}: only tasks whose answers are SQL have it; drop it.")
    short = settings.prompt == "short" or any(c.prompt == "short" for c in bakeoff.contenders)
    if short and template.drop_instruction() == template:
        raise ConfigError(f"prompt: short drops an instruction, and {settings.id} has none.")
    for contender in bakeoff.contenders:
        for metric in getattr(contender, "scores", None) or ():
            if metric not in scorer.METRICS:
                raise ConfigError(
                    f"contender {contender.name}: "
                    f"{explain_unknown('metric', metric, scorer.METRICS)}."
                )


def find_data_dir(bakeoff: BakeOff) -> Path | None:
    """Return the folder of local data sets: the file's `data_dir:`, else TUNEOFF_DATA.

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


def _fill_source(settings: TaskConfig, task: Task) -> TaskConfig:
    """Return the task's settings with the source filled in."""
    if not task.SOURCES:
        if settings.source is not None:
            raise ConfigError(
                f"task.source: {settings.id} reads your own files and has no source; drop it."
            )
        return settings
    source = settings.source or task.SOURCES[0]
    if source not in task.SOURCES:
        raise ConfigError(f"task.source: {explain_unknown('source', source, task.SOURCES)}.")
    for key in ("train", "validation", "test", "columns"):
        if getattr(settings, key) is not None:
            raise ConfigError(f"task.{key}: only chat reads your own files; use id: chat.")
    return settings.model_copy(update={"source": source})
