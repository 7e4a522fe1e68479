"""What a training keeps at the ends of its epochs, also when it is cut there; and that without
validation examples the last step is the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from training.test_fine_tune import TRAIN, VALIDATION, settings

from tuneoff.errors import ContenderError
from tuneoff.records import Example
from tuneoff.storage.run_dir import ContenderDir
from tuneoff.tasks import functional_representation as task
from tuneoff.training.fine_tune import tune

# 5 steps an epoch, and validations at every second one: the ends of epochs fall between them.
CHOSEN = {"max_steps": None, "epochs": 3, "batch_size": 4, "evaluate_every": 2}
ENDS = [5, 10, 15]


def train(
    base: Path, folder: Path, on_epoch: Any = None, validation: list[Example] | None = None,
    method: str = "lora", **more: Any,
) -> ContenderDir:  # fmt: skip
    directory = ContenderDir(folder)
    tune(
        settings(train=CHOSEN | more, method=method, lora={"r": 4}), str(base), TRAIN[:20],
        validation or [], task.SAMPLE.drop_instruction(), directory, on_epoch=on_epoch,
    )  # fmt: skip
    return directory


def weights(folder: Path) -> bytes:
    return (folder / "adapter_model.safetensors").read_bytes()


def test_epochs_are_kept_and_the_last_step_is_the_model(tiny_base: Path, tmp_path: Path) -> None:
    seen: list[int] = []
    directory = train(tiny_base, tmp_path, seen.append)
    assert seen == ENDS
    assert len({weights(directory.epoch(step)) for step in ENDS}) == 3
    assert weights(directory.epoch(15)) == weights(directory.adapter)
    rows = {row.step: row for row in directory.loss()}
    assert set(ENDS) < set(rows)
    assert {row.validation for row in rows.values()} == {None}
    assert rows[15].train is not None
    record = directory.training()
    assert record is not None
    assert (record.best_step, record.verdict, record.steps) == (None, None, 15)
    assert "kept: the last step, 15" in (directory.adapter / "README.md").read_text()
    assert not directory.checkpoints.exists()


def test_with_validation_each_epoch_is_measured(tiny_base: Path, tmp_path: Path) -> None:
    directory = train(tiny_base, tmp_path, lambda step: None, VALIDATION)
    rows = {row.step: row for row in directory.loss()}
    assert all(rows[step].validation is not None for step in ENDS)
    record = directory.training()
    assert record is not None
    best = min(rows.values(), key=lambda row: row.validation or 0)
    assert record.best_step == best.step


def test_nobody_asks_nothing_is_kept(tiny_base: Path, tmp_path: Path) -> None:
    directory = train(tiny_base, tmp_path, None, VALIDATION)
    assert not directory.epochs.exists()
    assert {row.step for row in directory.loss()} == {2, 4, 6, 8, 10, 12, 14, 15}


def test_an_epochs_end_replaces_the_validation_beside_it(tiny_base: Path, tmp_path: Path) -> None:
    """Left out, validations are due twice an epoch, here after every third step."""
    directory = train(tiny_base, tmp_path, lambda step: None, VALIDATION, evaluate_every=None)
    assert {row.step for row in directory.loss()} == {3, 5, 10, 12, 15}


@pytest.mark.parametrize("cut", ENDS)
def test_cut_at_the_end_of_an_epoch(tiny_base: Path, tmp_path: Path, cut: int) -> None:
    """Between the epoch's weights and the checkpoint that training goes on from."""
    whole = train(tiny_base, tmp_path / "whole", lambda step: None)
    seen: list[int] = []

    def on_epoch(step: int) -> None:
        seen.append(step)
        if step == cut and seen.count(cut) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tiny_base, tmp_path / "cut", on_epoch)
    directory = train(tiny_base, tmp_path / "cut", on_epoch)
    assert seen == sorted([*ENDS, cut])
    for step in ENDS:
        assert weights(directory.epoch(step)) == weights(whole.epoch(step))
    assert weights(directory.adapter) == weights(whole.adapter)
    assert directory.loss() == whole.loss()


def test_killed_after_the_last_step(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last checkpoint is there, the adapter is not yet: nothing is trained again."""
    directory = train(tiny_base, tmp_path)
    expected = weights(directory.adapter)
    cut = ContenderDir(tmp_path / "cut")

    def on_epoch(step: int) -> None:
        seen.append(step)

    def killed(*args: Any) -> None:
        raise KeyboardInterrupt

    seen: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr("tuneoff.training.checkpoints.ModelSaver.save_final", killed)
        with pytest.raises(KeyboardInterrupt):
            train(tiny_base, cut.path, on_epoch)
    train(tiny_base, cut.path, on_epoch)
    assert seen == ENDS
    assert weights(cut.adapter) == expected


def test_worse_than_guessing_without_validation(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(ContenderError, match=r"the training loss is .* worse than guessing"):
        train(tiny_base, tmp_path, method="full", epochs=9, learning_rate=0.9)
