"""Ten thousand jobs that wait: all are taken, listed and counted, one more is told to come back,
each can still be cancelled, a restart loses none, and memory is bounded."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from abuse import peak_bytes, refused, silent
from running import examples, request, server, upload

pytest.importorskip("fastapi")
from tuneoff.server.settings import ServerConfig

pytestmark = [pytest.mark.slow, pytest.mark.alone]
MOST = ServerConfig(Path(), {}).max_waiting_jobs
GROWTH_BYTES = 150 * 1024**2
JOBS = "/v1/fine_tuning/jobs"


def pages(port: int, query: str = "") -> Iterator[dict[str, Any]]:
    """Every job, by pages of a thousand."""
    after = ""
    while True:
        status, page = request(port, "GET", f"{JOBS}?limit=1000{query}{after}")
        assert status == 200
        yield from page["data"]
        if not page["has_more"]:
            return
        after = f"&after={page['data'][-1]['id']}"


def queued(port: int) -> int:
    text = request(port, "GET", "/metrics")[1].decode()
    name = 'tuneoff_jobs{status="queued"} '
    (count,) = [line for line in text.splitlines() if line.startswith(name)]
    return int(float(count.removeprefix(name)))


def test_ten_thousand_jobs(tiny_base: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with server(data, "--base", str(tiny_base)) as (port, process):
        file = upload(port, examples(10))[1]["id"]
        # It trains longer than this test takes, so that nothing else leaves the queue.
        long = {"model": tiny_base.name, "training_file": upload(port, examples(20_000))[1]["id"],
                "hyperparameters": {"n_epochs": 50, "batch_size": 1}}  # fmt: skip
        running = request(port, "POST", JOBS, long)[1]["id"]
        while request(port, "GET", f"{JOBS}/{running}")[1]["status"] != "running":
            time.sleep(0.1)
        before = peak_bytes(process.pid)

        def create(number: int) -> tuple[int, Any]:
            metadata = {"number": str(number), "half": str(number % 2)}
            body = {"model": tiny_base.name, "training_file": file, "metadata": metadata}
            return request(port, "POST", JOBS, body)

        began = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(create, range(MOST)))
        print(f"{MOST / (time.monotonic() - began):.0f} jobs/s accepted")
        assert {status for status, _ in answers} == {200}
        made = {body["id"] for _, body in answers}
        assert len(made) == queued(port) == MOST
        status, body = create(MOST)
        refused(status, body)
        assert (status, body["error"]["code"]) == (429, "rate_limit_exceeded")
        listed = [job["id"] for job in pages(port)]
        assert len(listed) == MOST + 1
        assert set(listed) == made | {running}
        assert len(list(pages(port, "&metadata[half]=1"))) == MOST / 2
        (one,) = pages(port, "&metadata[number]=5000")
        assert request(port, "POST", f"{JOBS}/{one['id']}/cancel")[1]["status"] == "cancelled"
        assert request(port, "DELETE", f"/v1/files/{file}")[0] == 400
        assert create(MOST)[0] == 200
        assert create(MOST)[0] == 429
        assert peak_bytes(process.pid) - before < GROWTH_BYTES
    with server(data, "--base", str(tiny_base)) as (port, process):
        assert queued(port) == MOST
        while request(port, "GET", f"{JOBS}/{running}")[1]["status"] != "running":
            time.sleep(0.1)
        paths = [f"{JOBS}/{id}/cancel" for id in listed[:200]]
        with ThreadPoolExecutor(8) as pool:
            ended = pool.map(lambda path: request(port, "POST", path)[0], paths)
        assert set(ended) <= {200, 400}  # one of them was cancelled already
        assert len(list(pages(port))) == MOST + 2
        assert peak_bytes(process.pid) < before + GROWTH_BYTES
        assert request(port, "POST", f"{JOBS}/{running}/cancel")[0] == 200
    silent((tmp_path / "data.log").read_text())
    with closing(sqlite3.connect(data / "server.sqlite")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        sql = "SELECT count(*), count(DISTINCT id) FROM jobs"
        assert connection.execute(sql).fetchone() == (MOST + 2, MOST + 2)
