"""The server's memory: one SQLite file in WAL mode, shared with the process that trains.

Everything a client was told is written here before it was told. A connection is opened for
each use, so threads and processes need no other lock than SQLite's.
"""

from __future__ import annotations

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
LISTED = ("files", "jobs", "events", "checkpoints", "batches")


def new_id(kind: str) -> str:
    """`file-…`, `ftjob-…`: what is behind the dash cannot be guessed."""
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
        """Where a file lies whose id was made here."""
        return self.data_dir / "files" / f"{id}{'.csv' if purpose == RESULTS else '.jsonl'}"

    def job_path(self, id: str) -> Path:
        return self.data_dir / "jobs" / id

    def batch_path(self, id: str) -> Path:
        return self.data_dir / "batches" / id

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A connection whose changes are all kept or, on an error, none."""
        with closing(self._connect()) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN IMMEDIATE")
            # Closing a connection undoes what was not committed.
            yield connection
            if connection.in_transaction:
                connection.execute("COMMIT")

    def rows(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        """What a query gives; takes no write lock."""
        with closing(self._connect()) as connection:
            return [dict(row) for row in connection.execute(sql, values)]

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=30, isolation_level=None)
        connection.row_factory = sqlite3.Row
        return connection

    def row(self, table: str, id: str) -> dict[str, Any] | None:
        found = self.rows(f"SELECT * FROM {table} WHERE id = ?", id)
        return found[0] if found else None

    def page(
        self,
        table: str,
        after: str | None,
        limit: int,
        where: str = "1",
        values: tuple[Any, ...] = (),
        ascending: bool = False,
    ) -> tuple[list[dict[str, Any]], bool] | None:
        """Rows after one of them, the newest first unless `ascending`, and whether there are
        more; None when there is no row `after`."""
        assert table in LISTED
        sign, order = (">", "ASC") if ascending else ("<", "DESC")
        past, bound = "", values
        if after is not None:
            start = self.row(table, after)
            if start is None:
                return None
            past, bound = f"AND number {sign} ?", (*values, start["number"])
        sql = f"SELECT * FROM {table} WHERE {where} {past} ORDER BY number {order} LIMIT ?"
        found = self.rows(sql, *bound, limit + 1)
        return found[:limit], len(found) > limit

    def add_file(
        self,
        id: str,
        filename: str,
        purpose: str,
        size: int,
        examples: int | None,
        connection: sqlite3.Connection | None = None,
    ) -> None:
        """Notes a file, by itself or within a transaction."""
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
        """Notes what happened to a job; events with `data` are metrics."""
        values = (
            new_id("ftevent"), job_id, int(time.time()), level,
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

    def metrics_told(self, job_id: str) -> int:
        """How many of a job's events are metrics."""
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
        """Changes a job's status and facts, and notes an event, all at once; whether it did:
        not when the job's status is none of `only_from`."""
        with self.transaction() as connection:
            job = connection.execute("SELECT * FROM jobs WHERE id = ?", (id,)).fetchone()
            if only_from is not None and job["status"] not in only_from:
                return False
            if status == "queued":  # resumed by hand: it starts with a clean slate
                connection.execute("UPDATE jobs SET attempts = 0 WHERE id = ?", (id,))
            connection.execute(
                "UPDATE jobs SET facts = ?, status = ? WHERE id = ?",
                (json.dumps({**json.loads(job["facts"]), **facts}), status or job["status"], id),
            )
            if event is not None:
                self.add_event(id, event, level, connection=connection)
        return True

    def count_attempts_anew(self, id: str) -> None:
        """A job has come further since it was claimed."""
        with self.transaction() as connection:
            connection.execute("UPDATE jobs SET attempts = 1 WHERE id = ?", (id,))

    def claim_job(self, take: Callable[[int], bool], most: int) -> dict[str, Any] | None:
        """The job to work on: one that was running when its worker ended, else the oldest that
        is queued. It is running then, and one attempt more was made.

        Args:
            take: whether nobody works on the job of this number, and nobody else will.
            most: workers there may be; when so many others are at work (one may be an orphan of
                a killed server, about to end) there is nothing to do.
        """
        with self.transaction() as connection:
            running = connection.execute(
                "SELECT * FROM jobs WHERE status = 'running' ORDER BY number"
            ).fetchall()
            job = next((each for each in running if take(each["number"])), None)
            if job is None and len(running) < most:
                # Who works on a job that was paused, and resumed, has not stopped yet.
                queued = connection.execute(
                    "SELECT * FROM jobs WHERE status = 'queued' ORDER BY number LIMIT ?",
                    (most + 1,),
                ).fetchall()
                job = next((each for each in queued if take(each["number"])), None)
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
        """The batch to work on: the oldest in one of these states."""
        marks = ", ".join("?" * len(states))
        found = self.rows(
            f"SELECT * FROM batches WHERE status IN ({marks}) ORDER BY number LIMIT 1", *states
        )
        return found[0] if found else None

    def change_batch(
        self,
        id: str,
        status: str | None = None,
        *,
        only_from: tuple[str, ...] | None = None,
        connection: sqlite3.Connection | None = None,
        **facts: Any,
    ) -> bool:
        """Changes a batch's status and facts; whether it did: not when its status is none of
        `only_from`."""
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
