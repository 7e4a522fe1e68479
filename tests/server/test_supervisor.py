"""Several training processes over one queue: jobs at the same time, none twice, and a killed
process's job goes on."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from running import examples, request, server, upload

pytest.importorskip("fastapi")
from tuneoff.server.store import JobLocks, Store
from tuneoff.server.supervisor import build_environment

WAIT_SECONDS = 240
HOLD = (
    "import sys, time; from pathlib import Path; from tuneoff.server.store import JobLocks\n"
    "claims = JobLocks(Path(sys.argv[1])); print(claims.acquire(7), flush=True); time.sleep(600)"
)


def until(true: Callable[[], Any]) -> Any:
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end:
        if found := true():
            return found
        time.sleep(0.1)
    raise AssertionError("it never came true")


def test_a_claim_ends_with_its_process(tmp_path: Path) -> None:
    own = JobLocks(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        assert not own.acquire(7)
        assert own.acquire(6)
        other.kill()
        other.wait()
        assert own.acquire(7)
        own.release(7)
    own.close()


def test_what_is_claimed_first(tmp_path: Path) -> None:
    """What was running, then the oldest; nothing while as many others are at work as may be."""
    store = Store(tmp_path)
    with store.transaction() as connection:
        for number, status in enumerate(("queued", "running", "paused", "queued", "running"), 1):
            connection.execute(
                "INSERT INTO jobs (id, created_at, status, facts) VALUES (?, 0, ?, '{}')",
                (f"job-{number}", status),
            )

    def claimed(busy: set[int], most: int) -> Any:
        job = store.claim_job(lambda number: number not in busy, most)
        return job and (job["number"], job["attempts"])

    assert claimed({2, 5}, 2) is None
    assert claimed({2}, 2) == (5, 1)
    assert claimed(set(), 2) == (2, 1)
    assert claimed({2, 5}, 3) == (1, 1)
    assert claimed({1, 2, 4, 5}, 4) is None, "of the queued one somebody has not let go yet"
    assert claimed({1, 2, 5}, 4) == (4, 1)


def test_what_a_worker_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [build_environment(n, 3, ["4", "6"])["CUDA_VISIBLE_DEVICES"] for n in range(3)] == [
        *"464"
    ]
    assert "CUDA_VISIBLE_DEVICES" not in build_environment(0, 1, ["0"])
    assert "OMP_NUM_THREADS" not in build_environment(0, 1, [])
    assert int(build_environment(0, 2, [])["OMP_NUM_THREADS"]) >= 1


def test_two_jobs_at_the_same_time_and_one_worker_killed(tiny_base: Path, tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with server(data_dir, "--base", str(tiny_base), "--workers", "2") as (port, process):
        file = upload(port, examples(24))[1]["id"]
        body = {
            "model": tiny_base.name, "training_file": file,
            "hyperparameters": {"n_epochs": 50, "batch_size": 1},
        }  # fmt: skip
        path = "/v1/fine_tuning/jobs"
        ids = [request(port, "POST", path, {**body, "seed": n})[1]["id"] for n in range(3)]

        def jobs() -> list[Any]:
            return [request(port, "GET", f"{path}/{id}")[1] for id in ids]

        def messages(id: str) -> list[str]:
            events = request(port, "GET", f"{path}/{id}/events?limit=1000")[1]["data"]
            return [each["message"] for each in events]

        def trains(id: str) -> bool:
            return any(text.startswith("Step ") for text in messages(id))

        until(lambda: trains(ids[0]) and trains(ids[1]))
        assert [each["status"] for each in jobs()] == ["running", "running", "queued"]
        workers = psutil.Process(process.pid).children()
        assert len(workers) == 2
        workers[0].send_signal(signal.SIGKILL)
        until(lambda: any("goes on" in text for id in ids for text in messages(id)))
        assert [each["status"] for each in jobs()] == ["running", "running", "queued"]
        went_on = [id for id in ids if any("goes on" in text for text in messages(id))]
        assert len(went_on) == 1
        for id in ids[:2]:
            assert request(port, "POST", f"{path}/{id}/cancel")[0] == 200
        until(lambda: trains(ids[2]))
        started = [text for text in messages(ids[2]) if text == "Fine-tuning job started"]
        assert len(started) == 1
        request(port, "POST", f"{path}/{ids[2]}/cancel")
