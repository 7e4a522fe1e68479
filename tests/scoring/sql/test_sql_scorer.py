"""Metrics of text-to-SQL."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from tuneoff.errors import DataError
from tuneoff.records import ScoredRow
from tuneoff.scoring.base import Options, ScoringInput, ScoringMode, find_reason_left_out
from tuneoff.scoring.sql.scorer import METRICS, failing, groups, score_rows

GOLD = "SELECT name ,  age FROM singer WHERE age  >  20"


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("databases")
    (folder / "music").mkdir()
    with closing(sqlite3.connect(folder / "music" / "music.sqlite")) as connection:
        connection.execute("CREATE TABLE singer (name TEXT, age INTEGER)")
        connection.execute("CREATE TABLE song (title TEXT)")
        connection.execute("INSERT INTO singer VALUES ('Ada', 30), ('Bo', 40), ('Cy', 10)")
        connection.commit()
    return folder


SUITE = "test_suite_accuracy"
ONE_DATABASE = [metric for metric in METRICS if metric != SUITE]


def score(
    databases: Path | None, *predictions: str, reference: str = GOLD, mode: ScoringMode = "strict"
) -> list[ScoredRow]:
    rows = [
        ScoringInput(str(i), reference, p, {"db_id": "music"}) for i, p in enumerate(predictions)
    ]
    options = Options(databases=databases, workers=2, time_limit_seconds=0.5, mode=mode)
    found = list(score_rows(rows, options))
    assert [row.id for row in found] == [row.id for row in rows]
    return found


CASES = {
    GOLD: "right",
    "select name, age from singer where age >= 30": "right",
    "select Name, age from singer as s where s.AGE > 20": "right but for form",
    "```sql\nSELECT name, age FROM singer WHERE age > 20;\n```": "right but for form",
    f"{GOLD};": "right but for form",
    f"SQL: {GOLD}": "right but for form",
    f"Here you are:\n```\n{GOLD}\n```\nAnything else?": "right but for form",
    "SELECT age, name FROM singer WHERE age > 20": "wrong result",
    "SELECT name, age FROM singer": "wrong condition",
    "SELECT name, age FROM singer WHERE age > 30": "wrong condition",
    "SELECT name FROM singer WHERE age > 20": "wrong columns",
    "SELECT name, max(age) FROM singer WHERE age > 20": "wrong aggregation or grouping",
    "SELECT name, age FROM singer WHERE age > 20 LIMIT 1": "wrong order or limit",
    "SELECT title, 1 FROM song WHERE title > 20": "wrong tables",
    "SELECT nme, age FROM singer": "no such column: nme",
    "SELECT name FROM singers": "no such table: singers",
    "SELEC name": "syntax error",
    "I think: SELECT name FROM singer": "syntax error",
    "DROP TABLE singer": "denied",
    "SELECT 1; SELECT 2": "more than one statement",
    "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x FROM c) SELECT count(*) FROM c": "timeout",
    "": "no answer",
    "SELECT '" + "z" * 100_000 + "'": "too large",
    f"SELECT {'z' * 300} FROM singer": "no such column: " + "z" * 63 + "…",
}


def test_verdicts(databases: Path) -> None:
    found = score(databases, *CASES)
    assert [row.verdict for row in found] == list(CASES.values())
    for row in found:
        assert set(row.scores) == set(ONE_DATABASE)
        assert row.scores["execution_accuracy"] is row.verdict.startswith("right")


def test_each_metric_says_its_own(databases: Path) -> None:
    same, fenced, spelt, other = score(
        databases,
        GOLD,
        f"```\n{GOLD.lower()};\n```",
        "SELECT T1.name, T1.age FROM singer AS T1 WHERE T1.age > 20",
        "SELECT age, name FROM singer WHERE age > 15",
    )
    assert same.scores == dict.fromkeys(ONE_DATABASE, True)
    assert fenced.scores == dict.fromkeys(ONE_DATABASE, True) | {"exact_match": False}
    assert [metric for metric in ONE_DATABASE if not spelt.scores[metric]] == [
        "exact_match", "normalized_match",
    ]  # fmt: skip
    assert [metric for metric in ONE_DATABASE if other.scores[metric]] == [
        "exact_set_match", "valid_format",
    ]  # fmt: skip


def test_official_mode_forgives_what_the_official_evaluator_forgives(databases: Path) -> None:
    swapped = "SELECT age, name FROM singer WHERE age > 20"
    found = score(
        databases, swapped, f"{swapped};", f"{swapped}\tbecause", f"SQL: {GOLD}", mode="official"
    )
    assert [row.scores["execution_accuracy"] for row in found] == [True, True, True, False]
    assert [row.scores["exact_set_match"] for row in found] == [True, True, True, False]
    (strict,) = score(databases, swapped)
    assert strict.scores["execution_accuracy"] is False
    distinct = "SELECT DISTINCT name FROM singer"
    for mode, expected in (("official", True), ("strict", False)):
        (row,) = score(databases, "SELECT name FROM singer", reference=distinct, mode=mode)
        assert row.scores["exact_set_match"] is expected


def test_order_matters_where_the_reference_orders(databases: Path) -> None:
    backwards = "SELECT name FROM singer ORDER BY age DESC"
    (row,) = score(databases, backwards, reference="SELECT name FROM singer ORDER BY age")
    assert row.verdict == "wrong order or limit"
    (row,) = score(databases, backwards, reference="SELECT name FROM singer")
    assert row.verdict == "right"


def test_without_databases_nothing_is_said_about_execution() -> None:
    found = score(None, GOLD, GOLD.lower(), "SELECT 1", "SELECT FROM WHERE", "")
    assert [row.verdict for row in found] == [
        "right", "right but for form", "wrong tables", "does not parse", "no answer",
    ]  # fmt: skip
    assert all("execution_accuracy" not in row.scores for row in found)
    assert [row.scores["valid_format"] for row in found] == [True, True, True, False, False]


SLOW = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x FROM c) SELECT count(*) FROM c"
UNUSABLE = {
    "SELECT * FROM x": "no such table: x",
    "SELECT nme FROM singer": "no such column: nme",
    "SELECT name FROM": "syntax error",
    "DROP TABLE singer": "denied",
    SLOW: "timeout",
    "SELECT zeroblob(900000000)": "too large",
}


@pytest.mark.parametrize("mode", ["strict", "official"])
def test_a_reference_that_does_not_run_costs_its_own_row(
    databases: Path, mode: ScoringMode
) -> None:
    references = [GOLD, *UNUSABLE, GOLD]
    rows = [ScoringInput(str(i), sql, GOLD, {"db_id": "music"}) for i, sql in enumerate(references)]
    options = Options(databases=databases, workers=2, time_limit_seconds=0.5, mode=mode)
    where = databases / "music" / "music.sqlite"
    reasons = {
        str(i): f"it does not run on {where} ({why})" for i, why in enumerate(UNUSABLE.values(), 1)
    }
    assert dict(failing(rows, options)) == reasons
    found = list(score_rows(rows, options))
    assert {row.id: find_reason_left_out(row) for row in found if not row.scores} == reasons
    assert [row.verdict for row in found if row.scores] == ["right", "right"]


def test_a_reference_that_ends_its_process_is_not_the_answer_s_fault(databases: Path) -> None:
    """A search that nothing can interrupt: only the parent's clock ends it."""
    endless = "SELECT instr(hex(zeroblob(4000000)), hex(zeroblob(2000000)) || '1')"
    rows = [ScoringInput("slow", endless, "SELECT 1", {"db_id": "music"}),
            ScoringInput("fine", GOLD, GOLD, {"db_id": "music"})]  # fmt: skip
    options = Options(databases=databases, workers=1, time_limit_seconds=0.2)
    slow, fine = score_rows(rows, options)
    assert (slow.scores, fine.verdict) == ({}, "right")
    assert find_reason_left_out(slow) == dict(failing(rows, options))["slow"]


