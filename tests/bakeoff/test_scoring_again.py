"""A bake-off scored, and scored again in another way: nothing else is done twice."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import tuneoff
from tuneoff.bakeoff import run as bakeoff
from tuneoff.errors import ConfigError, DataError, RunDirectoryError
from tuneoff.progress import SilentProgress
from tuneoff.records import Example, Prediction
from tuneoff.scoring.base import RULES, build_scoring_inputs
from tuneoff.storage.run_dir import RunDir
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


def test_thoughts_and_the_rules_that_scores_were_made_by(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An old run has no rules: what is scored again gets those of now, the rest keeps its own."""
    rows = [json.loads(line) for line in (folder / "wrong.jsonl").read_text().splitlines()]
    for number, row in enumerate(rows):
        row["prediction"] = "A count.</think>SELECT 1" if number % 3 else "<think>A count"
    (folder / "wrong.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    heard: list[str] = []

    class Says(SilentProgress):
        def say(self, line: str) -> None:
            heard.append(line)

    (folder / "b.yaml").write_text(TEXT.format(task=""))
    file, kept = tuneoff.load(folder / "b.yaml"), folder / "run" / "contenders"
    results = tuneoff.run(file, folder / "run", progress=Says())
    assert results.rules == {**RULES, "tests": 2}
    found = results.contenders[1].error_classes["a thought without its end"]
    warning = f"warning: wrong: {found} of 30 answers are a thought without its end"
    assert any(line.startswith(warning) for line in heard)
    answers = (kept / "wrong" / "predictions.jsonl").read_text()
    assert answers.count("A count.</think>SELECT 1") == 30 - found
    assert "answer text 2" in (folder / "run" / "report.html").read_text()
    for name in ("gold", "wrong"):  # as an earlier version left them
        (kept / name / "scoring.json").unlink()
    monkeypatch.setattr(bakeoff, "write_report", lambda run: None)
    old = tuneoff.run(file, folder / "run", only="wrong", progress=Says())
    assert [dict(c.rules) for c in old.contenders] == [{}, RULES]
    assert old.rules == {"tests": 2}
    assert heard[-1].startswith("warning: gold: scored by older rules")


def test_an_answer_that_was_cut_in_a_thought_of_its_prompt() -> None:
    """Other answers of the contender show that its prompts begin thoughts."""
    texts = {"a": "A count.</think>x", "b": "A count of all the", "c": "x", "d": "one</think>x"}
    reasons = {"a": "stop", "b": "length", "c": "stop", "d": "length"}
    predictions = {id: Prediction(id, texts[id], finish_reason=reasons[id]) for id in texts}
    test = [Example(id, {}, "x") for id in texts]
    rows = build_scoring_inputs(test, predictions)
    assert [row.id for row in rows if row.is_unfinished] == ["b"]
    assert [row.prediction for row in rows] == ["x", "", "x", "x"]
    del predictions["a"], predictions["d"]
    assert not any(row.is_unfinished for row in build_scoring_inputs(test, predictions))
