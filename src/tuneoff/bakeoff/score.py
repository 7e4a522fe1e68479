"""Scores predictions from any source: `tuneoff score` and `tuneoff.score`."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from tuneoff.bakeoff import prepare
from tuneoff.bakeoff.references import MAX_NAMED, advise, name_unusable
from tuneoff.config.contenders import ContenderConfig, PromptedConfig
from tuneoff.config.schema import BakeOff, TaskConfig
from tuneoff.errors import ConfigError, DataError, explain_unknown
from tuneoff.progress import Progress, SilentProgress, Step
from tuneoff.records import ScoredRow, to_dict, to_row
from tuneoff.results import TESTS_RULE, Score
from tuneoff.scoring.aggregate import (
    Breakdown,
    ScoreTotals,
    find_error_class,
    merge_answers,
    sort_by_count,
)
from tuneoff.scoring.base import (
    RULES,
    MetricKind,
    Options,
    Scorer,
    ScoringInput,
    ScoringMode,
    ThoughtCounter,
    find_reason_left_out,
    get_primary_metric,
    load_scorer,
)
from tuneoff.scoring.pairs import TESTS_VERSION
from tuneoff.scoring.predictions_file import References, check_rows, read_rows
from tuneoff.scoring.sql.derived_databases import derive_suites
from tuneoff.storage.databases import hash_databases
from tuneoff.storage.files import write_lines
from tuneoff.tasks.base import load_task

MODES = ("official", "strict")


def score(
    task: str,
    predictions: Path | str,
    databases: Path | str | None = None,
    mode: ScoringMode = "strict",
    workers: int | None = None,
    source: str | None = None,
) -> dict[str, Score]:
    """Return every metric of the task over a JSONL file of predictions.

    A row is `{"id", "prediction"}`, judged against the task's own test set (of `source`). Or it
    brings its own `reference`, and `meta` (for instance `db_id`).

    Raises:
        ConfigError: unknown task, source or mode.
        DataError: a row cannot be used; the message names file and line.
    """
    how = ScoreOptions(databases=databases, mode=mode, workers=workers, source=source)
    return _score_predictions(task, Path(predictions), how, None, SilentProgress()).scores


@dataclass(frozen=True, slots=True)
class ScoreOptions:
    """How to score a file."""

    databases: Path | str | None = None
    mode: str = "strict"
    workers: int | None = None
    source: str | None = None
    metrics: tuple[str, ...] | None = None
    """The metrics to compute; None: all."""
    derive: int = 0
    """The number of databases to derive from each one for its test suite."""
    seconds: float = 5.0
    """Time limit per query, in seconds."""
    memory_bytes: int = 1_000_000_000
    """Memory limit per query, in bytes."""


def score_file(
    task: str,
    predictions: Path | str,
    how: ScoreOptions,
    out: Path | str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score a file, write the scored rows to `out`, and return plain values.

    Rows are written as they come, and not kept in memory unless an example has several answers.
    Beside the values of `score` there are:

    - `missing`: examples of the task's own test set without a prediction
    - `left_out`: rows whose reference cannot be used, not counted in `n`; `left_out_first` has the
      reasons of the first ones
    - `error_classes` and `breakdowns` (by hardness, and by every `meta` key with a handful of
      values): of `primary_metric`
    - `database_sha256`: the databases that answers were executed on
    - `warnings`: what the figures do not show
    - `rules`: the versions of the scoring rules
    - `samples`: the most answers that an example has; its score is their mean
    - `samples_disagree`: of the examples with several answers, the share whose answers differ in
      score
    """
    into = Path(out) if out is not None else None
    scored = _score_predictions(task, Path(predictions), how, into, progress or SilentProgress())
    return {
        "n": scored.n,
        "scores": {metric: to_dict(score) for metric, score in scored.scores.items()},
        "missing": scored.missing,
        "left_out": scored.left_out,
        "left_out_first": scored.left_out_first,
        "mode": how.mode,
        "primary_metric": scored.primary_metric,
        "error_classes": scored.error_classes,
        "breakdowns": scored.breakdowns,
        "database_sha256": scored.database_sha256,
        "warnings": scored.warnings,
        "samples": scored.samples,
        "samples_disagree": scored.samples_disagree,
        "rules": {**RULES, TESTS_RULE: TESTS_VERSION},
    }


