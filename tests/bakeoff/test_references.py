"""References that cannot be used: found before anything is done, and left out for everybody."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from helpers import Cli

import tuneoff
from tuneoff import environment
from tuneoff.bakeoff import run as bakeoff
from tuneoff.bakeoff.compare import compare_runs
from tuneoff.errors import ConfigError, DataError
from tuneoff.report.view import build_view
from tuneoff.storage.run_dir import RunDir

SLOW = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"
TEXT = """\
name: checked
data_dir: data
task: {{id: text_to_sql, source: spider-create-context, seconds: {seconds}{more}}}
contenders:
  - {{name: a, id: recorded, predictions: a.jsonl}}
  - {{name: b, id: recorded, predictions: b.jsonl}}
"""


@pytest.fixture(autouse=True)
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what is not about the report, which takes longer than all else."""
    monkeypatch.setattr(bakeoff, "write_report", lambda run: (run.path, run.path))
    monkeypatch.setattr(environment, "describe_machine", lambda: "a machine")


def sql_bakeoff(
    folder: Path, bad: Mapping[int, str], rows: int = 40, seconds: float = 0.3, more: str = ""
) -> Path:
    """A bake-off whose test set has these references at these places; `a` answers all as they were
    meant, `b` the first half."""
    for db_id in ("shop", "farm"):
        path = folder / "data" / "spider" / "databases" / db_id / f"{db_id}.sqlite"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE item (id INTEGER, name TEXT)")
            connection.executemany(
                "INSERT INTO item VALUES (?, ?)", [(i, f"thing {i}") for i in range(rows)]
            )
            connection.commit()
    data = folder / "data" / "spider_create_context"
    data.mkdir(exist_ok=True)
    for split, db_ids in (("train", ("farm", "shop")), ("validation", ("shop",))):
        with (data / f"{split}.jsonl").open("w") as stream:
            for number in range(rows):
                answer = f"SELECT name FROM item WHERE id = {number}"
                row = {"question": f"{split} {number}?", "context": "item (id, name)",
                       "answer": bad.get(number, answer) if split == "validation" else answer,
                       "db_id": db_ids[number % len(db_ids)]}  # fmt: skip
                stream.write(json.dumps(row) + "\n")
    for name, right in (("a", rows), ("b", rows // 2)):
        with (folder / f"{name}.jsonl").open("w") as stream:
            for number in range(rows):
                answer = f"SELECT name FROM item WHERE id = {number if number < right else -1}"
                row = {"id": f"spider-test-{number + 1:05d}", "prediction": answer}
                stream.write(json.dumps(row) + "\n")
    file = folder / "b.yaml"
    file.write_text(TEXT.format(seconds=seconds, more=more))
    return file


def figures(results: Any) -> dict[str, tuple[int, float]]:
    scores = {c.name: c.scores["execution_accuracy"] for c in results.contenders}
    return {name: (score.n, round(score.value * score.n)) for name, score in scores.items()}


def test_a_few_are_left_out_for_every_contender_until_they_are_corrected(
    tmp_path: Path, cli: Cli
) -> None:
    steps = SLOW.replace("FROM c)", "FROM c WHERE x < 2000000)")  # more than 0.1 s, no minute
    bad = {3: SLOW, 8: steps, 30: "SELECT nme FROM item"}
    how = ", mode: official, derived_databases: 1"
    file, run = sql_bakeoff(tmp_path, bad, 60, 0.1, how), tmp_path / "run"
    where = tmp_path / "data" / "spider" / "databases" / "shop" / "shop.sqlite"
    said = (
        "3 of the 60 references of the test set cannot be used, so they are left out for every "
        f"contender alike: spider-test-00004: it does not run on {where} (timeout); "
        f"spider-test-00009: it does not run on {where} (timeout); "
        f"spider-test-00031: it does not run on {where} (no such column: nme). Correct them, or "
        "raise task.seconds (0.1)"
    )
    code, out, _ = cli("check", str(file))
    assert (code, f"warning: {said}." in out) == (0, True)
    command = ("run", str(file), "--run-dir", str(run))
    code, _, err = cli(*command, "--json")
    assert code == 0
    assert f"warning: {said}; this run takes corrected files with --fresh-data." in err
    before = RunDir(run).results()
    assert figures(before) == {"a": (57, 57), "b": (57, 28)}
    assert {c.scores["exact_match"].n for c in before.contenders} == {57}
    assert list(before.left_out) == ["spider-test-00004", "spider-test-00009", "spider-test-00031"]
    assert before.split_sizes["test"] == len(RunDir(run).examples("test")) == 60
    said_there = dict(build_view(before)["how"])["Left out"]
    assert said_there.startswith("3 of 60 test examples, for their references cannot be used: spi")
    assert compare_runs([run, run])["changes"][0]["examples"] == 57

    # A run does not take corrected files by itself.
    answers = run / "contenders" / "a" / "predictions.jsonl"
    stamp = answers.stat().st_mtime_ns
    corrected = {8: steps, 6: "SELECT name FROM item WHERE id = 7 - 1"}
    sql_bakeoff(tmp_path, corrected, 60, 0.1, how)
    code, _, err = cli(*command)
    assert (code, "differ from this run's own data (3 test rows with other references)" in err,
            "--fresh-data takes them anew" in err) == (0, True, True)  # fmt: skip
    assert RunDir(run).results().left_out == before.left_out
    sql_bakeoff(tmp_path, corrected, 60, 60, how)  # and more time for what is slow
    code, _, err = cli(*command, "--fresh-data")
    assert (code, "taken anew: 3 test rows with other references" in err) == (0, True)
    after = RunDir(run).results()
    assert (figures(after), after.left_out) == ({"a": (60, 59), "b": (60, 29)}, {})
    assert after.content_sha256 != before.content_sha256
    assert answers.stat().st_mtime_ns == stamp
    assert not (run / "data" / "fresh-data.json").exists()

    # What is refused changes nothing.
    kept = (run / "data" / "test.jsonl").read_bytes()
    sql_bakeoff(tmp_path, dict.fromkeys((1, 2, 3, 4), "SELECT"), 60, 60, how)
    code, _, err = cli(*command, "--fresh-data")
    assert (code, "more than 5%" in err) == (2, True)
    for other in ("--fresh", "--only=a"):
        code, _, err = cli(*command, "--fresh-data", "--yes", other)
        assert (code, f"drop {other.split('=')[0]}" in err) == (2, True)
    sql_bakeoff(tmp_path, {}, 60, 60, how)
    train = tmp_path / "data" / "spider_create_context" / "train.jsonl"
    train.write_text(train.read_text().replace("train 9?", "train 9a?"))
    code, _, err = cli(*command, "--fresh-data", "--yes")
    assert (code, "--fresh-data: train rows have changed" in err) == (2, True)
    assert (run / "data" / "test.jsonl").read_bytes() == kept


def test_many_stop_it_before_anything_is_done(tmp_path: Path, cli: Cli) -> None:
    file = sql_bakeoff(tmp_path, dict.fromkeys((1, 2, 39), "SELECT x FROM nowhere"))
    for command in (["check", str(file)], ["run", str(file), "--run-dir", str(tmp_path / "run")]):
        code, _, err = cli(*command)
        assert (code, "3 of the 40 references of the test set cannot be used, more than 5%" in err,
                "(no such table: nowhere); nothing was tuned or paid. Correct them." in err,
                (tmp_path / "run").exists()) == (2, True, True, False)  # fmt: skip
    file.write_text(file.read_text().replace("seconds: 0.3", "seconds: 0"))
    with pytest.raises(ConfigError, match=r"seconds"):
        tuneoff.load(file)


def test_a_run_begun_before_goes_on_without_them(tmp_path: Path) -> None:
    """Its data and answers are there; what is left to do is only scoring, which is not refused."""
    file, run = sql_bakeoff(tmp_path, {}), tmp_path / "run"
    tuneoff.run(tuneoff.load(file), run)
    test = run / "data" / "test.jsonl"
    rows = [json.loads(line) for line in test.read_text().splitlines()]
    for row in rows[:3]:
        row["completion"] = "SELECT"
    test.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert figures(tuneoff.run(tuneoff.load(file), run)) == {"a": (37, 37), "b": (37, 17)}
    answers = run / "contenders" / "b" / "predictions.jsonl"
    answers.write_text("".join(answers.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(DataError, match=r"more than 5%.*takes corrected files with --fresh-data"):
        tuneoff.run(tuneoff.load(file), run)
    # To begin anew is refused for the same files before anything is forgotten.
    sql_bakeoff(tmp_path, dict.fromkeys((1, 2, 39), "SELECT"))
    with pytest.raises(DataError, match="more than 5%"):
        tuneoff.run(tuneoff.load(file), run, fresh=True)
    assert answers.exists()


def test_other_scorers_say_what_they_cannot_use(tmp_path: Path, cli: Cli) -> None:
    rows = "".join(
        json.dumps({"id": str(i), "prompt": f"q{i}", "completion": f"f(a[{i}])"}) + "\n"
        for i in range(60)
    )
    (tmp_path / "rows.jsonl").write_text(rows)
    (tmp_path / "own.py").write_text(
        "def score(example, prediction):\n    return prediction == example.inputs\n"
    )
    (tmp_path / "b.yaml").write_text(
        "name: own\ntask: {id: chat, train: rows.jsonl, metrics: [./own.py]}\n"
        "contenders: [{name: a, id: recorded, predictions: rows.jsonl}]\n"
    )
    code, out, _ = cli("check", str(tmp_path / "b.yaml"))
    assert code == 0
    assert "own.py: score() gives 6 of 6 references themselves less than 1" in out
    (tmp_path / "own.py").write_text("def score(example, prediction):\n    return 1 / 0\n")
    code, _, err = cli("run", str(tmp_path / "b.yaml"), "--run-dir", str(tmp_path / "run"))
    assert (code, "own.py: score() failed on example" in err) == (2, True)
    assert not (tmp_path / "run").exists()


def test_scoring_a_file_leaves_them_out_too(tmp_path: Path, cli: Cli) -> None:
    sql_bakeoff(tmp_path, {})
    references = ["SELECT 1", "SELECT x", SLOW, "SELECT 1", "SELEC", "SELECT y"]
    rows = [{"id": str(i), "reference": sql, "prediction": "SELECT 1", "meta": {"db_id": "shop"}}
            for i, sql in enumerate(references)]  # fmt: skip
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    databases = str(tmp_path / "data" / "spider" / "databases")
    score = ["score", "--task", "text_to_sql", "--databases", databases, "--seconds", "0.3",
             "--json", "--out", str(tmp_path / "o.jsonl"), "--predictions"]  # fmt: skip
    code, out, err = cli(*score, str(path))
    found = json.loads(out)
    assert (code, found["n"], found["left_out"], found["error_classes"]) == (0, 2, 4, {})
    assert found["scores"]["execution_accuracy"]["value"] == 1.0
    assert list(found["left_out_first"]) == ["1", "2", "4"]
    assert "warning: 4 of the 6 references cannot be used" in err
    assert "; …. Correct them, or raise --seconds (0.3)." in err
    scored = map(json.loads, (tmp_path / "o.jsonl").read_text().splitlines())
    assert [bool(row["scores"]) for row in scored] == [True, False, False, True, False, False]
    path.write_text(json.dumps(rows[1]) + "\n")
    code, _, err = cli(*score, str(path))
    assert (code, "Nothing was scored." in err) == (2, True)
