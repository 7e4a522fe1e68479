"""Metrics of text-to-SQL."""

from __future__ import annotations

import json
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from tuneoff.errors import ConfigError, DataError
from tuneoff.records import ScoredRow
from tuneoff.scoring import Options, Row
from tuneoff.scoring.sql import METRICS, parses, score_rows

GOLD = "SELECT name ,  age FROM singer WHERE age  >  20"


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("databases")
    (folder / "music").mkdir()
    with closing(sqlite3.connect(folder / "music" / "music.sqlite")) as connection:
        connection.execute("CREATE TABLE singer (name TEXT, age INTEGER)")
        connection.execute("INSERT INTO singer VALUES ('Ada', 30), ('Bo', 40), ('Cy', 10)")
        connection.commit()
    return folder


def score(databases: Path | None, *predictions: str, reference: str = GOLD) -> list[ScoredRow]:
    rows = [Row(str(i), reference, p, {"db_id": "music"}) for i, p in enumerate(predictions)]
    options = Options(databases=databases, workers=2, time_limit_seconds=0.5)
    found = list(score_rows(rows, options))
    assert [row.id for row in found] == [row.id for row in rows]
    return found


CASES = {
    GOLD: "right",
    "select name, age from singer where age >= 30": "right",
    "```sql\nSELECT name, age FROM singer WHERE age > 20;\n```": "right",
    "SELECT age, name FROM singer WHERE age > 20": "wrong result",
    "SELECT name, age FROM singer": "wrong result",
    "SELECT name FROM singer WHERE age > 20": "wrong columns",
    "SELECT nme, age FROM singer": "no such column: nme",
    "SELECT name FROM singers": "no such table: singers",
    "SELEC name": "syntax error",
    "I think: SELECT name FROM singer": "syntax error",
    "DROP TABLE singer": "denied",
    "SELECT 1; SELECT 2": "more than one statement",
    "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x FROM c) SELECT count(*) FROM c": "timeout",
    "": "no answer",
    f"SELECT {'z' * 300} FROM singer": "no such column: " + "z" * 63 + "…",
}


def test_verdicts(databases: Path) -> None:
    found = score(databases, *CASES)
    assert [row.verdict for row in found] == list(CASES.values())
    for row in found:
        assert set(row.scores) == set(METRICS)
        assert row.scores["execution_accuracy"] is (row.verdict == "right")


def test_each_metric_says_its_own(databases: Path) -> None:
    same, fenced, other = score(
        databases, GOLD, f"```\n{GOLD.lower()};\n```", "SELECT name, age FROM singer WHERE age > 15"
    )
    assert set(same.scores.values()) == {True}
    assert fenced.scores == dict.fromkeys(METRICS, True) | {"exact_match": False}
    assert other.scores == {
        "exact_match": False,
        "normalized_match": False,
        "execution_accuracy": True,
        "valid_format": True,
    }


def test_order_matters_where_the_reference_orders(databases: Path) -> None:
    backwards = "SELECT name FROM singer ORDER BY age DESC"
    (row,) = score(databases, backwards, reference="SELECT name FROM singer ORDER BY age")
    assert row.verdict == "wrong order"
    (row,) = score(databases, backwards, reference="SELECT name FROM singer")
    assert row.verdict == "right"


def test_without_databases_nothing_is_said_about_execution() -> None:
    found = score(None, GOLD, GOLD.lower(), "SELECT 1", "SELECT FROM WHERE", "")
    assert [row.verdict for row in found] == [
        "right", "right but for form", "wrong", "does not parse", "no answer",
    ]  # fmt: skip
    assert all("execution_accuracy" not in row.scores for row in found)
    assert [row.scores["valid_format"] for row in found] == [True, True, True, False, False]


def test_a_reference_that_does_not_run_is_the_users_mistake(databases: Path) -> None:
    with pytest.raises(DataError, match=r"id '0': the reference does not run .*no such table: x"):
        score(databases, "SELECT 1", reference="SELECT * FROM x")


def test_a_missing_database_is_named(databases: Path) -> None:
    rows = [Row("7", GOLD, GOLD, {"db_id": "opera"})]
    with pytest.raises(DataError, match=rf"id '7': there is no database 'opera' in {databases}"):
        list(score_rows(rows, Options(databases=databases)))
    with pytest.raises(DataError, match=r"id '7': the row has no meta \"db_id\""):
        list(score_rows([Row("7", GOLD, GOLD)], Options(databases=databases)))
    with pytest.raises(DataError, match="there is no such folder"):
        score_rows(rows, Options(databases=databases / "none"))


def test_the_official_mode_is_refused_before_anything_runs(databases: Path) -> None:
    with pytest.raises(ConfigError, match="'official' is not in this version"):
        score_rows([], Options(databases=databases, mode="official"))


def test_databases_may_be_given_relative_to_here(
    databases: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(databases.parent)
    (row,) = score(Path(databases.name), GOLD)
    assert row.verdict == "right"


def test_only_a_few_rows_are_read_ahead_and_stopping_early_leaves_nothing(databases: Path) -> None:
    taken = 0

    def rows() -> object:
        nonlocal taken
        for i in range(1000):
            taken += 1
            yield Row(str(i), GOLD, GOLD, {"db_id": "music"})

    results = score_rows(rows(), Options(databases=databases, workers=1))  # type: ignore[arg-type]
    assert next(results).id == "0"
    assert taken < 10
    results.close()  # type: ignore[attr-defined]
    assert [t.name for t in threading.enumerate() if t.name == "sql-clock"] == []


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT 1", True),
        ("SELECT a FROM t;", True),
        ("WITH c AS (SELECT 1) SELECT * FROM c", True),
        ("SELECT a FROM t UNION SELECT b FROM u", True),
        ("VALUES (1)", True),
        ("", False),
        ("hello world", False),
        ("SELECT a FROM", False),
        ("SELECT 'unfinished", False),
        ("SELECT 1; SELECT 2", False),
        ("DROP TABLE t", False),
        ("WITH c AS (SELECT 1) DELETE FROM t", False),
        ("SELECT " + "(" * 20_000 + "1" + ")" * 20_000, False),
        ("SELECT '" + "a" * 100_000 + "'", False),
    ],
)
def test_valid_format(sql: str, expected: bool) -> None:
    assert parses(sql) is expected


def test_every_reference_of_the_seed_experiment_scores_one_by_every_metric(data_dir: Path) -> None:
    path = data_dir / "spider_create_context" / "validation.jsonl"
    examples = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(examples) == 568
    rows = (
        Row(str(i), e["answer"], e["answer"], {"db_id": e["db_id"]}) for i, e in enumerate(examples)
    )
    options = Options(databases=data_dir / "spider" / "databases", time_limit_seconds=30)
    found = list(score_rows(rows, options))
    assert [r for r in found if r.verdict != "right" or set(r.scores.values()) != {True}] == []
    assert len(found) == 568


def test_a_strict_verdict_is_never_milder_than_the_official_one(data_dir: Path) -> None:
    """What is right here, Spider's official evaluator called right too."""
    path = data_dir / "spider" / "official_verdicts_sample.jsonl"
    sample = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()][::3]
    rows = (Row(str(v["index"]), v["gold"], v["pred"], {"db_id": v["db_id"]}) for v in sample)
    options = Options(databases=data_dir / "spider" / "databases", time_limit_seconds=30)
    ours = [bool(r.scores["execution_accuracy"]) for r in score_rows(rows, options)]
    assert [
        v["pred"] for v, o in zip(sample, ours, strict=True) if o and not v["official_exec"]
    ] == []
    assert sum(ours) > 80