@dataclass(frozen=True, slots=True)
class _ScoredFile:
    """The totals after the last row."""

    n: int
    scores: dict[str, Score]
    missing: int
    left_out: int
    left_out_first: dict[str, str]
    primary_metric: str
    error_classes: dict[str, int]
    breakdowns: dict[str, dict[str, dict[str, dict[str, Any]]]]
    database_sha256: dict[str, str]
    warnings: list[str]
    samples: int
    samples_disagree: float | None


def _score_predictions(
    task: str, predictions: Path, how: ScoreOptions, out: Path | None, progress: Progress
) -> _ScoredFile:
    if how.mode not in MODES:
        raise ConfigError(f"--mode: {explain_unknown('mode', how.mode, MODES)}.")
    scorer = load_scorer(load_task(task).SCORER)
    _check_options(how, scorer, predictions, out)
    folder = Path(how.databases) if how.databases is not None else None
    if folder is not None and not folder.is_dir():
        raise DataError(f"--databases: there is no folder {folder}; check the path.")
    parts = None if _has_reference(predictions) else find_own_test_set(task, how.source)
    try:
        references = _read_references(parts) if parts else None
    except DataError as error:
        raise DataError(
            f'{error} (Rows without a "reference" of their own need the task\'s test set.)'
        ) from None
    count, samples = check_rows(predictions, references)
    with TemporaryDirectory() as made:
        if parts is not None and folder is None:
            folder = parts.task.databases(parts.settings, parts.place, Path(made) / "databases")
        derived = None
        if how.derive:
            derived = Path(made) / "derived"
            _derive_databases(how.derive, folder, derived, read_rows(predictions, references))
        options = Options(
            databases=folder,
            derived=derived,
            mode=cast(ScoringMode, how.mode),
            workers=how.workers,
            metrics=how.metrics,
            time_limit_seconds=how.seconds,
            memory_limit_bytes=how.memory_bytes,
        )
        rows = read_rows(predictions, references)
        step = progress.stage("scoring", count)
        cluster = load_task(task).CLUSTER
        return _score_stream(scorer, rows, options, references, out, step, how, cluster, samples)


def _check_options(how: ScoreOptions, scorer: Scorer, predictions: Path, out: Path | None) -> None:
    """Raise if an option would have no effect or do harm."""
    for metric in how.metrics or ():
        if metric not in scorer.METRICS:
            raise ConfigError(f"--metric: {explain_unknown('metric', metric, scorer.METRICS)}.")
    if out is not None and out.is_dir():
        raise ConfigError(f"--out: {out} is a folder; give the name of a file.")
    if out is not None and out.exists() and predictions.exists() and out.samefile(predictions):
        raise ConfigError(f"--out: {out} holds the predictions themselves; give another file.")
    if "execution_accuracy" not in scorer.METRICS:
        options = {"mode": how.mode != "strict", "databases": how.databases, "derive": how.derive}
        for name, there in options.items():
            if there:
                raise ConfigError(f"--{name}: only tasks whose answers are SQL have it; drop it.")


def _derive_databases(
    count: int, folder: Path | None, into: Path, rows: Iterable[ScoringInput]
) -> None:
    if folder is None:
        raise DataError("--derive: there are no databases to derive from; give --databases.")
    golds = []
    for row in rows:
        if not isinstance(row.meta.get("db_id"), str):
            raise DataError(
                f'id {row.id!r}: the row has no meta "db_id", which names its database.'
            )
        golds.append((row.meta["db_id"], row.reference))
    derive_suites(folder, dict.fromkeys(golds), into, count)


