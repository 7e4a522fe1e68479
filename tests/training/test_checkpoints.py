"""Checkpoints appear whole, the last two and the best stay, a moved folder still works."""

from __future__ import annotations

import json
from pathlib import Path

from tuneoff.training.checkpoints import (
    STATE_FILE,
    WRITING,
    Effort,
    checkpoints,
    last_checkpoint,
    publish,
    step_of,
)


def write(folder: Path, step: int, best: int | None) -> None:
    beside = folder / WRITING / f"checkpoint-{step}"
    Effort(tokens_computed=step, most_tokens=77).write(beside)
    state = {"best_global_step": best, "best_model_checkpoint": "/elsewhere/checkpoint-1"}
    (beside / STATE_FILE).write_text(json.dumps(state))
    publish(folder, step, best)


def test_the_last_two_and_the_best_are_kept(tmp_path: Path) -> None:
    for step in (2, 4, 6, 8, 10):
        write(tmp_path, step, best=4 if step >= 4 else 2)
    assert [step_of(path) for path in checkpoints(tmp_path)] == [4, 8, 10]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_half_a_checkpoint_is_none(tmp_path: Path) -> None:
    write(tmp_path, 2, best=2)
    Effort().write(tmp_path / WRITING / "checkpoint-4")
    found = last_checkpoint(tmp_path)
    assert found is not None
    assert step_of(found) == 2
    assert not (tmp_path / WRITING).exists()


def test_the_best_is_found_where_the_folder_lies_now(tmp_path: Path) -> None:
    write(tmp_path / "before", 2, best=2)
    moved = (tmp_path / "before").rename(tmp_path / "after")
    found = last_checkpoint(moved)
    assert found is not None
    state = json.loads((found / STATE_FILE).read_text())
    assert state["best_model_checkpoint"] == str(moved / "checkpoint-2")


def test_effort_comes_back(tmp_path: Path) -> None:
    assert Effort.of(None) == Effort()
    write(tmp_path, 2, best=None)
    assert Effort.of(last_checkpoint(tmp_path)) == Effort(tokens_computed=2, most_tokens=77)


def test_nothing_there(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path / "nowhere") is None
