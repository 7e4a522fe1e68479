"""Scores answers: those of files, and those of runs by a metric that the runs do not have."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from tuneoff.bakeoff import prepare
from tuneoff.bakeoff.parity.paid_judge import open_judge, pay_judge
from tuneoff.bakeoff.parity.references import (
    AnswerFile,
    build_file_rows,
    join_examples,
    scan_answers,
)
from tuneoff.bakeoff.parity.sides import (
    AnswerSet,
    AnswerSource,
    ParityOptions,
    RunContender,
    ScoredAnswers,
    find_clusters,
    format_first_ids,
)
from tuneoff.bakeoff.score import MODES
from tuneoff.errors import ConfigError, DataError, explain_unknown
from tuneoff.progress import Progress
from tuneoff.records import Example, ScoredRow
from tuneoff.scoring import added_metrics
from tuneoff.scoring.aggregate import merge_answers
from tuneoff.scoring.base import (
    Options,
    Scorer,
    ScoringInput,
    ScoringMode,
    find_reason_left_out,
    get_primary_metric,
    load_scorer,
)
from tuneoff.scoring.custom import combine_scorers
from tuneoff.scoring.model_grader import ModelGrader
from tuneoff.tasks.base import load_task


def score_answers(
    places: Sequence[AnswerSource], how: ParityOptions, progress: Progress
) -> ScoredAnswers:
    """Return the sides with scores of the examples that the reference and any candidate answered.

    Raises:
        ConfigError: a metric, a mode or a task is unknown, or does not fit.
        DataError: a file cannot be used, or there is no common id.
    """
    task_id, folder, fallback = how.task or "chat", None, None
    cluster, mode = how.cluster, how.mode
    chosen = [each for each in places if isinstance(each, RunContender)]
    if chosen:
        from tuneoff.bakeoff.parity import runs

        bakeoff, fallback = runs.find_task(chosen)
        task_id, folder, cluster = bakeoff.task.id, bakeoff.folder, cluster or bakeoff.task.cluster
        mode = mode or bakeoff.task.mode
    task = load_task(task_id, folder)
    scorer, metric = _build_scorer(task.SCORER, how, fallback)
    of_runs = runs.read_examples(chosen, how.references is not None) if chosen else {}
    files = {each: scan_answers(each) for each in places if isinstance(each, Path)}
    rows_of = {each: runs.build_run_rows(each) for each in chosen}
    ids = [
        list(files[each].ids) if isinstance(each, Path) else _list_ids(rows_of[each])
        for each in places
    ]
    common = _find_common(places, ids)
    asked = replace(how, task=task_id, mode=mode)
    examples, parts = join_examples(list(files.values()), of_runs, common, asked)
    cluster = cluster or task.CLUSTER
    find_clusters(examples, cluster, how.cluster is not None)  # before a judge is paid
    with _prepare_databases(how, parts) as databases:
        sides = _score_sides(
            places, files, rows_of, examples, scorer, asked, databases, metric, progress
        )
    kinds = dict(scorer.METRICS)
    metric = metric or get_primary_metric(scorer, Options(databases=databases))
    measured = all(any(metric in r.scores for r in side.scored[0].values()) for side in sides)
    if not measured:
        raise DataError(_explain_unmeasured(metric, sides))
    warnings = [
        f"{side.name}: {side.incomplete} of {len(side.scored[0])} examples have fewer than "
        f"{side.samples} answers; their score is the mean of those that they have."
        for side in sides
        if side.incomplete
    ]
    if how.judge is not None and not any(each.inputs for each in examples.values()):
        warnings.append(
            "the judge was shown no task, for nothing says what was asked; give --references FILE "
            "with the messages."
        )
    return ScoredAnswers(sides, examples, metric, kinds, cluster, warnings)


def _build_scorer(id: str, how: ParityOptions, fallback: str | None) -> tuple[Scorer, str | None]:
    """Return the scorer of the chosen metrics, and the one that decides; None: the scorer's first.

    Raises:
        ConfigError: a metric is unknown, cannot be used or costs money.
    """
    own = load_scorer(id)
    added: list[Scorer] = []
    names: list[str] = []
    for metric in how.metrics:
        if metric.endswith(".py") and not Path(metric).is_file():
            raise ConfigError(f"--metric: there is no file {metric}; check the path.")
        made = added_metrics.build_added_scorer(metric, Path())
        if isinstance(made, ModelGrader):
            raise ConfigError(
                f"--metric: the grader {metric} asks a model, which costs money; give it as a "
                "metric of a bake-off file, or ask a judge (--judge FILE)."
            )
        if made is None and metric not in own.METRICS:
            raise ConfigError(
                f"--metric: {explain_unknown('metric', metric, own.METRICS)}, or a file: Python "
                "(.py) or a "
                "grader (.json, .yaml)."
            )
        added += [] if made is None else [made]
        names.append(metric if made is None else made.PRIMARY)
    if how.judge is not None:
        made = open_judge(how.judge)
        added.append(made)
        names.append(made.PRIMARY)
    if not names and fallback is not None:
        if fallback not in own.METRICS:
            raise ConfigError(
                f"the run is judged by {fallback}, which a file is not; give --metric (a metric of "
                "the task, or a Python file) or --judge FILE."
            )
        names = [fallback]
    needs_own = not added or any(name in own.METRICS for name in names)
    first, *others = [own, *added] if needs_own else added
    _check_options(how, first)
    return combine_scorers(first, others), names[0] if names else None


def _check_options(how: ParityOptions, scorer: Scorer) -> None:
    """Raise an error for an option that would do nothing."""
    if how.mode is not None and how.mode not in MODES:
        raise ConfigError(f"--mode: {explain_unknown('mode', how.mode, MODES)}.")
    if how.databases is not None and not how.databases.is_dir():
        raise DataError(f"--databases: there is no folder {how.databases}; check the path.")
    if "execution_accuracy" not in scorer.METRICS:
        for name in ("mode", "databases"):
            if getattr(how, name) is not None:
                raise ConfigError(f"--{name}: only metrics of SQL have it; drop it.")


def _list_ids(rows: Sequence[Sequence[ScoringInput]]) -> dict[str, None]:
    """Return the ids of rows, in order."""
    return dict.fromkeys(row.id for row in rows[0])


def _find_common(places: Sequence[AnswerSource], ids: Sequence[Collection[str]]) -> dict[str, None]:
    """Return the ids that the reference and any candidate have, in the reference's order."""
    reference, *candidates = ids
    there = {id for each in candidates for id in each}
    for place, each in zip(places[1:], candidates, strict=True):
        if not set(each) & set(reference):
            name = place.name if isinstance(place, RunContender) else place
            other = places[0].name if isinstance(places[0], RunContender) else places[0]
            raise DataError(
                f"{other} and {name} have no id in common "
                f"({format_first_ids(list(reference)[:1])} in "
                f"one, {format_first_ids(list(each)[:1])} in the other); answers are joined by id."
            )
    return {id: None for id in reference if id in there}


