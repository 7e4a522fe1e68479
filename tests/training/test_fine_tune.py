"""Tuning a real (tiny) model: what is learned, what is kept, what a kill costs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tuneoff.config.contenders import LocalConfig
from tuneoff.errors import ConfigError, ContenderError, DataError
from tuneoff.records import Example, TrainingRecord
from tuneoff.storage.run_dir import ContenderDir
from tuneoff.tasks import functional_representation as task
from tuneoff.tasks.samples import functional
from tuneoff.training.fine_tune import tune

SPLITS = functional.generate()
TRAIN, VALIDATION = SPLITS["train"][:32], SPLITS["validation"][:8]


def settings(**fields: Any) -> LocalConfig:
    train = {"max_steps": 4, "batch_size": 8, "evaluate_every": 2, "learning_rate": 1e-2}
    train |= fields.pop("train", {})
    return LocalConfig(name="x", id="local", train=train, **fields)  # type: ignore[arg-type]


def run(
    base: Path, folder: Path, chosen: LocalConfig, train: list[Example] = TRAIN
) -> TrainingRecord:
    return tune(
        chosen, str(base), train, VALIDATION, task.SAMPLE.drop_instruction(), ContenderDir(folder)
    )


def test_the_same_seed_gives_the_same_adapter(tiny_base: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        run(tiny_base, tmp_path / name, settings(lora={"r": 4, "target_modules": "attention"}))
    files = [tmp_path / name / "adapter" / "adapter_model.safetensors" for name in ("a", "b")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_accumulated_micro_batches_are_one_batch(tiny_base: Path, tmp_path: Path) -> None:
    """Loss is averaged over the batch's tokens, however the batch is cut."""
    first = settings(method="full", train={"max_steps": 2})
    cut = settings(method="full", train={"max_steps": 2, "micro_batch_size": 2})
    run(tiny_base, tmp_path / "whole", first)
    run(tiny_base, tmp_path / "cut", cut)
    losses = [
        [row.validation for row in ContenderDir(tmp_path / name).loss()]
        for name in ("whole", "cut")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_the_best_checkpoint_is_kept_not_the_last(tiny_base: Path, tmp_path: Path) -> None:
    """With a rate that explodes after some steps, the saved weights are the early ones."""
    chosen = settings(
        method="full",
        train={"max_steps": 12, "learning_rate": 0.2, "warmup_steps": 12, "schedule": "constant"},
    )
    record = run(tiny_base, tmp_path, chosen)
    rows = ContenderDir(tmp_path).loss()
    best = min(rows, key=lambda row: row.validation or 0)
    assert record.best_step == best.step < rows[-1].step
    again = ContenderDir(tmp_path / "again")
    check = settings(method="full", train={"max_steps": 1, "learning_rate": 1e-12})
    tune(check, str(tmp_path / "model"), TRAIN, VALIDATION, task.SAMPLE.drop_instruction(), again)
    assert again.loss()[-1].validation == pytest.approx(best.validation, rel=1e-4)


def test_loss_on_text_learns_the_prompt_too(tiny_base: Path, tmp_path: Path) -> None:
    completion = run(tiny_base, tmp_path / "completion", settings(train={"max_steps": 1}))
    text = run(tiny_base, tmp_path / "text", settings(train={"max_steps": 1, "loss_on": "text"}))
    assert completion.tokens_templated == text.tokens_templated
    losses = [
        ContenderDir(tmp_path / name).loss()[-1].validation for name in ("completion", "text")
    ]
    assert losses[0] != pytest.approx(losses[1], rel=1e-3)


def test_quantized_bases_take_lora(tiny_base: Path, tmp_path: Path) -> None:
    record = run(tiny_base, tmp_path, settings(quantization="int8", train={"max_steps": 2}))
    assert record.steps == 2
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()


def test_an_example_too_long_is_named(tiny_base: Path, tmp_path: Path) -> None:
    long = Example("long-1", {"sentence": "far " * 300}, "depict(hut[Far])")
    with pytest.raises(DataError, match=r"'long-1' has \d+ tokens, more than the 64"):
        run(tiny_base, tmp_path, settings(train={"max_length": 64}), [long])
    assert not tmp_path.joinpath("adapter").exists()


def test_more_length_than_positions_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="1024 positions"):
        run(tiny_base, tmp_path, settings(train={"max_length": 2048}))


def test_modules_that_are_not_there_are_refused(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"lora\.target_modules"):
        run(tiny_base, tmp_path, settings(lora={"target_modules": ["no_such_proj"]}))


def test_a_loss_that_is_not_a_number_is_one_sentence(tiny_base: Path, tmp_path: Path) -> None:
    chosen = settings(
        method="full",
        train={"max_steps": 2, "evaluate_every": 1, "learning_rate": 0.9, "warmup_steps": 0},
    )
    broken = tmp_path / "broken"
    _spoil(tiny_base, broken)
    with pytest.raises(ContenderError, match="not a number"):
        run(broken, tmp_path / "out", chosen)
    assert not (tmp_path / "out" / "model").exists()


def _spoil(base: Path, folder: Path) -> None:
    """A copy of a base with one weight that is not a number."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)


def test_a_kill_after_the_last_step_trains_no_step_more(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six steps are no whole number of epochs, so the loop itself would take a seventh."""
    chosen = settings(train={"max_steps": 6, "batch_size": 8, "evaluate_every": 2})

    def killed(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tuneoff.training.checkpoints.ModelSaver.save_final", killed)
        with pytest.raises(KeyboardInterrupt):
            run(tiny_base, tmp_path / "cut", chosen)
    moved = (tmp_path / "cut").rename(tmp_path / "moved")
    record = run(tiny_base, moved, chosen)
    whole = run(tiny_base, tmp_path / "whole", chosen)
    assert (record.steps, record.tokens_computed) == (6, whole.tokens_computed)
    files = [f / "adapter" / "adapter_model.safetensors" for f in (moved, tmp_path / "whole")]
    assert files[0].read_bytes() == files[1].read_bytes()


CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from training.test_fine_tune import run, settings
run(Path({base!r}), Path({folder!r}), settings(train={{"max_steps": 40, "evaluate_every": 2}}))
"""


def test_a_killed_run_goes_on_from_its_last_checkpoint(tiny_base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    tests = str(Path(__file__).parent.parent)
    code = CHILD.format(tests=tests, base=str(tiny_base), folder=str(folder))
    child = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(folder.glob("checkpoints/checkpoint-*/trainer_state.json")):
        assert child.poll() is None, "the child ended before its first checkpoint"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert not (folder / "adapter").exists()
    chosen = settings(train={"max_steps": 40, "evaluate_every": 2})
    seen: list[int] = []
    record = tune(
        chosen,
        str(tiny_base),
        TRAIN,
        VALIDATION,
        task.SAMPLE.drop_instruction(),
        ContenderDir(folder),
        lambda step, total, loss: seen.append(step),
    )
    assert seen[0] > 1, "training began from the start"
    assert seen[-1] == record.steps == 40
    steps = [row.step for row in ContenderDir(folder).loss()]
    assert steps == list(range(2, 41, 2))
    whole = run(tiny_base, tmp_path / "whole", chosen)
    assert record.tokens_computed == whole.tokens_computed
    assert json.loads((folder / "training.json").read_text())["steps"] == 40
