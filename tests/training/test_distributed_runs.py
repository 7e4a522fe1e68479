"""tuneoff starts the processes of a training itself, and ends them all however it ends."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from training.test_distributed import assert_alike
from training.test_fine_tune import TRAIN, VALIDATION, settings

from tuneoff.config.contenders import LocalConfig
from tuneoff.errors import ContenderError
from tuneoff.models.loading import SHIPPED_BASE_DIR
from tuneoff.records import TrainingRecord
from tuneoff.storage.run_dir import ContenderDir
from tuneoff.tasks import functional_representation as task
from tuneoff.training.distributed import launcher
from tuneoff.training.fine_tune import tune
from tuneoff.training.trainer import ShardedOutOfMemoryError

STEPS, EVERY = 20, 4
FILE = "adapter_model.safetensors"
SIXTY = {"max_steps": 60, "schedule": "constant"}
# From how a training is divided to its folder and what it noted.
Undisturbed = Callable[[str], tuple[Path, TrainingRecord]]


def chosen(parallel: str, **fields: Any) -> LocalConfig:
    fields = {"lora": {"r": 4, "dropout": 0.0}, "hardware": {"count": 2}, **fields}
    train = {"max_steps": STEPS, "evaluate_every": EVERY, "parallel": parallel}
    return settings(train=train | fields.pop("train", {}), **fields)


def trained(
    base: Path, folder: Path, given: LocalConfig, **called: Any
) -> tuple[TrainingRecord, list[int], list[str]]:
    steps: list[int] = []
    lines: list[str] = []
    record = tune(
        given, str(base), TRAIN, VALIDATION, task.SAMPLE.drop_instruction(), ContenderDir(folder),
        called.pop("on_step", lambda step, total, note: steps.append(step)), lines.append, **called,
    )  # fmt: skip
    return record, steps, lines


@pytest.fixture(scope="module")
def alone(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same training in one process."""
    folder = tmp_path_factory.mktemp("alone")
    _, _, lines = trained(tiny_base, folder, chosen("auto"))
    if not torch.cuda.is_available():
        assert "trains on one device" in lines[0]
    return folder


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_make_the_adapter_of_one(
    tiny_base: Path, tmp_path: Path, alone: Path, parallel: str
) -> None:
    heard: list[tuple[int, bool]] = []

    def on_epoch(step: int) -> None:
        # Its weights are there, and training cannot be resumed from behind it yet.
        published = ContenderDir(tmp_path).checkpoints / f"checkpoint-{step}"
        heard.append((step, ContenderDir(tmp_path).epoch(step).is_dir() and not published.exists()))

    record, steps, lines = trained(tiny_base, tmp_path, chosen(parallel), on_epoch=on_epoch)
    assert steps == list(range(1, STEPS + 1))
    assert lines == []
    assert heard == [(step, True) for step in range(4, STEPS + 1, 4)]
    assert_alike(tmp_path / "adapter", alone / "adapter", FILE)
    one, two = (ContenderDir(folder).loss() for folder in (alone, tmp_path))
    for mine, theirs in zip(two, one, strict=True):
        assert mine.step == theirs.step
        assert mine.train == pytest.approx(theirs.train, rel=1e-4)
        assert mine.validation == pytest.approx(theirs.validation, rel=1e-4)
    single = ContenderDir(alone).training()
    assert single is not None
    assert record.verdict == single.verdict
    assert record.trainable_parameters == single.trainable_parameters
    assert (record.tokens_computed or 0) >= (single.tokens_computed or 0)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "adapter", "epochs", "loss.jsonl", "training.json"
    ]  # fmt: skip


def members() -> list[psutil.Process]:
    """The processes that train, of those that descend from this one."""
    found = []
    for each in psutil.Process().children(recursive=True):
        try:
            if "tuneoff.training.distributed.worker" in each.cmdline():
                found.append(each)
        except psutil.NoSuchProcess:
            continue
    return found