def test_a_missing_database_is_named(databases: Path) -> None:
    rows = [ScoringInput("7", GOLD, GOLD, {"db_id": "opera"})]
    with pytest.raises(DataError, match=rf"id '7': there is no database 'opera' in {databases}"):
        list(score_rows(rows, Options(databases=databases)))
    with pytest.raises(DataError, match=r"id '7': the row has no meta \"db_id\""):
        list(score_rows([ScoringInput("7", GOLD, GOLD)], Options(databases=databases)))
    with pytest.raises(DataError, match="there is no such folder"):
        score_rows(rows, Options(databases=databases / "none"))


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
            yield ScoringInput(str(i), GOLD, GOLD, {"db_id": "music"})

    results = score_rows(rows(), Options(databases=databases, workers=1))  # type: ignore[arg-type]
    assert next(results).id == "0"
    assert taken < 100
    results.close()  # type: ignore[attr-defined]
    assert [t.name for t in threading.enumerate() if "ThreadPool" in t.name] == []


def test_a_database_that_changed_is_read_again(tmp_path: Path) -> None:
    """Also by children that are kept warm."""
    (tmp_path / "d").mkdir()
    row = ScoringInput("1", "SELECT a FROM t", "SELECT 1", {"db_id": "d"})
    for value, expected in ((1, True), (2, False), (1, True)):
        path = tmp_path / "d" / "d.sqlite"
        path.unlink(missing_ok=True)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE t (a)")
            connection.execute("INSERT INTO t VALUES (?)", (value,))
            connection.commit()
        (found,) = score_rows([row], Options(databases=tmp_path, workers=1))
        assert found.scores["execution_accuracy"] is expected