def explain_rows_left_out(
    count: int, of: int, reasons: Mapping[str, str], how: ScoreOptions
) -> str:
    """Return a sentence with the number of rows left out, and advice."""
    seconds, memory = f"--seconds ({how.seconds:g})", f"--memory-gb ({how.memory_bytes / 1e9:g})"
    return (
        f"{count} of the {of} references cannot be used, so their rows are left out: "
        f"{name_unusable(reasons, count)}. {advise(reasons, seconds, memory)}."
    )


def _score_stream(
    scorer: Scorer,
    rows: Iterable[ScoringInput],
    options: Options,
    references: References | None,
    out: Path | None,
    step: Step,
    how: ScoreOptions,
    cluster: str | None,
    samples: int,
) -> _ScoredFile:
    """Score the rows one by one, count and write them, and return the totals."""
    metric = get_primary_metric(scorer, options)
    if options.metrics is not None and metric not in options.metrics:
        metric = options.metrics[0]
    wanted = options.metrics or tuple(scorer.METRICS)
    kinds = {name: kind for name, kind in scorer.METRICS.items() if name in wanted}
    counts = _ScoreCounts(kinds, metric, getattr(scorer, "ERROR_CLASSES", None), samples)
    known_groups = getattr(scorer, "groups", None)
    waiting: deque[ScoringInput] = deque()
    thoughts = ThoughtCounter(options.mode)
    errors, found_ids, db_ids = set[str](), set[str](), set[str]()
    done, left_out, reasons = 0, set[str](), dict[str, str]()

    def read() -> Iterator[ScoringInput]:
        for row in rows:
            waiting.append(row)
            thoughts.add(row)
            yield row

    def scored() -> Iterator[ScoredRow]:
        nonlocal done
        for result in scorer.score_rows(read(), options):
            if options.metrics is not None:  # not every scorer drops the other metrics
                scores = {name: value for name, value in result.scores.items() if name in wanted}
                result = replace(result, scores=scores)
            row = waiting.popleft()
            result, done = replace(result, sample=row.sample), done + 1
            step(done)
            if references is not None:
                found_ids.add(row.id)
            if "db_id" in row.meta:
                db_ids.add(str(row.meta["db_id"]))
            reason = find_reason_left_out(result)
            if reason is not None:
                left_out.add(row.id)
                if len(reasons) < MAX_NAMED:
                    reasons[row.id] = reason
                yield result
                continue
            if row.error is not None:
                errors.add(row.id)
            held = None if cluster is None else str(row.meta.get(cluster, f"id {row.id}"))
            more = known_groups(row, options) if known_groups else {}
            counts.add(result, {**row.meta, **more}, held)
            yield result

    if out is not None:
        write_lines(out, map(to_row, scored()))
    else:
        deque(scored(), maxlen=0)
    counts.finish(left_out)
    totals = counts.totals
    if not totals.n and left_out:
        sentence = explain_rows_left_out(len(left_out), len(left_out), reasons, how)
        raise DataError(f"{sentence} Nothing was scored.")
    hashes = hash_databases(options.databases, db_ids, options.derived) if options.databases else {}
    measured = {
        name: score for name, score in totals.scores(len(errors - left_out)).items() if score.n
    }
    for name in options.metrics or ():
        if name not in measured:
            needs = "several databases (--derive)" if "suite" in name else "--databases"
            raise DataError(f"--metric: {name} needs {needs}; nothing was measured.")
    return _ScoredFile(
        n=totals.n,
        scores=measured,
        missing=sum(id not in found_ids for id in references or ()),
        left_out=len(left_out),
        left_out_first=reasons,
        primary_metric=metric,
        error_classes=sort_by_count(counts.classes),
        breakdowns={
            key: {group: {m: to_dict(s) for m, s in scores.items()} for group, scores in by.items()}
            for key, by in counts.breakdown.scores().items()
        },
        database_sha256=hashes,
        warnings=[*thoughts.warnings(), *counts.warnings()],
        samples=samples,
        samples_disagree=counts.find_disagreement(),
    )


