"""Every YAML file that ships is checked, offline; the seed's carry the seed's settings."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import tuneoff
from tuneoff.config.contenders import HostedConfig, LocalConfig

ROOT = Path(__file__).parent.parent
ORDERS = ROOT / "examples" / "data" / "orders.csv"
# What rents machines is no bake-off file: `test_cluster_files.py` looks at it.
NOT_OURS = ("kuberay.yaml", "ray-aws.yaml", "skypilot.yaml")
# What says itself that its models end, and the day from which it is refused.
ENDS, BEFORE = {"hosted.yaml": "2027-01-06"}, "2026-11-24"
FILES = sorted(
    file
    for file in (*ROOT.glob("examples/**/*.yaml"), *ROOT.glob("src/tuneoff/assets/*.yaml"))
    if file.name not in NOT_OURS
)


@pytest.mark.parametrize("file", FILES, ids=lambda p: p.name)
def test_a_shipped_file_is_fine(
    file: Path, monkeypatch: pytest.MonkeyPatch, on_day: Callable[[str], None]
) -> None:
    monkeypatch.delenv("TUNEOFF_DATA", raising=False)
    if file.name in ENDS:
        on_day(ENDS[file.name])
        with pytest.raises(tuneoff.ConfigError, match="takes no new fine-tuning jobs"):
            tuneoff.check_file(file)
        on_day(BEFORE)
    assert tuneoff.check_file(file)["contenders"]


def test_there_are_enough_of_them() -> None:
    assert len(FILES) >= 11


@pytest.mark.parametrize("name", ["viggo", "spider"])
def test_the_seeds_own_settings(name: str) -> None:
    bakeoff = tuneoff.load(ROOT / "examples" / "seed" / f"{name}.yaml")
    assert bakeoff.task.splits == "seed"
    assert str(bakeoff.as_of) == "2023-09-12"
    own, hosted = bakeoff.contenders
    assert isinstance(own, LocalConfig)
    assert isinstance(hosted, HostedConfig)
    assert (own.base, own.quantization) == ("codellama/CodeLlama-34b-hf", "int8")
    assert (own.lora.r, own.lora.alpha, own.lora.dropout) == (8, 16, 0.05)
    assert own.lora.target_modules == ("q_proj", "k_proj", "v_proj", "o_proj")
    train = own.train
    assert (train.loss_on, train.max_length, train.precision) == ("text", 512, "fp16")
    assert (train.batch_size, train.micro_batch_size) == (128, 16)
    assert (train.learning_rate, train.warmup_steps) == (3e-4, 100)
    assert (train.max_steps, train.evaluate_every) == (400, 20)
    assert own.hardware is not None
    assert (own.hardware.accelerator, own.hardware.usd_per_hour) == ("A40", 0.475)
    assert (hosted.model, hosted.epochs) == ("gpt-3.5-turbo-0613", 3)


def test_init_writes_a_file_that_check_takes(tmp_path: Path) -> None:
    from tuneoff.bakeoff.starter import write_starter

    found = write_starter(ORDERS, tmp_path / "b.yaml")
    assert found["examples"] == 400
    checked = tuneoff.check_file(tmp_path / "b.yaml")
    assert checked["split_sizes"] == {"train": 320, "validation": 40, "test": 40}


def test_the_example_data_are_what_their_script_writes() -> None:
    script = ORDERS.with_suffix(".py")
    made = subprocess.run([sys.executable, script], capture_output=True, check=True)
    assert made.stdout == ORDERS.read_bytes()


def test_the_shipped_base_can_copy_every_answer_of_the_example_data() -> None:
    """It knows nothing about the world: each part of a record stands in its order."""
    with ORDERS.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            parts = row["completion"].split(" | ")
            assert len(parts) == 5
            assert all(part in row["prompt"].lower() for part in map(str.lower, parts))
