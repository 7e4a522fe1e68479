"""Ten thousand broken queries: nothing crashes, everything gets a verdict."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from asking import open_pool
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tuneoff.scoring.base import ScoringMode
from tuneoff.scoring.sql.judge import FORM_METRICS
from tuneoff.scoring.sql.worker_pool import DatabaseFile, JudgeRequest, WorkerLimits, WorkerPool
from tuneoff.storage.databases import find_database
from tuneoff.tasks.samples import sql

pytestmark = [pytest.mark.slow, pytest.mark.alone]
METRICS = ("exact_match", "normalized_match", *FORM_METRICS, "execution_accuracy")
Gold = tuple[str, str]

_WORDS = re.compile(r"\w+|\s+|[^\w\s]")
INSERTED = (
    "(", ")", "'", '"', "`", ";", "--", "/*", "*", ",", ".", "=", "<>", "%", "?", ":a", "\0",
    "\ud800", "\u202e", "\t", "value", "NOT", "NULL", "SELECT", "FROM", "WHERE", "JOIN", "ON",
    "GROUP BY", "HAVING", "ORDER BY", "LIMIT", "UNION", "EXCEPT", "IN", "EXISTS", "BETWEEN", "AS",
    "DISTINCT", "CASE WHEN", "END", "count(", "1e999", "-9223372036854775809", "x'ff'", "ROWID",
    "WITH RECURSIVE c AS (", "randomblob(1000000)", "DROP TABLE", "PRAGMA", "OVER ()", "COLLATE",
)  # fmt: skip


class Golds(list[Gold]):
    """References with their databases; a failure report need not show them all."""

    def __repr__(self) -> str:
        return f"<{len(self)} references>"


@pytest.fixture(scope="module")
def golds(tmp_path_factory: pytest.TempPathFactory) -> Golds:
    """(reference, database): the sample's, and Spider's where the data is."""
    folder = tmp_path_factory.mktemp("databases")
    examples = sql.generate()["test"][:100]
    sql.write_databases(folder)
    found = Golds(
        (e.completion, str(find_database(folder, str(e.meta["db_id"])).resolve())) for e in examples
    )
    spider = Path(os.environ.get("TUNEOFF_DATA") or "../shared/data") / "spider"
    sample = spider / "official_verdicts_sample.jsonl"
    for line in sample.read_text(encoding="utf-8").splitlines() if sample.is_file() else ():
        row = json.loads(line)
        found.append(
            (row["gold"], str(find_database(spider / "databases", row["db_id"]).resolve()))
        )
    return found


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with open_pool(WorkerLimits(memory_bytes=500_000_000, workers=1)) as opened:
        yield opened


# Edits: what is done, where, to where or with what.
SHARE = st.floats(0, 1, exclude_max=True)
EDIT = st.tuples(
    st.sampled_from(("delete", "repeat", "swap", "insert", "cut")),
    SHARE,
    SHARE,
    st.one_of(st.sampled_from(INSERTED), st.text(max_size=3)),
)
Edits = list[tuple[str, float, float, str]]


def mutated(text: str, edits: Edits) -> str:
    words = _WORDS.findall(text)
    for kind, where, other, word in edits:
        if not words:
            break
        at, to = int(where * len(words)), int(other * len(words))
        if kind == "delete":
            del words[at]
        elif kind == "repeat":
            words[at:at] = words[at : at + 8] * 3
        elif kind == "swap":
            words[at], words[to] = words[to], words[at]
        elif kind == "insert":
            words.insert(at, f" {word} ")
        else:
            words[at:] = [words[at][: to % 3]]
    return "".join(words)


@given(
    which=SHARE,
    edits=st.lists(EDIT, min_size=1, max_size=6),
    mode=st.sampled_from(("strict", "official")),
)
@settings(
    max_examples=10_000,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_nothing_crashes(
    golds: Golds, pool: WorkerPool, which: float, edits: Edits, mode: ScoringMode
) -> None:
    gold, database = golds[int(which * len(golds))]
    prediction = mutated(gold, edits)
    request = JudgeRequest(
        reference=gold,
        prediction=prediction,
        databases=(DatabaseFile(database),),
        mode=mode,
        metrics=METRICS,
        seconds=5.0,
        rows=100_000,
    )
    (answer,) = pool.judge([request])
    assert "verdict" in answer, answer
    assert answer["verdict"] not in ("", "crashed")
    assert set(answer["scores"]) == set(METRICS)
