"""Runs side by side: real runs of recorded answers, so that what is right is known."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from helpers import Cli

import tuneoff
from tuneoff.bakeoff.compare import compare_runs
from tuneoff.errors import ConfigError, DataError, RunDirectoryError

COUNT = 60
Make = Callable[..., Path]


def row(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question},
                         {"role": "assistant", "content": answer}]}  # fmt: skip


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Carries out a run of contenders with so many right answers, the first ones."""

    def made(name: str, right: Mapping[str, int], reference: str = "yes", metric: str = "") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for split, first, count in (("train", 500, 2), ("validation", 600, 2), ("test", 0, COUNT)):
            lines = [row(f"Is {n} a number?", reference) for n in range(first, first + count)]
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (folder / f"{split}.jsonl").write_text(text)
        contenders = []
        for contender, count in right.items():
            rows = [
                {"id": f"test-{n}", "prediction": reference if n <= count else "no"}
                for n in range(1, COUNT + 1)
            ]
            text = "".join(json.dumps(line) + "\n" for line in rows)
            (folder / f"{contender}.jsonl").write_text(text)
            contenders.append(f"  - {{name: {contender}, id: recorded, model: m, "
                              f"predictions: {contender}.jsonl}}\n")  # fmt: skip
        metrics = f", metrics: [{metric}]" if metric else ""
        file = folder / "b.yaml"
        file.write_text(
            f"name: {name}\ntask: {{id: chat, train: train.jsonl, validation: validation.jsonl, "
            f"test: test.jsonl{metrics}}}\ncontenders:\n{''.join(contenders)}"
        )
        tuneoff.run(tuneoff.load(file), folder / "run")
        return folder / "run"

    return made


def test_what_got_better_worse_and_neither(make: Make) -> None:
    before = make("before", {"a": 50, "b": 20, "c": 30, "gone": 10})
    now = make("now", {"a": 30, "b": 45, "c": 32, "new": 60})
    found = compare_runs([before, now])
    verdicts = {each["contender"]: each["verdict"] for each in found["changes"]}
    assert verdicts == {"a": "worse", "b": "better", "c": "tie"}
    assert found["worse"]
    (worse,) = (each for each in found["changes"] if each["contender"] == "a")
    assert worse["difference"] == pytest.approx(-20 / COUNT)
    assert worse["examples"] == COUNT
    assert worse["low"] < worse["difference"] < worse["high"] < 0
    assert worse["p_value"] == pytest.approx(2 * 0.5**20)  # exact McNemar: 20 of 20 one way
    assert worse["p_adjusted"] == 1 / 10_001  # the least of so many flips
    assert worse["outcome"] == "b better"
    assert worse["low_adjusted"] < worse["low"] < worse["difference"]
    rows = {each["name"]: each["runs"] for each in found["contenders"]}
    assert rows["gone"][1] is None
    assert rows["new"][0] is None
    assert rows["a"][1]["value"] == pytest.approx(0.5)


def test_several_runs_are_each_held_against_the_first(make: Make) -> None:
    runs = [make("one", {"a": 50}), make("two", {"a": 50}), make("three", {"a": 10})]
    changes = compare_runs(runs)["changes"]
    assert [(each["run"], each["verdict"]) for each in changes] == [
        (str(runs[1]), "tie"), (str(runs[2]), "worse"),
    ]  # fmt: skip


def test_runs_without_a_common_name_are_compared_by_their_choices(make: Make) -> None:
    before, now = make("before", {"old": 20}), make("now", {"new": 50})
    (change,) = compare_runs([before, now])["changes"]
    assert (change["contender"], change["before"], change["verdict"]) == ("new", "old", "better")


def test_only_the_same_examples_are_compared(make: Make) -> None:
    before, now = make("before", {"a": 50}), make("now", {"a": 50}, reference="no doubt")
    with pytest.raises(DataError, match="no test example in common"):
        compare_runs([before, now])


def test_runs_judged_by_different_metrics_are_refused(make: Make) -> None:
    before = make("before", {"a": 50})
    now = make("now", {"a": 50}, metric="normalized_match")
    with pytest.raises(ConfigError, match=r"judged by normalized_match, .* by exact_match"):
        compare_runs([before, now])


def test_one_run_or_none_is_refused(make: Make, tmp_path: Path) -> None:
    before = make("before", {"a": 50})
    with pytest.raises(ConfigError, match="two run directories"):
        compare_runs([before])
    with pytest.raises(RunDirectoryError):
        compare_runs([before, tmp_path / "nothing"])


def test_the_command_says_it_and_fails_if_asked(make: Make, cli: Cli) -> None:
    before, now = make("before", {"a": 50, "b": 20}), make("now", {"a": 30, "b": 45})
    code, out, _ = cli("compare", before, now)
    assert code == 0
    assert "83.3%" in out
    assert "a: worse by 33.3 points" in out
    assert "b: better by 41.7 points" in out
    assert cli("compare", before, now, "--fail-if-worse")[0] == 1
    assert cli("compare", before, before, "--fail-if-worse")[0] == 0
    code, out, _ = cli("compare", before, now, "--json")
    assert json.loads(out)["worse"] is True
    assert code == 0


def test_a_contender_that_failed_is_worse(make: Make, cli: Cli) -> None:
    before, now = make("before", {"a": 50, "b": 20}), make("now", {"a": 50, "b": 20})
    stored = json.loads((now / "results.json").read_text())
    stored["contenders"][1]["error"] = "out of memory"
    (now / "results.json").write_text(json.dumps(stored))
    found = compare_runs([before, now])
    assert [each["verdict"] for each in found["changes"]] == ["tie", "failed"]
    assert "b failed: out of memory" in found["changes"][1]["sentence"]
    assert cli("compare", before, now, "--fail-if-worse")[0] == 1


def test_a_contender_that_was_left_out_is_worse(make: Make) -> None:
    before, now = make("before", {"a": 50, "b": 20}), make("now", {"a": 50, "b": 20})
    (now / "contenders" / "b" / "scores.jsonl").unlink()
    found = compare_runs([before, now])
    assert [each["verdict"] for each in found["changes"]] == ["tie", "failed"]
    assert found["changes"][1]["sentence"].startswith("b failed: it has no answers in ")
    assert found["worse"]
