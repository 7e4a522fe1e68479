"""Checkpoints appear whole, the last two and the best stay, a moved folder still works."""

from __future__ import annotations

import json
from pathlib import Path

from tuneoff.training.checkpoints import (
    PARTIAL_DIR,
    STATE_FILE,
    TrainingTotals,
    list_checkpoints,
    parse_checkpoint_step,
    publish_checkpoint,
    recover_last_checkpoint,
)


def write(folder: Path, step: int, best: int | None) -> None:
    beside = folder / PARTIAL_DIR / f"checkpoint-{step}"
    TrainingTotals(tokens_computed=step, most_tokens=77).write(beside)
    state = {"best_global_step": best, "best_model_checkpoint": "/elsewhere/checkpoint-1"}
    (beside / STATE_FILE).write_text(json.dumps(state))
    publish_checkpoint(folder, step, best)


def test_the_last_two_and_the_best_are_kept(tmp_path: Path) -> None:
    for step in (2, 4, 6, 8, 10):
        write(tmp_path, step, best=4 if step >= 4 else 2)
    assert [parse_checkpoint_step(path) for path in list_checkpoints(tmp_path)] == [4, 8, 10]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_half_a_checkpoint_is_none(tmp_path: Path) -> None:
    write(tmp_path, 2, best=2)
    TrainingTotals().write(tmp_path / PARTIAL_DIR / "checkpoint-4")
    found = recover_last_checkpoint(tmp_path)
    assert found is not None
    assert parse_checkpoint_step(found) == 2
    assert not (tmp_path / PARTIAL_DIR).exists()


def test_the_best_is_found_where_the_folder_lies_now(tmp_path: Path) -> None:
    write(tmp_path / "before", 2, best=2)
    moved = (tmp_path / "before").rename(tmp_path / "after")
    found = recover_last_checkpoint(moved)
    assert found is not None
    state = json.loads((found / STATE_FILE).read_text())
    assert state["best_model_checkpoint"] == str(moved / "checkpoint-2")


def test_effort_comes_back(tmp_path: Path) -> None:
    assert TrainingTotals.of(None) == TrainingTotals()
    write(tmp_path, 2, best=None)
    assert TrainingTotals.of(recover_last_checkpoint(tmp_path)) == TrainingTotals(
        tokens_computed=2, most_tokens=77
    )


def test_nothing_there(tmp_path: Path) -> None:
    assert recover_last_checkpoint(tmp_path / "nowhere") is None
