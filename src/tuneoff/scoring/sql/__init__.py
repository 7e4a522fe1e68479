"""Text-to-SQL: does the query give what the reference gives?

`execution_accuracy` (Yu et al., EMNLP 2018, in the strict reading of `execution.py`) runs
both queries on the row's own database, `DIR/<db_id>/*.sqlite`, in child processes that
can only read (`sandbox.py`). Without databases nothing can be executed: rows then have no
`execution_accuracy` at all, and `exact_match` decides. `valid_format` says that an
answer is one query that sqlglot parses as SQLite's SQL; nothing is executed for it. All
metrics but `exact_match` look at the answer without a code fence around it.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tuneoff.databases import find_database
from tuneoff.errors import ConfigError, DataError
from tuneoff.records import ScoredRow
from tuneoff.scoring.sql.execution import difference, is_ordered
from tuneoff.scoring.sql.pool import Failure, Limits, Pool, Table, open_pool
from tuneoff.scoring.rows import Kind, Options, Row, no_answer, shortened, unanswered
from tuneoff.scoring.text import matches, without_fence

METRICS: Mapping[str, Kind] = {
    "exact_match": "yes/no",
    "normalized_match": "yes/no",
    "execution_accuracy": "yes/no",
    "valid_format": "yes/no",
}
PRIMARY = "execution_accuracy"

MAX_WORKERS = 4
# sqlglot takes about a second for this many characters, and no honest answer is longer.
_LONGEST_PARSED = 50_000
# References come again and again over a few databases; larger results are run again.
_KEPT_REFERENCES = 512
_KEPT_ROWS = 5_000

Gold = tuple[Table, bool]
References = dict[tuple[Path, str], Gold]


def primary(options: Options) -> str:
    """The metric that decides: what was executed, or the text when nothing can be."""
    return PRIMARY if options.databases is not None else "exact_match"


def score_rows(rows: Iterable[Row], options: Options) -> Iterator[ScoredRow]:
    """Every metric of each row, in order; at most a few rows are read ahead.

    Raises:
        ConfigError: a mode that this version does not have.
        DataError: a database is missing, or a reference does not run on its database.
    """
    if options.mode != "strict":
        raise ConfigError(
            f"mode {options.mode!r} is not in this version (allowed: strict); leave it out."
        )
    if options.databases is None:
        return (_score_text(row) for row in rows)
    if not options.databases.is_dir():
        raise DataError(
            f"{options.databases}: there is no such folder; give the one that holds "
            "<db_id>/*.sqlite."
        )
    # Children have another working folder.
    return _score_by_execution(rows, options, options.databases.resolve())


def _score_by_execution(rows: Iterable[Row], options: Options, folder: Path) -> Iterator[ScoredRow]:
    workers = options.workers or min(MAX_WORKERS, os.cpu_count() or 1)
    limits = Limits(
        seconds=options.time_limit_seconds,
        memory_bytes=options.memory_limit_bytes,
        rows=options.row_limit,
        workers=workers,
    )
    golds: References = {}
    with open_pool(limits) as pool:
        yield from _in_order(partial(_score, pool=pool, golds=golds, folder=folder), rows, workers)


def _in_order(
    score: Callable[[Row], ScoredRow], rows: Iterable[Row], workers: int
) -> Iterator[ScoredRow]:
    """Results in the order of the rows, a few of them worked on at a time."""
    waiting: deque[Future[ScoredRow]] = deque()
    with ThreadPoolExecutor(workers) as threads:
        try:
            for row in rows:
                waiting.append(threads.submit(score, row))
                if len(waiting) >= 4 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            threads.shutdown(wait=True, cancel_futures=True)


def _score(row: Row, pool: Pool, golds: References, folder: Path) -> ScoredRow:
    """Every metric of a row whose database is at hand."""
    database = _database(row, folder)
    reference, ordered = _gold(row, database, pool, golds)
    missing = no_answer(row)
    if missing is not None:
        return unanswered(row, missing, METRICS)
    result = pool.run(database, without_fence(row.prediction))
    if isinstance(result, Failure):
        wrong: str | None = shortened(result.reason)
    else:
        wrong = difference(reference, result, ordered)
    scores = matches(row) | {
        "execution_accuracy": wrong is None,
        "valid_format": parses(without_fence(row.prediction)),
    }
    return ScoredRow(row.id, scores, wrong or "right")


def _score_text(row: Row) -> ScoredRow:
    """What can be said of a row without its database."""
    metrics = {name: kind for name, kind in METRICS.items() if name != "execution_accuracy"}
    missing = no_answer(row)
    if missing is not None:
        return unanswered(row, missing, metrics)
    scores = matches(row) | {"valid_format": parses(without_fence(row.prediction))}
    if scores["exact_match"]:
        verdict = "right"
    elif scores["normalized_match"]:
        verdict = "right but for form"
    else:
        verdict = "wrong" if scores["valid_format"] else "does not parse"
    return ScoredRow(row.id, scores, verdict)


def _database(row: Row, folder: Path) -> Path:
    db_id = row.meta.get("db_id")
    if not isinstance(db_id, str):
        raise DataError(f'id {row.id!r}: the row has no meta "db_id", which names its database.')
    try:
        return find_database(folder, db_id)
    except DataError as error:
        raise DataError(f"id {row.id!r}: {error}") from None


def _gold(row: Row, database: Path, pool: Pool, golds: References) -> Gold:
    """The reference's result and whether its order matters; kept when it is small."""
    key = (database, row.reference)
    if key in golds:
        return golds[key]
    result = pool.run(database, row.reference)
    if isinstance(result, Failure):
        raise DataError(
            f"id {row.id!r}: the reference does not run on {database.name} "
            f"({shortened(result.reason)}); correct it, or give the database it was written for."
        )
    gold = (result, is_ordered(row.reference))
    if len(result.rows) <= _KEPT_ROWS and len(golds) < _KEPT_REFERENCES:
        golds[key] = gold
    return gold


def parses(sql: str) -> bool:
    """Whether a text is one SQLite query (SELECT, VALUES, with or without WITH)."""
    from sqlglot import TokenType, exp, parse, tokenize
    from sqlglot.errors import SqlglotError

    first = (TokenType.SELECT, TokenType.WITH, TokenType.VALUES)
    if len(sql) > _LONGEST_PARSED:
        return False
    try:
        tokens = tokenize(sql, read="sqlite")
        # sqlglot takes nearly any words for an expression, so what begins otherwise is out.
        if not tokens or tokens[0].token_type not in first:
            return False
        statements = [s for s in parse(sql, read="sqlite") if s is not None]
    except (SqlglotError, RecursionError):
        return False
    return len(statements) == 1 and isinstance(statements[0], (exp.Query, exp.Values))