class _ScoreCounts:
    """Counts scored rows, one example at a time.

    The answers to one example may lie anywhere in the file, so with several samples they are kept
    until its end.
    """

    def __init__(
        self,
        kinds: Mapping[str, MetricKind],
        metric: str,
        names: Mapping[str, str] | None,
        samples: int,
    ) -> None:
        self.totals, self.classes = ScoreTotals(kinds, answers=samples), Counter[str]()
        self.breakdown = Breakdown(metric, kinds[metric], answers=samples)
        self._metric, self._names, self._samples = metric, names, samples
        self._kept: dict[str, list[tuple[ScoredRow, Mapping[str, Any], str | None]]] = {}
        self._compared = self._different = self._uneven = 0

    def add(self, row: ScoredRow, groups: Mapping[str, Any], cluster: str | None) -> None:
        """Count a row, or keep it until its example is complete."""
        if self._samples == 1:
            self._count([row], groups, cluster)
        else:
            self._kept.setdefault(row.id, []).append((row, groups, cluster))

    def finish(self, left_out: Collection[str] = ()) -> None:
        """Count the kept examples, except those that were left out."""
        for id in left_out:
            self._kept.pop(id, None)
        for answers in self._kept.values():
            answers.sort(key=lambda answer: answer[0].sample)
            rows, (_, groups, cluster) = [row for row, _, _ in answers], answers[0]
            self._count(rows, groups, cluster)
            values = [float(row.scores[self._metric]) for row in rows if self._metric in row.scores]
            self._compared += len(values) > 1
            self._different += len(set(values)) > 1
            self._uneven += len(rows) < self._samples

    def _count(
        self, rows: Sequence[ScoredRow], groups: Mapping[str, Any], cluster: str | None
    ) -> None:
        merged = merge_answers(rows)
        self.totals.add(merged, cluster)
        self.breakdown.add(merged, groups, cluster)
        wrong = find_error_class(rows[0], self._metric, self._names)
        if wrong is not None:
            self.classes[wrong] += 1

    def find_disagreement(self) -> float | None:
        """Return the share of repeatedly answered examples whose answers differ in score."""
        return self._different / self._compared if self._compared else None

    def warnings(self) -> list[str]:
        """Return a warning if some examples have fewer answers than others."""
        if not self._uneven:
            return []
        return [
            f"{self._uneven} of {len(self._kept)} examples have fewer than {self._samples} "
            "answers; their score is the mean of those that they have."
        ]


def _has_reference(predictions: Path) -> bool:
    """Return whether the first row has its own reference, so that no data set is needed."""
    if not predictions.is_file():
        return True  # check_rows says what is wrong
    with predictions.open(encoding="utf-8-sig", errors="replace") as stream:
        try:
            row = json.loads(next((line for line in stream if line.strip()), "null"))
        except ValueError:
            return True
    return not isinstance(row, dict) or "reference" in row


def find_own_test_set(task: str, source: str | None) -> prepare.ResolvedBakeOff:
    """Return the task with its data, found as for a bake-off file.

    Raises:
        DataError: the task reads files only and has no test set of its own.
    """
    if not load_task(task).SOURCES:
        raise DataError(
            f"task {task} has no test set of its own: each row of the predictions must bring its "
            '"reference".'
        )
    settings = TaskConfig(id=task, source=source)
    # Only the task part of a bake-off file matters for its data.
    nobody: tuple[ContenderConfig, ...] = (
        PromptedConfig(name="nobody", id="prompted", base="tiny"),
    )
    return prepare.resolve(BakeOff(name="score", task=settings, contenders=nobody))


def _read_references(parts: prepare.ResolvedBakeOff) -> References:
    examples, _ = prepare.load_examples(parts)
    return {example.id: (example.completion, example.meta) for example in examples["test"]}