def killing(rank: int, after: int) -> Any:
    """An `on_step` that kills one of the processes with SIGKILL."""

    def on_step(step: int, total: int, note: str) -> None:
        if step == after:
            for each in members():
                if each.environ()["RANK"] == str(rank):
                    each.kill()

    return on_step


def slow_to_end(steps: int) -> dict[str, Any]:
    return {"max_steps": steps, "evaluate_every": EVERY}


def test_a_process_that_dies_ends_the_training_with_one_sentence(
    tiny_base: Path, tmp_path: Path
) -> None:
    given = chosen("ddp", train=slow_to_end(2000))
    with pytest.raises(ContenderError, match=r"process 1 of its 2 .* was killed \(SIGKILL\)") as e:
        trained(tiny_base, tmp_path, given, on_step=killing(1, after=9))
    log = tmp_path / "processes" / "process-1.log"
    assert str(log) in str(e.value)
    assert log.is_file()
    assert members() == []
    last = max(int(p.name.split("-")[1]) for p in (tmp_path / "checkpoints").iterdir())
    assert last >= 8


@pytest.fixture(scope="module")
def undisturbed(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """Makes the training that nobody kills, once for each way to divide it."""

    @cache
    def train(parallel: str) -> tuple[Path, TrainingRecord]:
        folder = tmp_path_factory.mktemp(parallel)
        return folder, trained(tiny_base, folder, chosen(parallel, train=SIXTY))[0]

    return train


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize("rank", [0, 1])
def test_run_again_it_goes_on_from_its_checkpoint(
    tiny_base: Path, tmp_path: Path, undisturbed: Undisturbed, parallel: str, rank: int
) -> None:
    given = chosen(parallel, train=SIXTY)
    with pytest.raises(ContenderError, match=f"process {rank} of its 2"):
        trained(tiny_base, tmp_path / "cut", given, on_step=killing(rank, after=9))
    record, steps, _ = trained(tiny_base, tmp_path / "cut", given)
    assert steps[0] > 8
    assert record.steps == steps[-1] == 60
    rows = [row.step for row in ContenderDir(tmp_path / "cut").loss()]
    assert rows == list(range(EVERY, 61, EVERY))
    folder, whole = undisturbed(parallel)
    assert_alike(tmp_path / "cut" / "adapter", folder / "adapter", FILE)
    assert record.tokens_computed == whole.tokens_computed


def test_ctrl_c_ends_all_processes(tiny_base: Path, tmp_path: Path) -> None:
    seen: list[psutil.Process] = []

    def on_step(step: int, total: int, note: str) -> None:
        if step == 3:
            seen.extend(members())
            os.kill(os.getpid(), signal.SIGINT)

    # A suite that runs in the background ignores Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            trained(tiny_base, tmp_path, chosen("ddp", train=slow_to_end(5000)), on_step=on_step)
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(seen) == 2
    assert not any(each.is_running() for each in seen)


CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from training.test_distributed_runs import chosen, slow_to_end, trained
trained(Path({base!r}), Path({folder!r}), chosen("fsdp", train=slow_to_end(5000)))
"""


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_search_finds_in_two_processes_what_it_finds_in_one(
    tiny_base: Path, tmp_path: Path, parallel: str
) -> None:
    """Also that a divided model is put back to where it was after each trial."""
    train = {"learning_rate": "search", "max_steps": 8}
    one, _, _ = trained(tiny_base, tmp_path / "one", chosen("auto", method="full", train=train))
    two, _, _ = trained(tiny_base, tmp_path / "two", chosen(parallel, method="full", train=train))
    assert two.learning_rate == one.learning_rate
    tried = {rate: loss for rate, loss in one.learning_rates_tried.items() if loss is not None}
    assert two.learning_rates_tried == pytest.approx(tried, rel=1e-4)
    assert_alike(tmp_path / "two" / "model", tmp_path / "one" / "model", "model.safetensors")


@pytest.mark.slow
@pytest.mark.alone
def test_a_quantized_base_is_trained_by_two(tmp_path: Path) -> None:
    def given(parallel: str) -> LocalConfig:
        return chosen(parallel, quantization="int8", train={"max_steps": 8})

    trained(SHIPPED_BASE_DIR, tmp_path / "one", given("auto"))
    trained(SHIPPED_BASE_DIR, tmp_path / "two", given("ddp"))
    one, two = (ContenderDir(tmp_path / name).loss() for name in ("one", "two"))
    assert [row.validation for row in two] == pytest.approx(
        [row.validation for row in one], rel=0.02
    )


@pytest.mark.slow
@pytest.mark.alone
def test_killed_outright_it_leaves_no_process_behind(tiny_base: Path, tmp_path: Path) -> None:
    code = CHILD.format(
        tests=str(Path(__file__).parent.parent), base=str(tiny_base), folder=str(tmp_path / "run")
    )
    child = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "run").glob("checkpoints/checkpoint-*")):
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    descendants = psutil.Process(child.pid).children(recursive=True)
    assert len(descendants) >= 3  # the agent and its two
    child.kill()
    child.wait()
    _, left = psutil.wait_procs(descendants, timeout=60)
    assert left == []


ABORT_AT_THE_END = """
import atexit, os, sys
if "tuneoff.training.distributed.worker" in sys.orig_argv:
    atexit.register(os.abort)
"""


def test_a_process_that_would_abort_at_its_end_loses_no_training(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As torch's threads do now and then when the interpreter ends below them."""
    (tmp_path / "sitecustomize.py").write_text(ABORT_AT_THE_END)
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    record, _, _ = trained(tiny_base, tmp_path / "run", chosen("ddp", train={"max_steps": 2}))
    assert record.steps == 2
    assert not (tmp_path / "run" / launcher.PROCESSES_DIR).exists()


def test_what_a_process_refuses_is_what_is_raised(tiny_base: Path, tmp_path: Path) -> None:
    from tuneoff.errors import ConfigError

    given = chosen("ddp", lora={"target_modules": ["no_such_proj"]})
    with pytest.raises(ConfigError, match=r"lora\.target_modules"):
        trained(tiny_base, tmp_path, given)
    assert members() == []


def test_a_divided_model_short_of_memory_begins_again_with_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int | None] = []

    def run(count: int, folder: Path, *callbacks: Any) -> None:
        job = pickle.loads((folder / launcher.JOB_FILE).read_bytes())
        asked.append(job.most)
        if job.most is None or job.most > 500:
            error = ShardedOutOfMemoryError("out of memory")
            error.most_tokens = 1024 if job.most is None else job.most // 2 - 12
            launcher.write_error(folder, error)
            return
        written = TrainingRecord(
            examples=1, epochs=1, steps=1, tokens_raw=1, tokens_templated=1, tokens_billed=None,
            tokens_computed=1, seconds=1, peak_memory_bytes=1, best_step=1, overfitting_step=None,
            verdict=None,
        )  # fmt: skip
        ContenderDir(job.path).write_training(written)
        ContenderDir(job.path).adapter.mkdir()

    monkeypatch.setattr(launcher, "_run_agent", run)
    lines: list[str] = []
    job = launcher.DistributedJob(chosen("fsdp"), "base", [], [], task.SAMPLE, tmp_path, False)
    record = launcher.run_in_processes(2, job, None, lines.append, None)
    assert record.steps == 1
    assert asked == [None, 1024, 500]
    assert "at most 500 tokens" in lines[1]
    assert not (tmp_path / launcher.PROCESSES_DIR).exists()


def test_processes_that_cannot_be_started_say_where_to_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "_run_agent", lambda *args: None)
    job = launcher.DistributedJob(chosen("ddp"), "base", [], [], task.SAMPLE, tmp_path, False)
    with pytest.raises(ContenderError, match=r"2 processes could not be started; see .*agent\.log"):
        launcher.run_in_processes(2, job, None, print, None)