@pytest.mark.parametrize("metrics", [(metric,) for metric in ONE_DATABASE])
def test_one_metric_has_the_verdict_of_all(databases: Path, metrics: tuple[str, ...]) -> None:
    for answer in (GOLD, f"SQL: {GOLD};", "SELECT nme"):
        rows = [ScoringInput("1", GOLD, answer, {"db_id": "music"})]
        (alone,) = score_rows(rows, Options(databases=databases, metrics=metrics))
        (beside,) = score_rows(rows, Options(databases=databases))
        assert set(alone.scores) == set(metrics)
        assert alone.scores[metrics[0]] == beside.scores[metrics[0]]
        assert (alone.verdict == "right") is (beside.verdict == "right")


def test_details_come_in_the_order_of_the_rows(databases: Path) -> None:
    told: list[str] = []
    rows = [ScoringInput(str(i), GOLD, f"SELECT {i}", {"db_id": "music"}) for i in range(100)]
    options = Options(
        databases=databases, workers=2, details=lambda found: told.append(str(found["id"]))
    )
    assert [row.id for row in score_rows(rows, options)] == told


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "d.sqlite").write_bytes(b"not a database" * 100)
    row = ScoringInput("1", "SELECT 1", "SELECT 1", {"db_id": "d"})
    (found,) = score_rows([row], Options(databases=tmp_path))
    assert "d.sqlite (the database cannot be opened" in (find_reason_left_out(found) or "")
    with pytest.raises(DataError, match=r"d\.sqlite: the database cannot be read"):
        groups(row, Options(databases=tmp_path))


@pytest.mark.parametrize(
    ("answer", "strict", "official"),
    [
        ("SELECT name,age FROM singer WHERE age>20", True, True),
        ("SELECT name, age FROM singer s WHERE (s.age) > 20", True, False),
        (f"{GOLD}; {GOLD}", False, True),
        ("SELECT age, name FROM singer WHERE age > 99", True, True),
    ],
)
def test_set_match_and_spelling(databases: Path, answer: str, strict: bool, official: bool) -> None:
    for mode, expected in (("strict", strict), ("official", official)):
        (row,) = score(databases, answer, mode=mode)  # type: ignore[arg-type]
        assert row.scores["exact_set_match"] is expected, mode


