"""References that cannot be used: found before anything is done, and left out for everybody."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.helpers import Cli

import tuneoff
from tuneoff.errors import ConfigError, DataError, RunDirectoryError
from tuneoff.rundir import RunDir

SLOW = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"
TEXT = """\
name: checked
data_dir: data
task: {{id: text_to_sql, source: spider-create-context, seconds: {seconds}{more}}}
contenders:
  - {{name: a, id: recorded, predictions: a.jsonl}}
  - {{name: b, id: recorded, predictions: b.jsonl}}
"""


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


@pytest.mark.parametrize("mode", ["strict", "official"])
def test_a_few_are_left_out_for_every_contender(tmp_path: Path, cli: Cli, mode: str) -> None:
    derived = ", mode: official, derived_databases: 1" if mode == "official" else ""
    file = sql_bakeoff(tmp_path, {3: SLOW, 30: "SELECT nme FROM item"}, more=derived)
    where = tmp_path / "data" / "spider" / "databases" / "shop" / "shop.sqlite"
    said = (
        "2 of the 40 references of the test set cannot be used, so they are left out for every "
        f"contender alike: spider-test-00004: it does not run on {where} (timeout); "
        f"spider-test-00031: it does not run on {where} (no such column: nme). Correct them, or "
        "raise task.seconds (0.3)"
    )
    code, out, _ = cli("check", str(file))
    assert (code, f"warning: {said}." in out) == (0, True)
    code, out, err = cli("run", str(file), "--run-dir", str(tmp_path / "run"), "--json")
    assert code == 0
    assert f"warning: {said}; this run takes corrected files with --fresh-data." in err
    results = RunDir(tmp_path / "run").results()
    assert figures(results) == {"a": (38, 38), "b": (38, 19)}
    assert {c.scores["exact_match"].n for c in results.contenders} == {38}
    assert list(results.left_out) == ["spider-test-00004", "spider-test-00031"]
    assert results.split_sizes["test"] == len(RunDir(tmp_path / "run").examples("test")) == 40
    report = (tmp_path / "run" / "report.md").read_text()
    assert "2 of 40 test examples, for their references cannot be used" in report
    assert "SELECT nme FROM item" not in report
    again = tuneoff.run(tuneoff.load(file), tmp_path / "run", only="a")
    assert figures(again) == figures(results)
    assert tuneoff.compare_runs([tmp_path / "run", tmp_path / "run"])["worse"] is False


def test_many_stop_it_before_anything_is_done(tmp_path: Path, cli: Cli) -> None:
    file = sql_bakeoff(tmp_path, dict.fromkeys((1, 2, 39), "SELECT x FROM nowhere"))
    for command in (["check", str(file)], ["run", str(file), "--run-dir", str(tmp_path / "run")]):
        code, _, err = cli(*command)
        assert (code, "3 of the 40 references of the test set cannot be used, more than 5%" in err,
                "(no such table: nowhere); nothing was tuned or paid. Correct them." in err,
                (tmp_path / "run").exists()) == (2, True, True, False)  # fmt: skip
    sql_bakeoff(tmp_path, {})
    assert figures(tuneoff.run(tuneoff.load(file), tmp_path / "run"))["a"] == (40, 40)


def test_time_and_memory_may_change_in_a_run(tmp_path: Path) -> None:
    """A million steps take longer than 10 ms and less than a minute."""
    steps = SLOW.replace("FROM c)", "FROM c WHERE x < 1000000)")
    file = sql_bakeoff(tmp_path, {0: steps}, seconds=0.01)
    left_out = tuneoff.run(tuneoff.load(file), tmp_path / "run").left_out
    assert "spider-test-00001" in left_out
    file.write_text(TEXT.format(seconds=60, more=", memory_gb: 0.9"))
    results = tuneoff.run(tuneoff.load(file), tmp_path / "run")
    assert (results.left_out, figures(results)["a"]) == ({}, (40, 39))
    assert results.settings["task"]["memory_gb"] == 0.9
    file.write_text(TEXT.format(seconds=60, more="").replace("seconds: 60", "seconds: 0"))
    with pytest.raises(ConfigError, match=r"seconds"):
        tuneoff.load(file)


def test_a_run_begun_before_goes_on_without_them(tmp_path: Path) -> None:
    """Its data and answers are there; what is left to do is only scoring, which is not refused."""
    file, bakeoff = sql_bakeoff(tmp_path, {}), tmp_path / "run"
    tuneoff.run(tuneoff.load(file), bakeoff)
    rows = [json.loads(line) for line in (bakeoff / "data" / "test.jsonl").open()]
    for row in rows[:3]:
        row["completion"] = "SELECT"
    (bakeoff / "data" / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert figures(tuneoff.run(tuneoff.load(file), bakeoff)) == {"a": (37, 37), "b": (37, 17)}
    answers = bakeoff / "contenders" / "b" / "predictions.jsonl"
    answers.write_text("".join(answers.open().readlines()[:-1]))
    with pytest.raises(DataError, match=r"more than 5%.*takes corrected files with --fresh-data"):
        tuneoff.run(tuneoff.load(file), bakeoff)


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
    scored = [json.loads(line) for line in (tmp_path / "o.jsonl").open()]
    assert [bool(row["scores"]) for row in scored] == [True, False, False, True, False, False]
    path.write_text(json.dumps(rows[1]) + "\n")
    code, _, err = cli(*score, str(path))
    assert (code, "Nothing was scored." in err) == (2, True)


def test_fresh_data_scores_again_what_was_corrected(tmp_path: Path, cli: Cli) -> None:
    file, run = sql_bakeoff(tmp_path, {5: SLOW}), tmp_path / "run"
    before = tuneoff.run(tuneoff.load(file), run)
    assert figures(before)["a"] == (39, 39)
    answers = run / "contenders" / "a" / "predictions.jsonl"
    stamp = answers.stat().st_mtime_ns
    sql_bakeoff(tmp_path, {6: "SELECT name FROM item WHERE id = 7 - 1"})
    code, _, err = cli("run", str(file), "--run-dir", str(run))
    assert (code, "differ from this run's own data (2 test rows with other references)" in err,
            "--fresh-data takes them anew" in err) == (0, True, True)  # fmt: skip
    assert figures(RunDir(run).results())["a"] == (39, 39)
    code, _, err = cli("run", str(file), "--run-dir", str(run), "--fresh-data")
    assert (code, "taken anew: 2 test rows with other references" in err) == (0, True)
    results = RunDir(run).results()
    assert (figures(results)["a"], results.left_out) == ((40, 40), {})
    assert results.content_sha256 != before.content_sha256
    assert answers.stat().st_mtime_ns == stamp
    assert not (run / "data" / "fresh-data.json").exists()
    sql_bakeoff(tmp_path, dict.fromkeys((1, 2, 3), "SELECT"))  # refused: nothing is changed
    code, _, err = cli("run", str(file), "--run-dir", str(run), "--fresh-data")
    assert (code, "more than 5%" in err) == (2, True)
    assert figures(tuneoff.run(tuneoff.load(file), run))["a"] == (40, 40)
    for other in ("--fresh", "--only=a"):
        code, _, err = cli("run", str(file), "--run-dir", str(run), "--fresh-data", "--yes", other)
        assert (code, f"drop {other.split('=')[0]}" in err) == (2, True)
    (tmp_path / "data" / "spider_create_context" / "train.jsonl").write_text(
        (tmp_path / "data" / "spider_create_context" / "train.jsonl")
        .read_text()
        .replace("9?", "8!")
    )
    with pytest.raises(RunDirectoryError, match=r"--fresh-data: train rows have changed"):
        tuneoff.run(tuneoff.load(file), run, fresh_data=True)
