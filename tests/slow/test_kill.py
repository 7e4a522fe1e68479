"""Killed at five random moments and resumed, a training ends with the very same adapter.

Real processes and real SIGKILLs; two of the moments are inside the writing of a checkpoint.
This file imports no torch: it only starts, kills and compares.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

TEXT = """\
name: cut
task: {id: functional_representation, source: sample, max_new_tokens: 4,
       limit: {train: 44, validation: 6, test: 2}}
contenders:
  - name: lora
    id: local
    base: tiny
    lora: {r: 4, dropout: 0.1}
    train: {max_steps: 48, batch_size: 8, evaluate_every: 3, learning_rate: 1.0e-3}
"""
COMMAND = [str(Path(sys.executable).parent / "tuneoff"), "run", "b.yaml", "--json"]


def start(folder: Path) -> subprocess.Popen[bytes]:
    folder.mkdir(exist_ok=True)
    (folder / "b.yaml").write_text(TEXT)
    # The sum of floats depends on how many threads share it.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        COMMAND, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def adapter(folder: Path) -> bytes:
    lora = folder / "runs" / "cut" / "contenders" / "lora"
    return (lora / "adapter" / "adapter_model.safetensors").read_bytes()


def kill_when(folder: Path, happened: Callable[[], bool], delay: float) -> bool:
    """Starts the run and kills it; False when it ended before."""
    child = start(folder)
    deadline = time.monotonic() + 240
    while not happened() and child.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    time.sleep(delay)
    if child.poll() is not None:
        return False
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    return True


def test_the_same_adapter_bit_for_bit(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert start(whole).wait() == 0
    checkpoints = cut / "runs" / "cut" / "contenders" / "lora" / "checkpoints"

    def newest() -> int:
        steps = [int(path.name.split("-")[1]) for path in checkpoints.glob("checkpoint-*")]
        return max(steps, default=0)

    seed = random.SystemRandom().randrange(2**32)
    rng = random.Random(seed)
    killed = []
    for inside in rng.sample([True, True, False, False, False], 5):
        # At least one checkpoint further than before, so that the five are spread.
        passed = newest() + 3 * rng.randint(0, 1)

        def happened(passed: int = passed, inside: bool = inside) -> bool:
            return newest() >= passed and (not inside or (checkpoints / ".writing").is_dir())

        killed.append(kill_when(cut, happened, 0.0 if inside else rng.uniform(0, 1.5)))
    assert sum(killed) >= 4, f"the run ended before it could be killed (seed {seed})"
    assert start(cut).wait() == 0
    assert adapter(cut) == adapter(whole), f"seed {seed}"
    loss = Path("runs", "cut", "contenders", "lora", "loss.jsonl")
    assert (cut / loss).read_bytes() == (whole / loss).read_bytes()
