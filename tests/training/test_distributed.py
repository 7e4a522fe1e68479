"""One training in two processes is the training in one: the same losses, gradients, adapter.
Real processes, started by torchrun, that talk over gloo."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from training import ranks
from training.test_fine_tune import TRAIN, VALIDATION, settings

from tuneoff.config.contenders import LocalConfig
from tuneoff.errors import ConfigError
from tuneoff.storage.run_dir import ContenderDir
from tuneoff.tasks import functional_representation as task
from tuneoff.training.batching import balance
from tuneoff.training.distributed import launcher
from tuneoff.training.distributed.process_group import SINGLE_PROCESS
from tuneoff.training.fine_tune import tune

CLOSE = 1e-5


@pytest.fixture(scope="module")
def two(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `ranks.py` found in two processes; trainings that one process had begun go on there."""
    out = tmp_path_factory.mktemp("two")
    for parallel in ("ddp", "fsdp"):
        begun = cut_after(tiny_base, out / f"{parallel}-0", ranks.resumed("auto"), 7)
        shutil.copytree(begun, out / f"{parallel}-1")
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         ranks.__file__, str(tiny_base), str(out)],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-6000:]
    return out


def cut_after(base: Path, folder: Path, chosen: LocalConfig, steps: int) -> Path:
    """A training in one process that is interrupted in a step after so many."""

    def on_step(done: int, total: int, note: str) -> None:
        if done == steps:
            raise KeyboardInterrupt

    template, directory = task.SAMPLE.drop_instruction(), ContenderDir(folder)
    with pytest.raises(KeyboardInterrupt):
        tune(chosen, str(base), TRAIN, VALIDATION, template, directory, on_step)
    return folder


@pytest.mark.parametrize("name", ranks.CASES)
def test_a_step_of_two_is_the_step_of_one(two: Path, tiny_base: Path, name: str) -> None:
    case = ranks.CASES[name]
    one = ranks.one_step(str(tiny_base), two / "arguments", case, SINGLE_PROCESS)
    found = [torch.load(two / f"{name}-{rank}.pt") for rank in (0, 1)]
    exact = case.dtype == torch.float32
    for each in found:
        assert each["loss"] == pytest.approx(one["loss"], rel=CLOSE if exact else 0.01)
        assert each["validation"] == pytest.approx(one["validation"], rel=CLOSE if exact else 0.01)
        assert set(each["gradients"]) == set(one["gradients"])
        apart = {n: far(each["gradients"][n], g) for n, g in one["gradients"].items()}
        assert max(apart.values()) < (CLOSE if exact else 0.05), apart
        assert each["computed"] == sum(map(sum, each["shares"]))
        # Cut more finely, padded rows have less padding, and trees share less.
        assert each["computed"] >= one["computed"] or not case.trees
        print(f"{name}: gradients {max(apart.values()):.1e}")
    # Decided alike, to the bit.
    for key in ("loss", "validation", "computed", "most", "shares"):
        assert found[0][key] == found[1][key]
    for n, g in found[0]["gradients"].items():
        assert torch.equal(g, found[1]["gradients"][n]), n


def far(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm().clamp_min(1e-12))


def test_shares_are_even_and_equally_many(two: Path) -> None:
    def shares(name: str) -> Any:
        return torch.load(two / f"{name}-0.pt")["shares"]

    first, second = map(sum, shares("ddp lora"))
    assert abs(first - second) < 0.2 * max(first, second)
    # One example: the other process computes a token that counts for nothing.
    assert sorted(map(sum, shares("fsdp fewer examples than ranks")))[0] == 1
    uneven = shares("fsdp uneven")
    assert len(uneven[0]) == len(uneven[1]) > 1


def test_memory_that_ends_in_one_process_halves_packs_in_all(two: Path) -> None:
    found = torch.load(two / "ddp short of memory in one-0.pt")
    assert found["most"] < 4096
    assert all(size <= 150 for size in found["shares"][1])


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_go_on_with_what_one_began(
    two: Path, tiny_base: Path, tmp_path: Path, parallel: str
) -> None:
    """In a group that is there already, each process with a folder of its own."""
    template, directory = task.SAMPLE.drop_instruction(), ContenderDir(tmp_path)
    chosen = ranks.resumed("auto")
    record = tune(chosen, str(tiny_base), TRAIN, VALIDATION, template, directory)
    first, second = two / f"{parallel}-0", two / f"{parallel}-1"
    assert_alike(first / "model", tmp_path / "model", "model.safetensors")
    rows = [ContenderDir(folder).loss() for folder in (first, tmp_path)]
    assert [row.step for row in rows[0]] == [3, 6, 9, 12]
    for ours, theirs in zip(*rows, strict=True):
        assert (ours.train, ours.validation) == pytest.approx(
            (theirs.train, theirs.validation), rel=CLOSE
        )
    assert torch.load(two / f"{parallel}-1.steps") == record.steps == 12
    # The other wrote nothing: no weights, no record, no row past its copy's.
    assert not (second / "model").exists()
    assert not (second / "training.json").exists()
    assert [row.step for row in ContenderDir(second).loss()] == [3, 6]


def assert_alike(folder: Path, expected: Path, name: str, most: float = 1e-3) -> None:
    """The same files, and weights within so much of each other."""
    assert {p.name for p in folder.iterdir()} == {p.name for p in expected.iterdir()}
    found, wanted = load_file(folder / name), load_file(expected / name)
    assert set(found) == set(wanted)
    apart = {n: far(found[n], tensor) for n, tensor in wanted.items()}
    assert max(apart.values()) < most, apart
    for file in ("config.json", "adapter_config.json"):
        if (folder / file).exists():
            configs = [json.loads((each / file).read_bytes()) for each in (folder, expected)]
            for each in configs:  # a set, in whatever order
                each["target_modules"] = sorted(each.get("target_modules", ()))
            assert configs[0] == configs[1]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"train": {"parallel": "ddp"}}, r"needs hardware: \{count: N\}"),
        (
            {"train": {"parallel": "fsdp"}, "hardware": {"count": 2}, "quantization": "nf4"},
            "nf4 weights cannot be divided",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LocalConfig(name="x", id="local", **fields)


def test_how_many_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []

    def counted(parallel: str, count: int, here: int) -> int:
        place = torch.device("cuda" if here else "cpu")
        monkeypatch.setattr("tuneoff.training.distributed.launcher.get_device", lambda: place)
        monkeypatch.setattr("torch.cuda.device_count", lambda: here)
        chosen = settings(train={"parallel": parallel}, hardware={"count": count})
        return launcher.count_processes(chosen, lines.append)

    assert counted("auto", 4, 4) == counted("auto", 4, 8) == 4
    assert counted("ddp", 2, 0) == counted("fsdp", 2, 0) == 2
    assert not lines
    assert counted("auto", 4, 0) == counted("auto", 4, 1) == 1
    assert lines == [
        "x: hardware.count is 4 and this machine has no accelerator, so it trains on one device.",
        "x: hardware.count is 4 and this machine has 1 accelerator, so it trains on one device.",
    ]
    with pytest.raises(ConfigError, match="and this machine has 2 accelerators; lower the count"):
        counted("ddp", 4, 2)


def test_largest_first_to_the_least_burdened() -> None:
    assert balance([5, 1, 4, 2, 2], 2) == [[0, 4], [2, 3, 1]]
    assert balance([3], 2) == [[0], []]
