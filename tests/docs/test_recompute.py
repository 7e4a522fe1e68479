"""`docs/recompute.py` on a run of recorded answers: what agrees, and what it notices."""

from __future__ import annotations

import ast
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import load_recompute, recompute

import tuneoff

DOCS = Path(__file__).parent.parent.parent / "docs"
FRACTION = "def score(example, prediction):\n    return len(prediction) / 40\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 120 questions in 20 unequal clusters, answered by three contenders: flips are
    drawn, of yes/no answers and of fractions."""
    folder, rng = tmp_path_factory.mktemp("recorded"), random.Random(1)
    test = [example(i, rng) for i in range(120)]
    write(folder / "test.jsonl", test)
    for name, others in (("train", 6), ("validation", 4)):
        write(folder / f"{name}.jsonl", [example(1000 * others + i, rng) for i in range(others)])
    (folder / "mine.py").write_text(FRACTION)
    contenders = []
    for name, share in (("a", 0.8), ("b", 0.75), ("c", 0.4)):
        rows = [{"id": f"t{i}", "prediction": answer(i, rng.random() < share)} for i in range(120)]
        write(folder / f"{name}.jsonl", rows)
        contenders.append({"name": name, "id": "recorded", "predictions": f"{name}.jsonl"})
    task = {"id": "chat", "cluster": "topic", "metrics": ["exact_match", "./mine.py"]}
    files = {name: f"{name}.jsonl" for name in ("train", "validation", "test")}
    bakeoff = {
        "name": "recorded", "task": {**task, **files}, "requirements": {"margin_points": 5},
        "contenders": contenders,
    }  # fmt: skip
    (folder / "b.yaml").write_text(json.dumps(bakeoff))
    tuneoff.run(tuneoff.load(folder / "b.yaml"), folder / "run")
    return folder / "run"


def example(i: int, rng: random.Random) -> dict[str, Any]:
    turns = [("user", f"What is {i} and {i % 7}?"), ("assistant", f"It is {i + i % 7}.")]
    if i in (6000, 6001):  # the most frequent training answer is long
        turns[1] = ("assistant", "I do not know. " * 20)
    messages = [{"role": role, "content": content} for role, content in turns]
    return {"id": f"t{i}", "messages": messages, "meta": {"topic": int(20 * rng.random() ** 2)}}


def answer(i: int, right: bool) -> str:
    thought = "<think>Add them.</think> " * (i % 3 == 0)
    return f"{thought}It is {i + i % 7}." if right else "```\nI do not know\n```" * (i % 5)


def write(file: Path, rows: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_every_figure_agrees(run: Path) -> None:
    found = recompute(run)
    assert (found.wrong, found.not_made) == ([], {})
    assert found.compared["row scores"] == (3 + 2) * 120 * 2, "contenders and baselines"
    results = json.loads((run / "results.json").read_text())
    assert {pair["test"] for pair in results["comparisons"]} == {"cluster sign-flip"}
    assert results["comparisons"][0]["units"] > 16


def spoil_p(results: Any) -> None:
    results["comparisons"][1]["p_adjusted"] *= 1.001


def spoil_bound(results: Any) -> None:
    results["contenders"][0]["scores"]["mine"]["high"] += 1e-6


def spoil_bar(results: Any) -> None:
    results["baselines"][1]["comparisons"][2]["p_value"] += 1e-6


def spoil_choice(results: Any) -> None:
    results["recommendation"]["choice"] = "c"


@pytest.mark.parametrize(
    ("spoil", "kind", "where"),
    [
        (spoil_p, "adjusted p-values", "a against c.p_adjusted"),
        (spoil_bound, "intervals of scores", "a.scores.mine.high"),
        (spoil_bar, "p-values", "c against nearest example.p_value"),
        (spoil_choice, "ranks", "recommendation.choice"),
    ],
)
def test_a_wrong_figure_is_named(
    run: Path, spoil: Callable[[Any], None], kind: str, where: str
) -> None:
    file = run / "results.json"
    before = file.read_bytes()
    results = json.loads(before)
    spoil(results)
    try:
        file.write_text(json.dumps(results))
        found = recompute(run)
    finally:
        file.write_bytes(before)
    assert [(each["kind"], each["where"]) for each in found.wrong] == [(kind, where)]


@pytest.mark.parametrize("rules", [None, {"answer_text": 2}])
def test_bad_input_is_one_sentence(
    rules: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = "there is no results.json; give the folder of a finished run."
    if rules is not None:
        (tmp_path / "results.json").write_text(json.dumps({"schema": 1, "rules": rules}))
        sentence = (
            "its tests are of version 1 (rules.tests), not 2; carry out `tuneoff run` with the "
            "run's file again, which computes them anew."
        )
    assert load_recompute().main([str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"Error: {tmp_path}: {sentence}\n"


def test_it_imports_nothing_of_tuneoff() -> None:
    used = set()
    for file in (DOCS / "recompute.py", *(DOCS / "recomputing").glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                used |= {alias.name.split(".")[0] for alias in node.names}
            if isinstance(node, ast.ImportFrom):
                used.add(str(node.module).split(".")[0])
    assert used - set(sys.stdlib_module_names) - {"recomputing"} == {"numpy", "scipy"}
