"""Reads contenders of finished runs, with their stored scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tuneoff.bakeoff.compare import (
    ScoredRun,
    find_known_seeds,
    format_label,
    list_whole_dirs,
    read_scored_run,
)
from tuneoff.bakeoff.parity.sides import AnswerSet, RunContender, ScoredAnswers, refuse_differing
from tuneoff.config.schema import BakeOff
from tuneoff.contenders.samples import list_scored, split_by_sample
from tuneoff.errors import ConfigError, explain_unknown
from tuneoff.records import Example
from tuneoff.scoring.aggregate import average_samples
from tuneoff.scoring.base import ScoringInput, build_scoring_inputs, load_scorer
from tuneoff.scoring.llm_judge import Judge
from tuneoff.storage.resume import load_stored_bakeoff
from tuneoff.storage.run_dir import ContenderDir, RunDir
from tuneoff.tasks.base import load_task


def check_task(chosen: Sequence[RunContender], task: str | None) -> None:
    """Raise ConfigError if the runs have different tasks, or another one than is given."""
    tasks = {each.folder: load_stored_bakeoff(each.folder).task.id for each in chosen}
    first = next(iter(tasks.values()))
    if len(set(tasks.values())) > 1:
        said = ", ".join(f"{folder}: {name}" for folder, name in tasks.items())
        raise ConfigError(f"the runs have different tasks ({said}); give runs of one task.")
    if task not in (None, first):
        raise ConfigError(f"--task: the run's task is {first}; drop it.")


def read_stored(
    chosen: Sequence[RunContender], metrics: Sequence[str], cluster: str | None
) -> ScoredAnswers | None:
    """Return contenders with their stored scores; None if one lacks one of the metrics.

    Raises:
        ConfigError: the runs are judged by different metrics.
        DataError: an example is different in another run.
    """
    folders = {each.folder.resolve(): each.folder for each in chosen}
    primary = {str(f): RunDir(f).results().primary_metric for f in folders.values()}
    if not metrics and len(set(primary.values())) > 1:
        said = ", ".join(f"{folder} by {name}" for folder, name in primary.items())
        raise ConfigError(f"the runs are judged by different metrics ({said}); give --metric.")
    metric = metrics[0] if metrics else next(iter(primary.values()))
    runs = {key: read_scored_run(folder, metric) for key, folder in folders.items()}
    if any(not runs[each.folder.resolve()].values[each.contender] for each in chosen):
        return None
    first, *others = runs.values()
    for run in others:
        differing = [
            id for id in run.hashes if first.hashes.get(id, run.hashes[id]) != run.hashes[id]
        ]
        advice = "give runs on the same test set"
        refuse_differing(first.label, run.label, differing, "test example", advice)
    between = find_known_seeds(list(runs.values()))
    sides = [_read_side(each, runs[each.folder.resolve()], between) for each in chosen]
    if not all(_has_score(side, name) for side in sides for name in metrics):
        return None
    bakeoff = load_stored_bakeoff(chosen[0].folder)
    scorer = load_scorer(load_task(bakeoff.task.id, bakeoff.folder).SCORER)
    return ScoredAnswers(
        sides=sides,
        examples=read_examples(chosen),
        metric=metric,
        kinds={**scorer.METRICS, **Judge.METRICS},
        cluster=cluster or first.cluster or None,
        warnings=[],
    )


def _read_side(chosen: RunContender, run: ScoredRun, between: Mapping[str, Any]) -> AnswerSet:
    """Return a contender's answers with their stored scores."""
    settings, folders = _find_settings(chosen)
    left_out = run.results.left_out
    scored = (average_samples(list_scored(settings, each)) for each in folders)
    kept = ({id: row for id, row in rows.items() if id not in left_out} for rows in scored)
    samples = split_by_sample(settings, folders[0])
    return AnswerSet(
        name=chosen.name,
        ids=samples[0],
        answers={id: answer.prediction for id, answer in samples[0].items()},
        scored=[rows for rows in kept if rows],
        samples=len(samples),
        errors={id for id, answer in samples[0].items() if answer.error is not None},
        between=between[format_label(run, chosen.contender)],
        left_out=left_out,
    )


def _has_score(side: AnswerSet, metric: str) -> bool:
    """Return whether any answer has a score by a metric."""
    return any(metric in row.scores for rows in side.scored for row in rows.values())


def read_examples(chosen: Sequence[RunContender], only_inputs: bool = False) -> dict[str, Example]:
    """Return the test examples of runs by id. If runs differ, the first one's counts.

    Args:
        only_inputs: whether references may differ, because others take their place.

    Raises:
        DataError: an example is different in another run.
    """
    by_id: dict[str, Example] = {}
    folders = list(dict.fromkeys(each.folder for each in chosen))
    for folder in folders:
        differing = []
        for example in RunDir(folder).iterate_examples("test"):
            known = by_id.setdefault(example.id, example)
            is_same = known.inputs == example.inputs
            if not is_same or (not only_inputs and known.completion != example.completion):
                differing.append(example.id)
        advice = "give runs on the same test set"
        refuse_differing(str(folders[0]), str(folder), differing, "test example", advice)
    return by_id


def build_run_rows(chosen: RunContender) -> list[list[ScoringInput]]:
    """Return a contender's answers as rows to score, for each of its trainings."""
    run = RunDir(chosen.folder)
    left_out = run.results().left_out
    test = [each for each in run.examples("test") if each.id not in left_out]
    settings, folders = _find_settings(chosen)
    trainings = []
    for directory in folders:
        rows = []
        for sample, predictions in enumerate(split_by_sample(settings, directory)):
            rows += [
                ScoringInput(
                    r.id,
                    r.reference,
                    r.raw_prediction,
                    r.meta,
                    r.error,
                    r.inputs,
                    r.is_unfinished,
                    sample,
                )
                for r in build_scoring_inputs(test, predictions)
            ]
        if rows:
            trainings.append(rows)
    if not trainings:
        raise ConfigError(f"{chosen.folder}: {chosen.contender} has no answers; name another one.")
    return trainings


def find_task(chosen: Sequence[RunContender]) -> tuple[BakeOff, str]:
    """Return the bake-off of the first of these runs, and its primary metric."""
    folder = chosen[0].folder
    return load_stored_bakeoff(folder), RunDir(folder).results().primary_metric


def _find_settings(chosen: RunContender) -> tuple[Any, list[ContenderDir]]:
    """Return a contender's settings, and the directories of its trainings on all examples."""
    bakeoff = load_stored_bakeoff(chosen.folder)
    named = {each.name: each for each in bakeoff.contenders}
    if chosen.contender not in named:
        raise ConfigError(
            f"{chosen.folder}: {explain_unknown('contender', chosen.contender, named)}."
        )
    settings = named[chosen.contender]
    return settings, list_whole_dirs(RunDir(chosen.folder), settings)
