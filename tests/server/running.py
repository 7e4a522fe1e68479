"""A real server process on loopback, and raw requests to it."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

START_SECONDS = 60


@contextmanager
def server(
    data_dir: Path,
    *arguments: str,
    keys: str | None = None,
    log: Path | None = None,
    port: int | None = None,
) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Port (a free one unless given) and process of `tuneoff serve`; it is ended afterwards."""
    if port is None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = int(free.getsockname()[1])
    environment = {k: v for k, v in os.environ.items() if k != "TUNEOFF_API_KEYS"}
    if keys is not None:
        environment["TUNEOFF_API_KEYS"] = keys
    command = [
        sys.executable, "-c", "from tuneoff.cli.main import main; main()", "serve",
        "--port", str(port), "--data-dir", str(data_dir), *arguments,
    ]  # fmt: skip
    with (log or data_dir.with_suffix(".log")).open("ab") as stream:
        process = subprocess.Popen(command, env=environment, stderr=stream, stdout=stream)
        try:
            wait(port, process)
            yield port, process
        finally:
            process.terminate()
            process.wait(30)


def wait(port: int, process: subprocess.Popen[bytes]) -> None:
    """Until the server answers.

    Raises:
        AssertionError: it ended, or took too long.
    """
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            if request(port, "GET", "/health")[0] == 200:
                return
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"the server did not start (exit code {process.poll()})")


def request(
    port: int,
    method: str,
    path: str,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, Any]:
    """Status and decoded body of one request; a body that is no bytes goes as JSON."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    sent = dict(headers or {})
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
        sent.setdefault("Content-Type", "application/json")
    try:
        connection.request(method, path, body, sent)
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    try:
        return answer.status, json.loads(text)
    except ValueError:
        return answer.status, text


def upload(
    port: int, content: bytes, purpose: str = "fine-tune", **options: Any
) -> tuple[int, Any]:
    """A file as a multipart form."""
    mark = "----tuneoff"
    form = (
        (
            f'--{mark}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n{purpose}\r\n'
            f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="x.jsonl"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode()
        + content
        + f"\r\n--{mark}--\r\n".encode()
    )
    headers = {
        "Content-Type": f"multipart/form-data; boundary={mark}",
        **options.pop("headers", {}),
    }
    return request(port, "POST", "/v1/files", form, headers, **options)


def examples(count: int, answer: str = "yes") -> bytes:
    """So many training examples in the chat format."""
    return "".join(
        json.dumps({"messages": [
            {"role": "user", "content": f"Is {number} a number?"},
            {"role": "assistant", "content": answer},
        ]}) + "\n"
        for number in range(count)
    ).encode()  # fmt: skip
