"""Scores text-to-SQL: does the query return what the reference returns?

The metrics are a ladder (`judge.py`), from the same characters to the same results on several
databases. `execution_accuracy` (Yu et al., EMNLP 2018) executes both queries on the row's own
database, `DIR/<db_id>/<db_id>.sqlite` or the only file there. `test_suite_accuracy` (Zhong et al.,
EMNLP 2020) executes them on every `DIR/<db_id>/*.sqlite`, if there are several. Without databases
nothing can be executed: rows lack both metrics, and `exact_match` decides. `mode: strict` compares
results as in `compare.py`; `mode: official` gives the official evaluator's verdicts (`official.py`,
`set_match.py`). Every prediction is read and executed in child processes that can only read
(`sandbox.py`).
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import cache, lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from tuneoff.errors import DataError, TuneoffError
from tuneoff.records import ScoredRow
from tuneoff.scoring.base import (
    MetricKind,
    Options,
    ScoringInput,
    build_left_out,
    build_unanswered,
    explain_no_answer,
    find_reason_left_out,
    shorten_text,
)
from tuneoff.scoring.sql.sandbox import MAX_SQL_BYTES, connect
from tuneoff.scoring.sql.set_match import classify_hardness
from tuneoff.scoring.sql.spider_parser import NotSpider, parse_spider
from tuneoff.scoring.sql.worker_pool import (
    DatabaseFile,
    JudgeReply,
    JudgeRequest,
    WorkerLimits,
    WorkerPool,
    get_shared_pool,
)
from tuneoff.storage.databases import find_committed, find_database, find_original, find_suite

METRICS: Mapping[str, MetricKind] = {
    "exact_match": "yes/no",
    "normalized_match": "yes/no",
    "sql_normal_form": "yes/no",
    "exact_set_match": "yes/no",
    "execution_accuracy": "yes/no",
    "test_suite_accuracy": "yes/no",
    "valid_format": "yes/no",
}
PRIMARY = "execution_accuracy"
# Verdicts in SQLite's words → our error classes.
ERROR_CLASSES = {
    "no such column": "unknown column",
    "no such table": "unknown table",
    "ambiguous column name": "unknown column",
    "syntax error": "does not parse",
    "not a query": "does not parse",
    "more than one statement": "does not parse",
}

Suite = tuple[DatabaseFile, ...]
ScoredWithDetails = tuple[ScoredRow, dict[str, Any] | None]

MAX_WORKERS = 4
# Rows per message to a child: enough to make the transfer cheap.
_BATCH_ROWS = 8
_TOO_LARGE = "too large"


def primary(options: Options) -> str:
    """Return the primary metric: execution accuracy, or exact match without databases."""
    return PRIMARY if options.databases is not None else "exact_match"


def score_rows(rows: Iterable[ScoringInput], options: Options) -> Iterator[ScoredRow]:
    """Yield every metric of each row, in order; at most a few rows are read ahead.

    A reference that does not run on its database leaves out its own row.

    Raises:
        DataError: a database is missing.
    """
    if options.databases is not None and not options.databases.is_dir():
        raise DataError(
            f"{options.databases}: there is no such folder; give the one that holds "
            "<db_id>/*.sqlite."
        )
    return _score_in_order(_RowScorer(options), rows, _get_pool(options))


def failing(rows: Iterable[ScoringInput], options: Options) -> Iterator[tuple[str, str]]:
    """Yield the id of each row whose reference does not run, and the reason.

    It is executed where it will be scored.

    Raises:
        DataError: a database is missing.
    """
    if options.databases is None:
        return
    for row in _score_in_order(_ReferenceExecutor(options), rows, _get_pool(options)):
        reason = find_reason_left_out(row)
        if reason is not None:
            yield row.id, reason


def _get_pool(options: Options) -> WorkerPool:
    workers = options.workers or min(MAX_WORKERS, os.cpu_count() or 1)
    return get_shared_pool(WorkerLimits(options.memory_limit_bytes, workers))


def groups(row: ScoringInput, options: Options) -> dict[str, str]:
    """Return Spider's `hardness` of a reference.

    Nothing if Spider's grammar cannot parse it, or without a database. Reads the reference only.
    """
    if options.databases is None:
        return {}
    file = _build_file(find_database(options.databases, str(row.meta["db_id"])))
    level = _find_hardness(row.reference, file)
    return {"hardness": level} if level is not None else {}


@lru_cache(maxsize=4096)
def _find_hardness(reference: str, file: DatabaseFile) -> str | None:
    try:
        return classify_hardness(parse_spider(reference, connect(*file).columns.by_table))
    except NotSpider:
        return None
    except sqlite3.Error as error:
        raise DataError(
            f"{find_original(file.path)}: the database cannot be read ({error})."
        ) from None


def _score_in_order(
    scoring: _RowScorer, rows: Iterable[ScoringInput], pool: WorkerPool
) -> Iterator[ScoredRow]:
    """Yield results in the order of the rows; a few batches run concurrently."""
    workers = pool.limits.workers
    waiting: deque[Future[list[ScoredWithDetails]]] = deque()
    stop = threading.Event()
    left = iter(rows)
    with ThreadPoolExecutor(workers) as threads:
        try:
            while batch := list(islice(left, _BATCH_ROWS)):
                waiting.append(threads.submit(scoring.score, batch, pool, stop))
                if len(waiting) >= 3 * workers:
                    yield from scoring.told(waiting.popleft().result())
            while waiting:
                yield from scoring.told(waiting.popleft().result())
        finally:
            stop.set()
            threads.shutdown(wait=True, cancel_futures=True)


class _RowScorer:
    """Turns rows into requests, and replies into scored rows."""

    def __init__(self, options: Options) -> None:
        self._options = options
        wanted = METRICS if options.metrics is None else options.metrics
        self._metrics = {name: kind for name, kind in METRICS.items() if name in wanted}
        self._suite: Callable[[str], Suite] = cache(self._find_suite)

    def score(
        self, rows: list[ScoringInput], pool: WorkerPool, stop: threading.Event
    ) -> list[ScoredWithDetails]:
        """Return the scored rows of a batch, each with its details, if it has any."""
        databases = [self._find_databases(row) for row in rows]
        verdicts = [self._find_early_verdict(row) for row in rows]
        asked = [index for index, verdict in enumerate(verdicts) if verdict is None]
        requests = [self._request(rows[index], databases[index]) for index in asked]
        answers = dict(zip(asked, pool.judge(requests, stop), strict=True))
        return [
            (build_unanswered(row, verdict, self._select_metrics(databases[index])), None)
            if verdict is not None
            else self._build_scored(row, answers[index])
            for index, (row, verdict) in enumerate(zip(rows, verdicts, strict=True))
        ]

    def told(self, batch: list[ScoredWithDetails]) -> Iterator[ScoredRow]:
        """Yield the rows of a batch in order, and pass their details to the callback."""
        for row, details in batch:
            if details is not None and self._options.details is not None:
                self._options.details(details)
            yield row

    def _find_early_verdict(self, row: ScoringInput) -> str | None:
        """Return the verdict on a row that needs no child process, or None."""
        answer = self._answer(row)
        if self._options.mode == "strict" or row.error is not None:
            missing = explain_no_answer(row)
        else:
            missing = None if answer.strip() else "no answer"
        return missing or (_TOO_LARGE if len(answer) > MAX_SQL_BYTES else None)

    def _answer(self, row: ScoringInput) -> str:
        """Return the text to judge: official mode takes the answer as it came."""
        return row.prediction if self._options.mode == "strict" else row.raw_prediction

    def _request(self, row: ScoringInput, databases: Suite) -> JudgeRequest:
        options = self._options
        return JudgeRequest(
            reference=row.reference,
            prediction=self._answer(row),
            databases=databases,
            mode=options.mode,
            metrics=tuple(self._select_metrics(databases)),
            seconds=options.time_limit_seconds,
            rows=options.row_limit,
            details=options.details is not None,
        )

    def _select_metrics(self, databases: Suite) -> dict[str, MetricKind]:
        """Return the metrics that a row with these databases can have."""
        impossible = set[str]()
        if len(databases) < 2:
            impossible.add("test_suite_accuracy")
        if not databases:
            impossible.add("execution_accuracy")
        return {name: kind for name, kind in self._metrics.items() if name not in impossible}

    def _build_scored(self, row: ScoringInput, answer: JudgeReply) -> ScoredWithDetails:
        failure = answer.get("reference_failure")
        if failure is not None:
            return build_left_out(
                row.id, f"it does not run on {find_original(failure[0])} ({failure[1]})"
            ), None
        if "internal_error" in answer:
            raise TuneoffError(
                f"id {row.id!r}: the SQL sandbox failed "
                f"({shorten_text(answer['internal_error'])}); "
                "please report it with this row."
            )
        scores: dict[str, bool] = answer["scores"]
        details = None
        if "details" in answer and not scores.get(PRIMARY, True):
            details = {"id": row.id, **answer["details"]}
        return ScoredRow(row.id, scores, shorten_text(answer["verdict"])), details

    def _find_databases(self, row: ScoringInput) -> Suite:
        if self._options.databases is None:
            return ()
        db_id = row.meta.get("db_id")
        if not isinstance(db_id, str):
            raise DataError(
                f'id {row.id!r}: the row has no meta "db_id", which names its database; give '
                '"meta": {"db_id": ".."}.'
            )
        try:
            return self._suite(db_id)
        except DataError as error:
            raise DataError(f"id {row.id!r}: {error}") from None

    def _find_suite(self, db_id: str) -> Suite:
        # Children have another working folder, so paths are resolved.
        folder, derived = self._options.databases, self._options.derived
        return tuple(map(_build_file, find_suite(Path(folder or ""), db_id, derived)))


class _ReferenceExecutor(_RowScorer):
    """Executes references only; answers are not judged."""

    def _find_early_verdict(self, row: ScoringInput) -> str | None:
        return None

    def _request(self, row: ScoringInput, databases: Suite) -> JudgeRequest:
        return replace(super()._request(row, databases), prediction="", alone=True)


def _build_file(path: Path) -> DatabaseFile:
    path = find_committed(path)
    # The stamp makes a changed file another database for a warm child.
    return DatabaseFile(str(path.resolve()), path.stat().st_mtime_ns)
