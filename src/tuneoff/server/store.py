"""The server's database: one SQLite file in WAL mode, shared with the training processes.

Everything is written here before a client is told of it. A connection is opened for each use, so
threads and processes need no lock besides SQLite's.

`JobLocks` are shared by all processes that use one data directory. Each job has one byte of
`worker.lock`. The process that works on the job holds a lock on that byte. The operating system
releases it when the process ends, however it ends, so nothing must be cleaned up after a kill.
"""

from __future__ import annotations

import fcntl
import json
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, created_at INTEGER NOT NULL,
    filename TEXT NOT NULL, purpose TEXT NOT NULL, bytes INTEGER NOT NULL, examples INTEGER
);
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, created_at INTEGER NOT NULL,
    status TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, facts TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS jobs_by_status ON jobs (status);
CREATE TABLE IF NOT EXISTS events (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, job_id TEXT NOT NULL,
    created_at INTEGER NOT NULL, level TEXT NOT NULL, type TEXT NOT NULL, message TEXT NOT NULL,
    data TEXT
);
CREATE INDEX IF NOT EXISTS events_by_job ON events (job_id, number);
CREATE TABLE IF NOT EXISTS models (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, created_at INTEGER NOT NULL,
    base TEXT NOT NULL, job_id TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS checkpoints (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, created_at INTEGER NOT NULL,
    model TEXT UNIQUE NOT NULL, base TEXT NOT NULL, job_id TEXT NOT NULL, step INTEGER NOT NULL,
    metrics TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS checkpoints_by_job ON checkpoints (job_id, number);
CREATE TABLE IF NOT EXISTS batches (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, created_at INTEGER NOT NULL,
    status TEXT NOT NULL, facts TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS batches_by_status ON batches (status);
CREATE VIEW IF NOT EXISTS tuned AS
    SELECT id AS name, created_at, base, job_id, NULL AS step FROM models
    UNION ALL SELECT model, created_at, base, job_id, step FROM checkpoints;
"""
FINE_TUNE, RESULTS = "fine-tune", "fine-tune-results"
BATCH, BATCH_OUTPUT = "batch", "batch_output"
PAGED_TABLES = ("files", "jobs", "events", "checkpoints", "batches")


def generate_id(kind: str) -> str:
    """Return a new id such as `file-…` or `ftjob-…`; the part behind the dash cannot be guessed."""
    return f"{kind}-{secrets.token_hex(12)}"


class Store:
    """Reads and writes `server.sqlite` of a data directory."""

    def __init__(self, data_dir: Path) -> None:
        data_dir.mkdir(parents=True, exist_ok=True)
        self.data_dir = data_dir
        self._path = data_dir / "server.sqlite"
        with self.transaction() as connection:
            connection.executescript(_SCHEMA)

    def file_path(self, id: str, purpose: str = FINE_TUNE) -> Path:
        """Return the path of a file whose id was made here."""
        return self.data_dir / "files" / f"{id}{'.csv' if purpose == RESULTS else '.jsonl'}"

    def job_path(self, id: str) -> Path:
        """Return the folder of a job."""
        return self.data_dir / "jobs" / id

    def batch_path(self, id: str) -> Path:
        """Return the folder of a batch."""
        return self.data_dir / "batches" / id

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Open a connection whose changes are all committed or, on an error, all rolled back."""
        with closing(self._connect()) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN IMMEDIATE")
            # Closing the connection rolls back what was not committed.
            yield connection
            if connection.in_transaction:
                connection.execute("COMMIT")

    def rows(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        """Return the rows of a query; takes no write lock."""
        with closing(self._connect()) as connection:
            return [dict(row) for row in connection.execute(sql, values)]

    def _connect(self) -> sqlite3.Connection:
        """Open a connection without automatic transactions."""
        connection = sqlite3.connect(self._path, timeout=30, isolation_level=None)
        connection.row_factory = sqlite3.Row
        return connection

    def row(self, table: str, id: str) -> dict[str, Any] | None:
        """Return the row of an id; None if there is none."""
        rows = self.rows(f"SELECT * FROM {table} WHERE id = ?", id)
        return rows[0] if rows else None

    def page(
        self,
        table: str,
        after: str | None,
        limit: int,
        where: str = "1",
        values: tuple[Any, ...] = (),
        ascending: bool = False,
    ) -> tuple[list[dict[str, Any]], bool] | None:
        """Return rows after one of them, and whether there are more; None if `after` is unknown.

        The newest come first unless `ascending` is set.
        """
        assert table in PAGED_TABLES
        sign, order = (">", "ASC") if ascending else ("<", "DESC")
        past, bound = "", values
        if after is not None:
            start = self.row(table, after)
            if start is None:
                return None
            past, bound = f"AND number {sign} ?", (*values, start["number"])
        sql = f"SELECT * FROM {table} WHERE {where} {past} ORDER BY number {order} LIMIT ?"
        rows = self.rows(sql, *bound, limit + 1)
        return rows[:limit], len(rows) > limit

    def add_file(
        self,
        id: str,
        filename: str,
        purpose: str,
        size: int,
        examples: int | None,
        connection: sqlite3.Connection | None = None,
    ) -> None:
        """Insert a file, in its own or a given transaction."""
        with nullcontext(connection) if connection is not None else self.transaction() as own:
            own.execute(
                "INSERT INTO files (id, created_at, filename, purpose, bytes, examples) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (id, int(time.time()), filename, purpose, size, examples),
            )

    def add_event(
        self,
        job_id: str,
        message: str,
        level: str = "info",
        data: Mapping[str, Any] | None = None,
        connection: sqlite3.Connection | None = None,
    ) -> None:
        """Insert an event of a job; events with `data` are metrics."""
        values = (
            generate_id("ftevent"), job_id, int(time.time()), level,
            "metrics" if data is not None else "message", message,
            json.dumps(data) if data is not None else None,
        )  # fmt: skip
        sql = (
            "INSERT INTO events (id, job_id, created_at, level, type, message, data) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)"
        )
        if connection is not None:
            connection.execute(sql, values)
            return
        with self.transaction() as own:
            own.execute(sql, values)

    def count_metrics(self, job_id: str) -> int:
        """Return how many of a job's events are metrics."""
        sql = "SELECT count(*) AS times FROM events WHERE job_id = ? AND type = 'metrics'"
        return int(self.rows(sql, job_id)[0]["times"])

    def change_job(
        self,
        id: str,
        status: str | None = None,
        *,
        only_from: tuple[str, ...] | None = None,
        event: str | None = None,
        level: str = "info",
        **facts: Any,
    ) -> bool:
        """Change a job's status and facts and insert an event, in one transaction.

        Returns False, without any change, if the job's status is not in `only_from`.
        """
        with self.transaction() as connection:
            job = connection.execute("SELECT * FROM jobs WHERE id = ?", (id,)).fetchone()
            if only_from is not None and job["status"] not in only_from:
                return False
            if status == "queued":  # resumed by a client: count attempts from the start
                connection.execute("UPDATE jobs SET attempts = 0 WHERE id = ?", (id,))
            connection.execute(
                "UPDATE jobs SET facts = ?, status = ? WHERE id = ?",
                (json.dumps({**json.loads(job["facts"]), **facts}), status or job["status"], id),
            )
            if event is not None:
                self.add_event(id, event, level, connection=connection)
        return True

    def reset_attempts(self, id: str) -> None:
        """Reset a job's attempts to 1, because it made progress since it was claimed."""
        with self.transaction() as connection:
            connection.execute("UPDATE jobs SET attempts = 1 WHERE id = ?", (id,))

    def claim_job(self, take: Callable[[int], bool], most: int) -> dict[str, Any] | None:
        """Claim a job and return it, now running with one attempt more; None if there is none.

        A job that was running when its worker ended comes first, then the oldest queued one.

        Args:
            take: locks the job of a number; returns whether that succeeded.
            most: maximum number of workers. If that many jobs are being worked on, nothing is
                claimed; one of their workers may be an orphan of a killed server that is about to
                end.
        """
        with self.transaction() as connection:
            running = connection.execute(
                "SELECT * FROM jobs WHERE status = 'running' ORDER BY number"
            ).fetchall()
            job = next((row for row in running if take(row["number"])), None)
            if job is None and len(running) < most:
                # A job that was paused and resumed may still have a worker that has not stopped
                # yet.
                queued = connection.execute(
                    "SELECT * FROM jobs WHERE status = 'queued' ORDER BY number LIMIT ?",
                    (most + 1,),
                ).fetchall()
                job = next((row for row in queued if take(row["number"])), None)
            if job is None:
                return None
            connection.execute(
                "UPDATE jobs SET status = 'running', attempts = attempts + 1, facts = "
                "json_set(facts, '$.started_at', "
                "coalesce(json_extract(facts, '$.started_at'), ?)) WHERE id = ?",
                (int(time.time()), job["id"]),
            )
            return {**dict(job), "attempts": job["attempts"] + 1}

    def oldest_batch(self, states: tuple[str, ...]) -> dict[str, Any] | None:
        """Return the oldest batch in one of these states; None if there is none."""
        marks = ", ".join("?" * len(states))
        rows = self.rows(
            f"SELECT * FROM batches WHERE status IN ({marks}) ORDER BY number LIMIT 1", *states
        )
        return rows[0] if rows else None

    def change_batch(
        self,
        id: str,
        status: str | None = None,
        *,
        only_from: tuple[str, ...] | None = None,
        connection: sqlite3.Connection | None = None,
        **facts: Any,
    ) -> bool:
        """Change a batch's status and facts.

        Returns False, without any change, if its status is not in `only_from`.
        """
        with nullcontext(connection) if connection is not None else self.transaction() as own:
            batch = own.execute("SELECT * FROM batches WHERE id = ?", (id,)).fetchone()
            if only_from is not None and batch["status"] not in only_from:
                return False
            own.execute(
                "UPDATE batches SET facts = ?, status = ? WHERE id = ?",
                (
                    json.dumps({**json.loads(batch["facts"]), **facts}),
                    status or batch["status"],
                    id,
                ),
            )
        return True


# Jobs are numbered from 1; this lock belongs to the process that answers batches.
BATCH_LOCK = 0


class JobLocks:
    """The job locks that this process holds.

    There must be only one instance in a process, kept as long as the process lives: the system
    drops all of a process's locks on a file when the process closes that file anywhere.
    """

    def __init__(self, data_dir: Path) -> None:
        self._file = (data_dir / "worker.lock").open("ab")

    def acquire(self, number: int) -> bool:
        """Try to lock a job; return whether this process holds it now."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
        except (BlockingIOError, PermissionError):  # systems differ in which one they raise
            return False
        return True

    def release(self, number: int) -> None:
        """Release the lock on a job."""
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, number)

    def close(self) -> None:
        """Release all locks."""
        self._file.close()
