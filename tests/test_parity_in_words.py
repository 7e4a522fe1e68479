"""`migrate --parity`: what a run shows of open models against the captured one, from real runs of
recorded answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tuneoff
from tuneoff.errors import DataError
from tuneoff.migration import parity_of


def carried_out(folder: Path, count: int, hosted: int, own: int) -> Path:
    """A run of two recorded contenders, of whose answers so many, the first ones, are right."""
    for split, first, n in (("train", 5000, 2), ("validation", 6000, 2), ("test", 0, count)):
        lines = (
            {"messages": [{"role": "user", "content": f"Is {first + i} a number?"},
                          {"role": "assistant", "content": "yes"}]}
            for i in range(n)
        )  # fmt: skip
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name, right in (("hosted", hosted), ("own", own)):
        rows = (
            {"id": f"test-{i}", "prediction": "yes" if i <= right else "no"}
            for i in range(1, count + 1)
        )
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = folder / "b.yaml"
    file.write_text(
        "name: moved\ntask: {id: chat, train: train.jsonl, validation: validation.jsonl, "
        "test: test.jsonl}\ncontenders:\n"
        "  - {name: hosted, id: recorded, model: m, predictions: hosted.jsonl}\n"
        "  - {name: own, id: recorded, model: n, predictions: own.jsonl}\n"
    )
    tuneoff.run(tuneoff.load(file), folder / "run")
    return folder / "run"


@pytest.mark.parametrize(
    ("count", "hosted", "own", "verdict", "said"),
    [
        # The same answers, but of so few examples.
        (8, 6, 6, "not shown", "Whether own is as good as the hosted model cannot be told"),
        (400, 300, 300, "matches", "own is the same as the hosted model within 3 points"),
        (400, 300, 298, "matches", "own is the same as the hosted model within 3 points"),
        (400, 300, 280, "worse", "own is worse than the hosted model by 5.0 points ["),
        (400, 300, 294, "matches", "own is worse than the hosted model, by less than 3 points"),
        (400, 280, 300, "better", "own is better than the hosted model by 5.0 points ["),
        (60, 50, 49, "not shown", "; about 210 examples of this kind would show that"),
    ],
)
def test_a_match_takes_enough_examples(
    tmp_path: Path, count: int, hosted: int, own: int, verdict: str, said: str
) -> None:
    (found,) = parity_of(carried_out(tmp_path, count, hosted, own))
    assert found["verdict"] == verdict
    assert said in found["sentence"]
    assert "-0.0" not in found["sentence"]
    assert found["low"] <= found["difference"] <= found["high"]


def test_a_model_that_gets_nothing_right_is_nothing_to_match(tmp_path: Path) -> None:
    run = carried_out(tmp_path, 400, 0, 0)
    (found,) = parity_of(run)
    assert found["verdict"] == "not shown"
    assert "none of the hosted model's answers is right" in found["sentence"]
    stored = json.loads((run / "results.json").read_text())
    stored["settings"]["migrating_from"] = "own"
    (run / "results.json").write_text(json.dumps(stored))
    (found,) = parity_of(run)
    assert found["sentence"].startswith("hosted cannot match: none of own's answers is right")


def test_a_captured_contender_that_failed_is_said(tmp_path: Path) -> None:
    run = carried_out(tmp_path, 20, 10, 10)
    stored = json.loads((run / "results.json").read_text())
    stored["contenders"][0]["error"] = "its answers have other ids"
    (run / "results.json").write_text(json.dumps(stored))
    with pytest.raises(DataError, match="hosted failed: its answers have other ids"):
        parity_of(run)
