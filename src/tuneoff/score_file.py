"""Scoring predictions that were made anywhere: `tuneoff score` and `tuneoff.score`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from tuneoff import prepare
from tuneoff.config import BakeOff, ContenderSettings, PromptedSettings, TaskSettings
from tuneoff.errors import ConfigError, DataError, unknown
from tuneoff.records import Score, ScoredRow, to_dict
from tuneoff.rundir import write_lines
from tuneoff.scoring import Options, load_scorer
from tuneoff.scoring.aggregate import aggregate
from tuneoff.scoring.rows import Mode, Row
from tuneoff.scoring.stored import References, read_rows
from tuneoff.tasks import load_task

MODES = ("official", "strict")


def score(
    task: str,
    predictions: Path | str,
    databases: Path | str | None = None,
    mode: Mode = "strict",
    workers: int | None = None,
    source: str | None = None,
) -> dict[str, Score]:
    """Every metric of the task over a JSONL file of predictions.

    Rows are `{"id", "prediction"}`, judged by the task's own test set (of `source`), or
    bring `reference` (and `meta`, for instance `db_id`) with them.

    Raises:
        ConfigError: unknown task, source or mode.
        DataError: a row cannot be used; the message names file and line.
    """
    rows = _scored(task, Path(predictions), databases, mode, workers, source)
    return rows.scores


def score_file(
    task: str,
    predictions: Path | str,
    databases: Path | str | None = None,
    *,
    mode: str = "strict",
    workers: int | None = None,
    source: str | None = None,
    out: Path | str | None = None,
) -> dict[str, Any]:
    """`score` as plain values, and the scored rows written to `out`.

    `missing` counts the examples of the task's own test set that have no prediction.
    """
    found = _scored(task, Path(predictions), databases, mode, workers, source)
    if out is not None:
        write_lines(Path(out), map(to_dict, found.rows))
    scores = {metric: to_dict(score) for metric, score in found.scores.items()}
    return {"n": len(found.rows), "scores": scores, "missing": found.missing}


@dataclass(frozen=True, slots=True)
class _Scored:
    """Scored rows in the file's order, and the score of every metric that they have."""

    rows: list[ScoredRow]
    scores: dict[str, Score]
    missing: int


def _scored(
    task: str,
    predictions: Path,
    databases: Path | str | None,
    mode: str,
    workers: int | None,
    source: str | None,
) -> _Scored:
    if mode not in MODES:
        raise ConfigError(f"--mode: {unknown('mode', mode, MODES)}.")
    scorer = load_scorer(load_task(task).SCORER)
    folder = Path(databases) if databases is not None else None
    if folder is not None and not folder.is_dir():
        raise DataError(f"--databases: there is no folder {folder}; check the path.")
    parts = None if _brings_reference(predictions) else _own_test_set(task, source)
    references = _references(parts) if parts else None
    errors = 0

    def counted() -> Iterator[Row]:
        nonlocal errors
        for row in read_rows(predictions, references):
            errors += row.error is not None
            yield row

    with TemporaryDirectory() as generated:
        if parts is not None and folder is None:
            folder = parts.task.databases(parts.settings, parts.place, Path(generated))
        options = Options(databases=folder, mode=cast(Mode, mode), workers=workers)
        rows = list(scorer.score_rows(counted(), options))
    totals = aggregate(rows, scorer.METRICS, errors)
    scores = {metric: score for metric, score in totals.items() if score.n}
    known = {row.id for row in rows}
    return _Scored(rows, scores, sum(id not in known for id in references or ()))


def _brings_reference(predictions: Path) -> bool:
    """Whether the first row has its own reference, so that no data set is needed."""
    if not predictions.is_file():
        return True  # read_rows says what is wrong
    with predictions.open(encoding="utf-8-sig", errors="replace") as stream:
        try:
            row = json.loads(next((line for line in stream if line.strip()), "null"))
        except ValueError:
            return True
    return not isinstance(row, dict) or "reference" in row


def _own_test_set(task: str, source: str | None) -> prepare.Parts:
    """The task with its data, looked up as a bake-off file's would be."""
    if not load_task(task).SOURCES:
        raise DataError(
            f"task {task} has no test set of its own: each row of the predictions must bring its "
            '"reference".'
        )
    settings = TaskSettings(id=task, source=source)
    # Only the task part of a bake-off file matters for its data.
    nobody: tuple[ContenderSettings, ...] = (
        PromptedSettings(name="nobody", id="prompted", base="tiny"),
    )
    return prepare.parts(BakeOff(name="score", task=settings, contenders=nobody))


def _references(parts: prepare.Parts) -> References:
    examples, _ = prepare.data(parts)
    return {example.id: (example.completion, example.meta) for example in examples["test"]}
