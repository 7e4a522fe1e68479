"""Child processes: what ends them, what they know, and that none is left behind."""

from __future__ import annotations

import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from asking import ENDLESS, REFERENCE, ask, make_database, open_pool, request, right

from tuneoff.errors import TuneoffError
from tuneoff.scoring.sql.worker_pool import DatabaseFile, WorkerLimits, WorkerPool

SMALL = WorkerLimits(memory_bytes=400_000_000, workers=1)
# One function call is one step; SQLite's progress handler never gets to stop it.
ONE_LONG_STEP = "SELECT instr(hex(zeroblob(7000000)), hex(zeroblob(3500000)) || '1')"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_database(tmp_path_factory.mktemp("database"))


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with open_pool(SMALL) as opened:
        yield opened


def test_an_endless_query_ends_without_a_kill(pool: WorkerPool, database: Path) -> None:
    ask(pool, database, REFERENCE)
    process = pool._children[0]._process
    assert ask(pool, database, ENDLESS + "SELECT count(*) FROM c") == "timeout"
    assert ask(pool, database, REFERENCE) == "right"
    assert pool._children[0]._process is process, "SQLite stopped it; no kill was needed"


def test_a_single_endless_step_is_killed_and_the_rest_of_the_batch_is_judged(
    pool: WorkerPool, database: Path
) -> None:
    ask(pool, database, REFERENCE)
    process = pool._children[0]._process
    assert process is not None
    began = time.monotonic()
    queries = (REFERENCE, ONE_LONG_STEP, "SELECT 3")
    answers = pool.judge([request(database, sql) for sql in queries])
    assert [answer["verdict"] for answer in answers] == ["right", "timeout", "right"]
    assert list(map(right, answers)) == [True, False, True]
    assert process.returncode is not None, "it was killed"
    assert time.monotonic() - began < 5


def test_a_killed_prediction_is_still_judged_by_its_form(pool: WorkerPool, database: Path) -> None:
    metrics = ("execution_accuracy", "sql_normal_form", "valid_format")
    (answer,) = pool.judge([request(database, ONE_LONG_STEP, metrics=metrics)])
    assert answer["scores"] == {
        "execution_accuracy": False, "sql_normal_form": False, "valid_format": True,
    }  # fmt: skip


def test_what_was_known_before_a_kill_is_kept(
    pool: WorkerPool, database: Path, tmp_path: Path
) -> None:
    """Right on its own database; on another one of its suite it ends the process."""
    other = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE t (a INTEGER, b TEXT)")
        connection.execute("INSERT INTO t VALUES (1, NULL)")
        connection.commit()
    slow = f"SELECT CASE count(*) WHEN 3 THEN 3 ELSE ({ONE_LONG_STEP}) END FROM t"
    metrics = ("execution_accuracy", "test_suite_accuracy", "valid_format")
    asked = request(database, slow, metrics=metrics)
    suite = (*asked.databases, DatabaseFile(str(other)))
    (answer,) = pool.judge([replace(asked, databases=suite)])
    assert answer["verdict"] == "right on one database only"
    assert answer["scores"] == {
        "execution_accuracy": True, "test_suite_accuracy": False, "valid_format": True,
    }  # fmt: skip


def test_a_large_suite_of_slow_references_is_no_timeout(
    pool: WorkerPool, database: Path, tmp_path: Path
) -> None:
    """Each step has its own time, however many there are."""
    files = [DatabaseFile(str(database))]
    for number in range(8):
        copy = tmp_path / f"{number}.sqlite"
        copy.write_bytes(database.read_bytes())
        files.append(DatabaseFile(str(copy)))
    slow = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 300000) "
    slow += "SELECT max(x) FROM c"
    asked = request(database, slow, seconds=1, metrics=("test_suite_accuracy",))
    (answer,) = pool.judge([replace(asked, reference=slow, databases=tuple(files))])
    assert answer == {"scores": {"test_suite_accuracy": True}, "verdict": "right"}


def test_large_results_of_references_are_forgotten_in_time(
    pool: WorkerPool, database: Path
) -> None:
    large = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 500) "
    queries = [f"{large} SELECT zeroblob(8000) || '{number}' FROM c" for number in range(120)]
    for query in queries:
        asked = replace(request(database, query, seconds=5), reference=query)
        (answer,) = pool.judge([asked])
        assert answer["verdict"] == "right", answer


def test_memory_has_an_end(pool: WorkerPool, database: Path) -> None:
    greedy = ENDLESS + "SELECT count(DISTINCT randomblob(1000000) || x) FROM c LIMIT 1"
    assert ask(pool, database, greedy, seconds=20) == "too large"
    assert ask(pool, database, REFERENCE) == "right"


def test_stopping_ends_what_is_running(pool: WorkerPool, database: Path) -> None:
    ask(pool, database, REFERENCE)
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    began = time.monotonic()
    with pytest.raises(CancelledError):
        pool.judge([request(database, ENDLESS + "SELECT count(*) FROM c", 30)], stop)
    assert time.monotonic() - began < 10
    assert ask(pool, database, REFERENCE) == "right"


def test_a_child_has_no_secrets_and_no_handles_of_its_parent(
    database: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with open_pool(SMALL) as fresh, (tmp_path / "open").open("w") as handle:
        handle.write("held open by the parent")
        assert ask(fresh, database, REFERENCE) == "right"
        process = fresh._children[0]._process
        assert process is not None
        child = Path(f"/proc/{process.pid}")
        if not child.exists():
            pytest.skip("this system has no /proc")
        assert b"sk-secret" not in (child / "environ").read_bytes()
        assert b"sk-secret" not in (child / "cmdline").read_bytes()
        handles = {str(link.readlink()) for link in (child / "fd").iterdir()}
        files = {name for name in handles if not name.startswith("pipe:")}
        assert files == {"/dev/null", str(database)}


def test_no_process_is_left_behind(database: Path) -> None:
    with open_pool(WorkerLimits(memory_bytes=400_000_000, workers=2)) as fresh:
        assert ask(fresh, database, REFERENCE) == "right"
        process = fresh._children[-1]._process
        assert process is not None
        process.kill()
        process.wait()
        assert ask(fresh, database, REFERENCE) == "right", "an idle child that died is replaced"
        process = fresh._children[-1]._process
        assert process is not None
    assert process.returncode is not None


def test_a_child_that_cannot_start_is_an_error_and_not_a_wrong_answer(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with open_pool(SMALL) as broken, pytest.raises(TuneoffError, match="did not start"):
        ask(broken, database, REFERENCE)
