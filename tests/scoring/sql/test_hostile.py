"""SQL from a model is data: a corpus of hostile queries, through the real child processes."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from asking import REFERENCE, ask, make_database, open_pool, request
from hostile import HOSTILE

from tuneoff.scoring.sql.worker_pool import WorkerLimits, WorkerPool, WorkerProcess

LIMIT_SECONDS = 0.5
TRIES = 4


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_database(tmp_path_factory.mktemp("database"))


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with open_pool(WorkerLimits(memory_bytes=400_000_000, workers=1)) as opened:
        yield opened


def test_the_corpus_is_large() -> None:
    assert len(HOSTILE) >= 60


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_query(
    pool: WorkerPool, database: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sql, verdicts = HOSTILE[name]
    target = tmp_path / "appears"
    sql = sql.replace("{file}", str(target))
    before = hashlib.sha256(database.read_bytes()).hexdigest()
    ended: list[float] = []
    close = WorkerProcess.close
    monkeypatch.setattr(
        WorkerProcess, "close", lambda c: (close(c), ended.append(time.monotonic()))[0]
    )
    for left in reversed(range(TRIES)):
        ask(pool, database, REFERENCE)
        ended.clear()
        began = time.monotonic()
        verdict = ask(pool, database, sql, LIMIT_SECONDS)
        # A killed child ends before its query is judged again by its form.
        over = (ended[0] if ended else time.monotonic()) - began - LIMIT_SECONDS
        assert verdict in verdicts
        if over < 0.5:
            break
        assert left, f"it took {over:.2f} s more than it may, {TRIES} times"
    assert hashlib.sha256(database.read_bytes()).hexdigest() == before
    assert os.listdir(database.parent) == [database.name]
    assert not target.exists()
    assert ask(pool, database, REFERENCE) == "right", "the next query works"


def test_the_parent_stays_small(database: Path, tmp_path: Path) -> None:
    """The whole corpus, scored in a process of its own."""
    target = tmp_path / "appears"
    corpus = tmp_path / "corpus.json"
    corpus.write_text(
        json.dumps([sql.replace("{file}", str(target)) for sql, _ in HOSTILE.values()])
    )
    code = f"""
import json, pathlib
from tuneoff.scoring.base import Options, ScoringInput, load_scorer
folder = pathlib.Path({str(database.parent)!r})
queries = json.loads(pathlib.Path({str(corpus)!r}).read_text())
rows = (
    ScoringInput(str(i), {REFERENCE!r}, sql, {{"db_id": folder.name}})
    for i, sql in enumerate(queries)
)
options = Options(databases=folder.parent, time_limit_seconds=0.2)
found = list(load_scorer("sql").score_rows(rows, options))
print(len(found), sum(row.scores["execution_accuracy"] for row in found))
status = pathlib.Path("/proc/self/status")  # getrusage would also count who started this one
print(status.read_text().split("VmHWM:")[1].split()[0] if status.exists() else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    scored, peak_kilobytes = done.stdout.splitlines()
    assert scored == f"{len(HOSTILE)} 0"
    assert int(peak_kilobytes) < 300_000
    assert not target.exists()


def test_hostile_queries_share_a_batch(pool: WorkerPool, database: Path) -> None:
    names = ["endless recursion", "one long step", "a NUL", "one long step", "DROP TABLE"]
    queries = [HOSTILE[name][0] for name in names]
    answers = pool.judge([request(database, sql) for sql in [*queries, REFERENCE]])
    assert [answer["verdict"] for answer in answers] == [
        "timeout", "timeout", "syntax error", "timeout", "denied", "right",
    ]  # fmt: skip