@contextmanager
def _prepare_databases(
    how: ParityOptions, parts: prepare.ResolvedBakeOff | None
) -> Iterator[Path | None]:
    """Give the folder of databases: the given one, else the task's own, if any."""
    if how.databases is not None or parts is None:
        yield how.databases
        return
    with TemporaryDirectory() as made:
        yield parts.task.databases(parts.settings, parts.place, Path(made) / "databases")


def _score_sides(
    places: Sequence[AnswerSource],
    files: Mapping[Path, AnswerFile],
    rows_of: Mapping[RunContender, list[list[ScoringInput]]],
    examples: Mapping[str, Example],
    scorer: Scorer,
    how: ParityOptions,
    databases: Path | None,
    metric: str | None,
    progress: Progress,
) -> list[AnswerSet]:
    """Return the sides with their scores."""
    wanted = tuple(name for name in how.metrics if name in scorer.METRICS)
    options = Options(
        databases=databases,
        mode=cast(ScoringMode, how.mode or "strict"),
        workers=how.workers,
        metrics=wanted if how.metrics and len(wanted) == len(how.metrics) else None,
        time_limit_seconds=how.seconds,
        memory_limit_bytes=how.memory_bytes,
    )
    prepared: list[tuple[str, Collection[str], list[list[ScoringInput]], int]] = []
    for place in places:
        if isinstance(place, RunContender):
            rows = [list(join_rows(each, examples)) for each in rows_of[place]]
            samples = 1 + max(row.sample for row in rows[0])
            prepared.append((place.name, _list_ids(rows_of[place]), rows, samples))
        else:
            found, samples = build_file_rows(files[place], examples)
            prepared.append((str(place), files[place].ids, [found], samples))
    paid = nullcontext(options)
    if how.judge is not None:
        paid = pay_judge(how.judge, options, how.budget_usd, how.yes, progress)  # type: ignore[assignment]
    with paid as used:
        return [_score_side(*each, scorer, used, progress) for each in prepared]


def join_rows(
    rows: Sequence[ScoringInput], examples: Mapping[str, Example]
) -> Iterator[ScoringInput]:
    """Yield a run's rows of these examples, with their references."""
    for row in rows:
        if row.id in examples:
            of = examples[row.id]
            yield replace(
                row,
                prediction=row.raw_prediction,
                reference=of.completion,
                meta=of.meta,
                inputs=of.inputs,
            )


def _score_side(
    name: str,
    ids: Collection[str],
    trainings: Sequence[Sequence[ScoringInput]],
    samples: int,
    scorer: Scorer,
    options: Options,
    progress: Progress,
) -> AnswerSet:
    """Return one side with its scores."""
    scored, left_out, incomplete = [], dict[str, str](), 0
    step, done = progress.stage(f"{name}: scoring", sum(map(len, trainings))), 0
    for rows in trainings:
        by_id: dict[str, list[ScoredRow]] = {}
        for row, result in zip(rows, scorer.score_rows(rows, options), strict=True):
            done += 1
            step(done)
            reason = find_reason_left_out(result)
            if reason is not None:
                left_out.setdefault(row.id, reason)
            by_id.setdefault(row.id, []).append(replace(result, sample=row.sample))
        fewer = [id for id, each in by_id.items() if len(each) < samples and id not in left_out]
        incomplete = max(incomplete, len(fewer))
        scored.append({
            id: merge_answers(sorted(each, key=lambda row: row.sample))
            for id, each in by_id.items() if id not in left_out
        })  # fmt: skip
    first = [row for row in trainings[0] if row.sample == 0] or trainings[0]
    return AnswerSet(
        name=name,
        ids=ids,
        answers={row.id: row.raw_prediction for row in first},
        scored=scored,
        samples=samples,
        errors={row.id for row in trainings[0] if row.error is not None},
        left_out=left_out,
        incomplete=incomplete,
    )


def _explain_unmeasured(metric: str, sides: Sequence[AnswerSet]) -> str:
    """Return why a metric measured nothing."""
    reasons = {id: why for side in sides for id, why in side.left_out.items()}
    if reasons and all(not side.scored[0] for side in sides):
        id, why = next(iter(reasons.items()))
        return f"none of the references can be used ({id}: {why}); nothing was scored."
    return f"--metric: {metric} measured nothing; a metric that executes SQL needs --databases."
