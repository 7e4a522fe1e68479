"""The hosted flow on the shipped base by clients that are not the Python SDK: the official
JavaScript SDK, and curl."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running import examples, server

from tuneoff.config.contenders import SHIPPED_BASE

pytestmark = pytest.mark.slow
pytest.importorskip("fastapi")
KEY = "a-key"
FLOW_SECONDS = 900
JS = Path(__file__).parent / "js"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clients")
    (folder / "train.jsonl").write_bytes(examples(12))
    (folder / "validation.jsonl").write_bytes(examples(4))
    return folder


@pytest.fixture(scope="module")
def port(folder: Path) -> Iterator[int]:
    with server(folder / "data", keys=KEY) as (port, _):
        yield port


def test_the_javascript_sdk(folder: Path, port: int) -> None:
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not here")
    js = shutil.copytree(JS, folder / "js", ignore=shutil.ignore_patterns("node_modules"))
    installed = subprocess.run(
        ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"],
        cwd=js, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if installed.returncode:
        pytest.skip(f"npm cannot install the SDK here: {installed.stderr.strip()[-200:]}")
    done = subprocess.run(
        ["node", "flow.mjs", f"http://127.0.0.1:{port}/v1", KEY, folder / "train.jsonl",
         folder / "validation.jsonl", SHIPPED_BASE],
        cwd=js, capture_output=True, text=True, check=False, timeout=FLOW_SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] >= 1


class Curl:
    """curl with the server's key; status and text of an answer."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/v1"

    def __call__(self, path: str, *arguments: str, key: str = KEY) -> tuple[int, str]:
        done = subprocess.run(
            ["curl", "-sS", "--max-time", "300", "-w", "\n%{http_code}", *arguments,
             "-H", f"Authorization: Bearer {key}", self._url + path],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        text, _, status = done.stdout.rpartition("\n")
        return int(status), text

    def json(self, path: str, *arguments: str, body: Any = None) -> dict[str, Any]:
        if body is not None:
            arguments += ("-H", "Content-Type: application/json", "-d", json.dumps(body))
        status, text = self(path, *arguments)
        assert status == 200, text
        found = json.loads(text)
        assert isinstance(found, dict)
        return found


def test_curl(folder: Path, port: int) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not here")
    curl = Curl(port)
    # The file before the purpose, unlike the SDKs.
    form = ("-F", f"file=@{folder / 'train.jsonl'}", "-F", "purpose=fine-tune")
    file = curl.json("/files", *form)
    assert (file["filename"], file["bytes"]) == ("train.jsonl", len(examples(12)))
    job = curl.json(
        "/fine_tuning/jobs",
        body={"model": SHIPPED_BASE, "training_file": file["id"], "suffix": "curl",
              "hyperparameters": {"n_epochs": 1, "batch_size": 4}},
    )  # fmt: skip
    end = time.monotonic() + FLOW_SECONDS
    while job["status"] != "succeeded" and time.monotonic() < end:
        assert job["status"] in ("queued", "running"), job["error"]
        time.sleep(0.5)
        job = curl.json(f"/fine_tuning/jobs/{job['id']}")
    assert job["status"] == "succeeded"
    events = curl.json(f"/fine_tuning/jobs/{job['id']}/events?limit=1")
    assert events["data"][0]["message"] == "The job has successfully completed"
    assert events["has_more"] is True
    status, text = curl(f"/files/{job['result_files'][0]}/content")
    assert (status, text.splitlines()[0]) == (200, "step,train_loss,valid_loss")

    model = job["fine_tuned_model"]
    asked = {"model": model, "temperature": 0, "max_tokens": 8,
             "messages": [{"role": "user", "content": "Is 3 a number?"}]}  # fmt: skip
    answer = curl.json("/chat/completions", body=asked)
    assert answer["usage"]["completion_tokens"] >= 1
    assert streamed(curl, asked) == answer["choices"][0]["message"]["content"]

    assert model in [each["id"] for each in curl.json("/models")["data"]]
    assert curl.json(f"/models/{model}", "-X", "DELETE")["deleted"] is True
    assert curl.json(f"/files/{file['id']}", "-X", "DELETE")["deleted"] is True
    status, text = curl(f"/files/{file['id']}")
    error = json.loads(text)["error"]
    assert (status, error["param"], error["code"]) == (404, "file_id", "file_not_found")
    status, text = curl("/models", key="wrong")
    assert (status, json.loads(text)["error"]["code"]) == (401, "invalid_api_key")


def streamed(curl: Curl, asked: dict[str, Any]) -> str:
    body = json.dumps({**asked, "stream": True})
    status, text = curl(
        "/chat/completions", "-N", "-H", "Content-Type: application/json", "-d", body
    )
    assert status == 200
    *events, end = [line.removeprefix("data: ") for line in text.splitlines() if line]
    assert end == "[DONE]"
    choices = [choice for event in events for choice in json.loads(event)["choices"]]
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    return "".join(choice["delta"].get("content", "") for choice in choices)
