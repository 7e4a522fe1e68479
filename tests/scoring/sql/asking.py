"""What the tests of the SQL sandbox share: a database, and asking a pool about one query."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tuneoff.scoring.sql.worker_pool import (
    DatabaseFile,
    JudgeReply,
    JudgeRequest,
    WorkerLimits,
    WorkerPool,
)

ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) "
REFERENCE = "SELECT count(*) FROM t"


def make_database(folder: Path) -> Path:
    path = folder / "odd ?#% name.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (a INTEGER, b TEXT)")
        connection.execute("INSERT INTO t VALUES (1, 'x'), (2, 'it''s ü'), (3, NULL)")
        connection.execute("CREATE INDEX i ON t (a)")
        connection.execute("CREATE VIEW v AS SELECT a FROM t WHERE a > 1")
        connection.commit()
    return path


@contextmanager
def open_pool(limits: WorkerLimits) -> Iterator[WorkerPool]:
    """A pool of its own, whose processes are gone afterwards."""
    pool = WorkerPool(limits)
    try:
        yield pool
    finally:
        pool.close()


def request(
    database: Path, sql: str, seconds: float = 0.5, metrics: tuple[str, ...] | None = None
) -> JudgeRequest:
    return JudgeRequest(
        reference=REFERENCE,
        prediction=sql,
        databases=(DatabaseFile(str(database)),),
        mode="strict",
        metrics=metrics or ("execution_accuracy",),
        seconds=seconds,
        rows=1_000,
    )


def ask(pool: WorkerPool, database: Path, sql: str, seconds: float = 0.5) -> str:
    """The verdict on a query."""
    (answer,) = pool.judge([request(database, sql, seconds)])
    return str(answer["verdict"])


def right(answer: JudgeReply) -> bool:
    return bool(answer["scores"]["execution_accuracy"])
