"""A bake-off scored, and scored again in another way: nothing else is done twice."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import tuneoff
from tuneoff.errors import ConfigError, DataError, RunDirectoryError
from tuneoff.rundir import RunDir
from tuneoff.tasks.samples import sql

TEXT = """\
name: again
task:
  id: text_to_sql
  source: sample
  limit: {{train: 8, validation: 4, test: 30}}
{task}
contenders:
  - {{name: gold, id: recorded, predictions: gold.jsonl}}
  - {{name: wrong, id: recorded, predictions: wrong.jsonl}}
"""
OWN = "def score(example, prediction):\n    return len(prediction) > len(example.completion) - 1\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(OWN)
    for name, answer in (("gold", None), ("wrong", "SELECT 1")):
        with (tmp_path / f"{name}.jsonl").open("w") as stream:
            for example in sql.generate()["test"]:
                row = {"id": example.id, "prediction": answer or example.completion}
                stream.write(json.dumps(row) + "\n")
    return tmp_path


def run(folder: Path, task: str = "") -> Any:
    (folder / "b.yaml").write_text(TEXT.format(task=task))
    return tuneoff.run(tuneoff.load(folder / "b.yaml"), folder / "run")


def test_everything_that_scoring_tells(folder: Path) -> None:
    results = run(folder, "  derived_databases: 2\n  metrics: [execution_accuracy, "
                  "test_suite_accuracy, ./own.py]")  # fmt: skip
    gold, wrong = results.contenders
    assert list(gold.scores) == ["execution_accuracy", "test_suite_accuracy", "own"]
    assert {score.value for score in gold.scores.values()} == {1.0}
    assert {score.value for score in wrong.scores.values()} == {0.0}
    assert gold.error_classes == {}
    assert sum(wrong.error_classes.values()) == 30
    assert sum(s["execution_accuracy"].n for s in gold.breakdowns["hardness"].values()) == 30
    levels = Counter(found["hardness"] for found in RunDir(folder / "run").groups().values())
    by_level = gold.breakdowns["hardness"]
    assert levels == {level: by_level[level]["execution_accuracy"].n for level in by_level}
    assert '<select data-group="hardness">' in (folder / "run" / "report.html").read_text()
    assert any(name.endswith("/derived-01.sqlite") for name in results.database_sha256)
    details = RunDir(folder / "run").contender("wrong").details()
    assert len(details) == 30
    one = next(iter(details.values()))
    assert one["prediction"]["rows"] == [[1]]
    assert one["reference"]["row_count"] >= 0
    assert results.comparisons[0].verdict == "tie" or results.comparisons[0].p_adjusted < 0.05


def test_how_answers_are_judged_may_change(folder: Path) -> None:
    first = run(folder)
    assert first.primary_metric == "execution_accuracy"
    predictions = folder / "run" / "contenders" / "gold" / "predictions.jsonl"
    stamp = predictions.stat().st_mtime_ns
    again = run(folder, "  mode: official\n  metrics: [exact_set_match]")
    assert again.primary_metric == "exact_set_match"
    assert again.settings["task"]["mode"] == "official"
    assert predictions.stat().st_mtime_ns == stamp
    with pytest.raises(RunDirectoryError, match=r"changed: task\.seed"):
        run(folder, "  seed: 3")


def test_a_cluster_of_one_s_own(folder: Path) -> None:
    with pytest.raises(DataError, match=r"has no 'author' in its meta \(it has: .*db_id"):
        run(folder, "  cluster: author")
    results = run(folder, "  cluster: db_id")
    assert results.comparisons[0].cluster == "db_id"


def test_what_is_for_sql_alone(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(
        "name: x\ntask: {id: functional_representation, source: sample, mode: official}\n"
        "contenders: [{name: a, id: local}]\n"
    )
    with pytest.raises(ConfigError, match=r"task\.mode: only tasks whose answers are SQL"):
        tuneoff.run(tuneoff.load(tmp_path / "b.yaml"), tmp_path / "run")


def test_recorded_answers_that_changed_are_read_again(folder: Path) -> None:
    assert run(folder).contenders[0].scores["execution_accuracy"].value == 1.0
    rows = [json.loads(line) for line in (folder / "gold.jsonl").read_text().splitlines()]
    changed = [{**row, "prediction": "SELECT 1"} for row in rows]
    (folder / "gold.jsonl").write_text("".join(json.dumps(row) + "\n" for row in changed))
    assert run(folder).contenders[0].scores["execution_accuracy"].value == 0.0


def test_answers_of_other_examples_are_refused(folder: Path) -> None:
    (folder / "gold.jsonl").write_text('{"id": "x", "prediction": "SELECT 1"}\n')
    results = run(folder)
    assert "none of its 1 ids is one of the 30 test examples" in (results.contenders[0].error or "")
