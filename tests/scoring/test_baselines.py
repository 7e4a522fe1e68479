"""Answers without a model, and what a run makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tuneoff.records import Example
from tuneoff.scoring import baselines
from tuneoff.scoring.baselines import find_most_frequent, find_nearest_answers
from tuneoff.storage.run_dir import RunDir


def example(number: int, text: str, answer: str) -> Example:
    return Example(f"e{number}", {"question": text}, answer)


def test_the_most_frequent_answer_needs_two_percent() -> None:
    rare = [example(n, "x", str(n)) for n in range(99)]
    assert find_most_frequent([*rare, example(99, "x", "7")]) == ("7", 0.02)
    assert find_most_frequent(rare) is None
    assert find_most_frequent([]) is None


@pytest.mark.parametrize(
    ("train", "asked", "expected"),
    [
        (["how many red ships are there", "name the tallest tower"], "the red ship, how many", 0),
        # A word that all have says nothing, however often it comes.
        (["please please please open", "please shut the door"], "please please the door", 1),
        (["船は何隻ありますか", "塔の高さは何メートルですか"], "塔はどの高さ", 1),
        (["Сколько кораблей", "Высота башни"], "какова высота", 1),
        (["a b c", "d e f"], "nothing in common", 0),
    ],
)
def test_the_nearest_example_is_near_by_words(train: list[str], asked: str, expected: int) -> None:
    known = [example(n, text, str(n)) for n, text in enumerate(train)]
    assert find_nearest_answers(known, [example(9, asked, "?")]) == [str(expected)]


def test_who_speaks_and_the_middle_of_a_long_input_do_not_count() -> None:
    def chat(*texts: str) -> Example:
        turns = [{"role": "user", "content": text} for text in texts]
        return Example(texts[0][:9], {"messages": turns}, texts[-1][:9])

    middle = "lighthouse " * 5_000
    known = [chat(f"alpha {middle} beta"), chat("user user gamma")]
    assert find_nearest_answers(known, [chat("user gamma")]) == ["user user"]
    assert find_nearest_answers(known, [chat(f"alpha {middle} beta")]) == ["alpha lig"]


def test_without_words_there_is_no_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_nearest_answers([example(1, "?!", "a")], [example(2, "?", "b")]) is None
    assert find_nearest_answers([], [example(2, "x", "b")]) is None
    monkeypatch.setattr(baselines, "MAX_EXAMPLES", 3)
    many = [example(n, f"word{n}", str(n)) for n in range(40)]
    assert len(set(find_nearest_answers(many, many) or [])) == 3


def write_run(folder: Path, rows: list[tuple[str, str]], answers: list[str], **task: Any) -> Path:
    """A bake-off of answers that were made elsewhere: 60 training examples, `rows` to test on."""
    train = [(f"is item {n} large", "yes" if n % 3 else "no") for n in range(60)]
    for name, pairs in (("train", train), ("validation", train[:2]), ("test", rows)):
        (folder / f"{name}.jsonl").write_text(
            "".join(
                json.dumps({"prompt": f"{q} ({name})", "completion": a}) + "\n" for q, a in pairs
            )
        )
    for name, given in (("old", ["yes"] * len(rows)), ("new", answers)):
        (folder / f"{name}.jsonl").write_text(
            "".join(
                json.dumps({"id": f"test-{n}", "prediction": a}) + "\n"
                for n, a in enumerate(given, 1)
            )
        )
    file = {
        "name": "bar",
        "task": {
            "id": "chat",
            **{name: f"{name}.jsonl" for name in ("train", "validation", "test")},
            "metrics": ["exact_match"],
            **task,
        },
        "migrating_from": "old",
        "contenders": [
            {"name": name, "id": "recorded", "predictions": f"{name}.jsonl"}
            for name in ("old", "new")
        ],
    }
    (folder / "b.yaml").write_text(yaml.safe_dump(file))
    return folder / "b.yaml"


def test_a_run_says_what_is_not_better_than_no_model(tmp_path: Path, cli: Any) -> None:
    """40 of 60 say yes; the new model is right in 22 of 40, which always saying yes beats."""
    rows = [(f"is thing {n} large", "yes" if n % 3 else "no") for n in range(40)]
    answers = [a if n < 22 else "perhaps" for n, (_, a) in enumerate(rows)]
    file, run = write_run(tmp_path, rows, answers), RunDir(tmp_path / "run")
    code, out, err = cli("run", file, "--run-dir", run.path)
    assert code == 0, err
    found = run.results()
    frequent, nearest = found.baselines
    assert (frequent.name, frequent.answer) == ("most frequent answer", "yes")
    assert frequent.share == pytest.approx(40 / 60)
    assert frequent.scores["exact_match"].value == 26 / 40
    assert {pair.a for pair in frequent.comparisons} == {"old", "new"}
    assert nearest.answer is None
    assert {pair.b for pair in found.comparisons} <= {"old", "new"}
    assert found.recommendation.choice == "new"
    kinds = [each.kind for each in found.recommendation.caveats]
    assert kinds[:2] == ["unproven", "baseline"]
    headline = next(line for line in out.splitlines() if line.startswith("Use "))
    assert headline.startswith("Use new: it may lose more than 3 points against old, which is")
    assert "not shown to be better than always answering “yes” (65.0%)" in headline
    assert f"**{headline}**" in (run.path / "report.md").read_text()
    assert "Without a model, always answering “yes” (66.7% of the training answers)" in out
    # Nothing is looked for twice; how answers are scored may change.
    file.write_text(file.read_text().replace("exact_match", "normalized_match"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tuneoff.bakeoff.baselines.find_nearest_answers", None)
        code, _, err = cli("run", file, "--run-dir", run.path)
    assert code == 0, err
    assert "not scored" not in err
    assert list(run.results().baselines[1].scores) == ["normalized_match"]


def test_a_metric_that_fails_on_a_baseline_costs_only_the_bar(tmp_path: Path, cli: Any) -> None:
    (tmp_path / "own.py").write_text(
        "def score(example, prediction):\n"
        "    if prediction == 'no':\n"
        "        raise ValueError('cannot read no')\n"
        "    return float(prediction == example.completion)\n"
    )
    rows = [(f"is thing {n} large", "yes") for n in range(8)]
    file = write_run(tmp_path, rows, ["yes"] * 8, metrics=["own.py"])
    code, _, err = cli("run", file, "--run-dir", tmp_path / "run")
    assert code == 0, err
    assert "nearest example: this baseline was not scored: " in err
    found = RunDir(tmp_path / "run").results()
    assert [each.name for each in found.baselines] == ["most frequent answer"]
    assert found.recommendation.choice == "new"


def test_what_is_left_must_be_a_contender(tmp_path: Path, cli: Any) -> None:
    file = write_run(tmp_path, [("x", "yes")], ["yes"])
    file.write_text(file.read_text().replace("migrating_from: old", "migrating_from: odl"))
    code, _, err = cli("check", file)
    assert code == 2
    assert "migrating_from: unknown contender 'odl' (allowed: new, old; did you mean old?)" in err
