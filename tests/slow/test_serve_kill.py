"""The server and the processes that train, one or two, killed at twenty moments: nothing is lost,
nothing is done twice, and the adapters and the epochs' checkpoints are those of a run that nobody
disturbed."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from running import examples, request, server, upload

pytestmark = pytest.mark.slow
pytest.importorskip("fastapi")
KILLS = 20
SEEDS = (1, 2, 3)
WAIT_SECONDS = 600


def create(port: int, base: str, file: str, seed: int) -> str:
    body = {
        "model": base, "training_file": file, "seed": seed,
        "hyperparameters": {"n_epochs": 50, "batch_size": 4, "learning_rate_multiplier": 20},
    }  # fmt: skip
    status, job = request(port, "POST", "/v1/fine_tuning/jobs", body)
    assert status == 200, job
    return str(job["id"])


def job(port: int, id: str) -> dict[str, Any]:
    status, found = request(port, "GET", f"/v1/fine_tuning/jobs/{id}")
    assert status == 200, found
    assert isinstance(found, dict)
    return found


def finish(port: int, ids: list[str]) -> list[dict[str, Any]]:
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end:
        found = [job(port, id) for id in ids]
        assert not [each["error"] for each in found if each["status"] == "failed"]
        if all(each["status"] == "succeeded" for each in found):
            return found
        time.sleep(0.5)
    raise AssertionError("the jobs did not finish")


def adapters(data_dir: Path, ids: list[str]) -> list[dict[str, bytes]]:
    """Each job's weights, the tuned model's and its last epochs', by where they lie."""
    folders = [data_dir / "jobs" / id for id in ids]
    return [
        {
            str(file.relative_to(folder)): file.read_bytes()
            for file in sorted(folder.rglob("adapter_model.safetensors"))
        }
        for folder in folders
    ]


class Killed:
    """A server that is killed, or whose worker is, and started again."""

    def __init__(self, data_dir: Path, base: Path, rng: random.Random) -> None:
        self._data_dir, self._base, self._rng = data_dir, base, rng
        self._start()

    def _start(self) -> None:
        workers = str(self._rng.choice((1, 2)))
        self._open = server(self._data_dir, "--base", str(self._base), "--workers", workers)
        self.port, self._process = self._open.__enter__()

    def kill(self, worker: bool) -> None:
        own = psutil.Process(self._process.pid)
        if worker:
            for child in own.children():
                child.send_signal(signal.SIGKILL)
            return
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._open.__exit__(None, None, None)
        self._start()

    def close(self) -> None:
        self._open.__exit__(None, None, None)


@contextmanager
def killed(data_dir: Path, base: Path, rng: random.Random) -> Iterator[Killed]:
    running = Killed(data_dir, base, rng)
    try:
        yield running
    finally:
        running.close()


def test_twenty_kills(tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Sums are the same to the bit for one number of threads, whatever the number of workers.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    content = examples(24)
    with server(tmp_path / "calm", "--base", str(tiny_base)) as (port, _):
        file = upload(port, content)[1]["id"]
        ids = [create(port, tiny_base.name, file, seed) for seed in SEEDS]
        finish(port, ids)
        expected = adapters(tmp_path / "calm", ids)
        assert [len(each) for each in expected] == [4, 4, 4]
    rng = random.Random(0)
    data_dir = tmp_path / "stormy"
    with killed(data_dir, tiny_base, rng) as running:
        file = upload(running.port, content)[1]["id"]
        ids = [create(running.port, tiny_base.name, file, seed) for seed in SEEDS]
        for number in range(KILLS):
            time.sleep(rng.uniform(0.2, 6.0))
            # A request is under way when the server dies; it is answered or it is not.
            asked = subprocess.Popen(
                ["curl", "-s", "-m", "5", "-o", "/dev/null",
                 f"http://127.0.0.1:{running.port}/v1/fine_tuning/jobs"],
            )  # fmt: skip
            running.kill(worker=number % 2 == 0)
            asked.wait()
            assert {job(running.port, id)["training_file"] for id in ids} == {file}
        found = finish(running.port, ids)
        assert request(running.port, "GET", f"/v1/files/{file}/content")[1] == content
        assert adapters(data_dir, ids) == expected
        models = [each["id"] for each in request(running.port, "GET", "/v1/models")[1]["data"]]
        names = {each["fine_tuned_model"] for each in found}
        assert names == {name for name in models[1:] if ":ckpt-step-" not in name}
        assert len(models) == 1 + 4 * len(SEEDS)
        for id in ids:
            folder = data_dir / "jobs" / id
            assert {each.name for each in folder.iterdir() if each.is_dir()} == {
                "adapter", "epochs"
            }  # fmt: skip
            path = f"/v1/fine_tuning/jobs/{id}/events?limit=1000"
            messages = [each["message"] for each in request(running.port, "GET", path)[1]["data"]]
            created = [text for text in messages if text.startswith("New fine-tuned model")]
            assert len(created) == 1