NBSP = GOLD.replace(" ", "\u00a0")
# What SQLite reads as the reference's query, up to form, in strict reading.
AROUND = [
    f"{GOLD}; -- over twenty", f"{GOLD} -- over twenty", f"{GOLD};\n/* over */ ;;\n",
    f"{GOLD} /* cut",
    f"-- over twenty\n{GOLD}", f"/* a; b */ {GOLD}", f"\ufeff{GOLD}", f"{GOLD};\ufeff", f";{GOLD}",
    f"\ufeff```sql\r\n{GOLD}; -- over\r\n```", f"**SQL:** {GOLD}", f"The final query: {GOLD}",
    f"### Answer:\n```sql {GOLD} ```", f"```sqlite\n-- over\n{GOLD}", f"sql\n{GOLD};\n```\nDone.",
    f"\u00a0{GOLD};\u00a0", f"SQLQuery: {GOLD}",
    f"````md\n```sql\n{GOLD}\n```\n````", f"`{GOLD}`",
    f"```sql\nSELECT 1\n```\nNo:\n~~~sql\n{GOLD}\n~~~\nIt gives:\n```\nAda, 30\n```",
    f"```sql\n{GOLD}\n```\n```\nSELECTED: Ada\n```",
    f"<think>```sql\nSELECT 1\n``` or</think>```sql\n{GOLD}\n```",
]  # fmt: skip


@pytest.mark.parametrize("with_databases", [True, False])
def test_what_stands_around_a_query(databases: Path, with_databases: bool) -> None:
    found = score(databases if with_databases else None, *AROUND)
    assert [AROUND[int(row.id)] for row in found if row.verdict != "right but for form"] == []
    for row in found:
        assert [metric for metric, value in row.scores.items() if not value] == ["exact_match"]


def test_official_mode_takes_nothing_off(databases: Path) -> None:
    fenced = [f"```sql\n{GOLD}\n```", f"<think>no</think>{GOLD}", f"<think>{GOLD}", f"`{GOLD}`"]
    for row in score(databases, *fenced, mode="official"):
        assert not any(row.scores.values())
        assert row.verdict == "syntax error"
    (comment,) = score(databases, f"{GOLD}; -- over twenty", mode="official")
    assert comment.scores["execution_accuracy"]
    assert comment.scores["valid_format"]


@pytest.mark.parametrize(
    ("answer", "valid"),
    [
        ("SELECT nme FROM nowhere", True),  # what it names is another matter
        ("WITH t AS (SELECT 1 AS a) SELECT a FROM t", True),
        ("VALUES (1), (2)", True),
        ("SELECT name FROM singer NOT INDEXED", True),
        ("SELECT ';' || \"a;b\" || `c;` || [d;] FROM singer", True),
        ("SELECT name FROM singer WHERE age NOTNULL", True),
        ("SELECT 1 -- ; SELECT 2", True),
        (NBSP, False),
        (f"{NBSP};", False),
        ("SELECT\u3000name FROM singer", False),
        ("SELECT name FROM singer WHERE name = \u2018Ada\u2019", True),  # the name of a column
        ("SELECT 1; SELECT 2", False),
        ("SELECT 1; I hope this helps", False),
        ("(SELECT 1)", False),
        ("EXPLAIN SELECT 1", False),
        ("PRAGMA table_info(singer)", False),
        ("WITH t AS (SELECT 1) DELETE FROM singer", False),
        ("SELECT name FROM", False),
        ("SELECT name FROM singer WHERE name = 'Ada", False),
        ("SELECT name FROM singer ORDER BY 1 UNION SELECT 1", False),
        ("-- nothing", False),
        ("SELECT 1\0", False),
    ],
)
def test_a_query_is_what_sqlite_reads_as_one(databases: Path, answer: str, valid: bool) -> None:
    for folder in (databases, None):
        (row,) = score(folder, answer)
        assert row.scores["valid_format"] is valid
        if not valid:
            assert [metric for metric in row.scores if row.scores[metric]] in (
                [], ["normalized_match"],
            )  # fmt: skip
            assert not row.verdict.startswith("right")
