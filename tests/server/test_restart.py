"""A server that is started again: with another base, what was tuned on the first says what it
needs, and comes back with it; what a kill left half done is cleared away."""

from __future__ import annotations

import os
import shutil
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from running import examples, request, server, upload

pytest.importorskip("fastapi")
JOBS = "/v1/fine_tuning/jobs"


def chat(port: int, model: str) -> tuple[int, Any]:
    body = {"model": model, "messages": [{"role": "user", "content": "x"}], "max_tokens": 2}
    return request(port, "POST", "/v1/chat/completions", body)


def test_another_base(tiny_base: Path, tmp_path: Path) -> None:
    data_dir, other = tmp_path / "data", tmp_path / "other"
    shutil.copytree(tiny_base, other)
    with server(data_dir, "--base", str(tiny_base)) as (port, _):
        file = upload(port, examples(10))[1]["id"]
        body = {"model": tiny_base.name, "training_file": file,
                "hyperparameters": {"n_epochs": 1}}  # fmt: skip
        id = request(port, "POST", JOBS, body)[1]["id"]
        while (job := request(port, "GET", f"{JOBS}/{id}")[1])["status"] != "succeeded":
            assert job["status"] in ("queued", "running"), job
            time.sleep(0.2)
        tuned = job["fine_tuned_model"]
    with server(data_dir, "--base", str(other)) as (port, _):
        status, answer = chat(port, tuned)
        assert (status, answer["error"]["code"]) == (404, "model_not_found")
        assert answer["error"]["message"] == (
            f"The model {tuned!r} was tuned on {tiny_base.name}, which this server was not started "
            f"with (it serves other); start it with --base {tiny_base} as well."
        )
        models = {each["id"]: each for each in request(port, "GET", "/v1/models")[1]["data"]}
        assert models[tuned]["served"] is False
        assert models[tuned]["base"] == tiny_base.name
        assert "served" not in models["other"]
        (checkpoint,) = request(port, "GET", f"{JOBS}/{id}/checkpoints")[1]["data"]
        assert chat(port, checkpoint["fine_tuned_model_checkpoint"])[0] == 404
    with server(data_dir, "--base", str(other), "--base", str(tiny_base)) as (port, _):
        assert request(port, "GET", f"/v1/models/{tuned}")[1]["served"] is True
        assert chat(port, tuned)[0] == 200
        assert chat(port, checkpoint["fine_tuned_model_checkpoint"])[0] == 200


def begin(port: int, content: bytes) -> socket.socket:
    """An upload of which there is more to come."""
    begun = socket.create_connection(("127.0.0.1", port), timeout=60)
    begun.sendall(
        b"POST /v1/files HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n"
        b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
        b'Content-Disposition: form-data; name="file"; filename="x"\r\n\r\n' + content
    )
    return begun


def test_an_upload_that_a_kill_cut(tiny_base: Path, tmp_path: Path) -> None:
    data, base = tmp_path / "data", str(tiny_base)
    folder = data / "files"

    def parts() -> list[Path]:
        return list(folder.glob(".*.part"))

    with server(data, "--base", base) as (port, process):
        with begin(port, examples(10)):
            while not parts():
                time.sleep(0.01)
            process.kill()
            process.wait()
        assert len(parts()) == 1
    forgotten, new = folder / "file-0.jsonl", folder / "file-1.jsonl"
    for file in (forgotten, new):
        file.write_bytes(examples(1))
    os.utime(forgotten, (0, 0))
    with server(data, "--base", base) as (port, _):
        assert parts() == []
        # Nobody was told of it, nor will be; of the other somebody may be in a moment.
        assert (forgotten.exists(), new.exists()) == (False, True)
        known = upload(port, examples(10))[1]["id"]
        os.utime(folder / f"{known}.jsonl", (0, 0))
        with begin(port, examples(10)):
            while not parts():
                time.sleep(0.01)
            # Another server over the same data takes nothing of what is under way here.
            with server(data, "--base", base, log=tmp_path / "other.log"):
                assert len(parts()) == 1
                assert (folder / f"{known}.jsonl").exists()
