"""Ctrl-C while a model trains: exit code 130, one line, and the same command goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

TEXT = """\
name: cut
task: {{id: functional_representation, source: sample, max_new_tokens: 4,
        limit: {{train: 32, validation: 4, test: 4}}}}
contenders:
  - name: lora
    id: local
    base: {base}
    train: {{max_steps: 150, batch_size: 8, evaluate_every: 5, learning_rate: 1.0e-2}}
"""


def test_ctrl_c_loses_nothing(tiny_base: Path, tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(TEXT.format(base=tiny_base))
    command = [str(Path(sys.executable).parent / "tuneoff"), "run", "b.yaml", "--json"]
    child = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # A suite that runs in the background ignores Ctrl-C, and its children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    folder = tmp_path / "runs" / "cut" / "contenders" / "lora"
    deadline = time.monotonic() + 180
    while not list(folder.glob("checkpoints/checkpoint-*/trainer_state.json")):
        assert child.poll() is None, child.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert out == ""
    assert "Traceback" not in err
    assert "the same command goes on" in err
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    steps = [json.loads(line)["step"] for line in (folder / "loss.jsonl").read_text().splitlines()]
    assert steps == list(range(5, 151, 5))
    assert json.loads(done.stdout)["contenders"][0]["error"] is None
