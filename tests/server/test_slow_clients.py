"""Clients that send a head or a body byte by byte, never read their stream, or just sit there: the
others are answered meanwhile, they are let go, and memory is bounded."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from abuse import refused, silent, tree_bytes
from running import examples, request, server, upload

pytest.importorskip("fastapi")
from tuneoff.server import connection_limits as deadlines

pytestmark = [pytest.mark.slow, pytest.mark.alone]
Connect = Callable[..., socket.socket]
EACH = 60
IDLE = 200
GROWTH_BYTES = 150 * 1024**2
# Far beyond every deadline: what is not closed then is never closed.
PATIENCE_SECONDS = 300


@pytest.fixture
def running(tiny_base: Path, tmp_path: Path) -> Iterator[tuple[int, int, str]]:
    with server(tmp_path / "data", "--base", str(tiny_base)) as (port, process):
        yield port, process.pid, tiny_base.name
        assert process.poll() is None
    silent((tmp_path / "data.log").read_text())


@pytest.fixture
def connect() -> Iterator[Callable[..., socket.socket]]:
    """Opens connections, and closes them after the test."""
    with contextlib.ExitStack() as opened:
        yield lambda *arguments, **named: opened.enter_context(_connect(*arguments, **named))


def _connect(port: int, sent: bytes, receive_bytes: int | None = None) -> socket.socket:
    connection = socket.socket()
    if receive_bytes is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    connection.connect(("127.0.0.1", port))
    connection.sendall(sent)
    connection.setblocking(False)
    return connection


def trickle(connections: list[socket.socket]) -> None:
    """One byte more from each that is still there."""
    for connection in connections:
        with contextlib.suppress(OSError):
            connection.send(b"x")


def gone(connections: list[socket.socket], pid: int) -> int:
    """How many the server has closed; a client that does not read is not told."""
    ours = {each.getsockname()[1] for each in connections}
    there = psutil.Process(pid).net_connections("tcp")
    return len(ours) - len(ours & {each.raddr.port for each in there if each.raddr})


def answered(port: int, base: str) -> None:
    """What a client that behaves gets while all that goes on."""
    assert request(port, "GET", "/health")[0] == 200
    status, file = upload(port, examples(10))
    assert status == 200
    assert request(port, "DELETE", f"/v1/files/{file['id']}")[0] == 200
    body = {"model": base, "messages": [{"role": "user", "content": "a"}], "max_tokens": 2}
    assert request(port, "POST", "/v1/chat/completions", body)[0] == 200


def post(path: str, length: int) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


def test_slow_clients(running: tuple[int, int, str], connect: Connect) -> None:
    port, pid, base = running
    answered(port, base)
    before = tree_bytes(pid)
    heads = [connect(port, b"GET /health HTTP/1.1\r\nX-Slow: ") for _ in range(EACH)]
    bodies = [connect(port, post("/v1/chat/completions", 10_000) + b'{"a": "') for _ in range(EACH)]
    form = post("/v1/files", 10_000).replace(
        b"application/json", b"multipart/form-data; boundary=mark"
    )
    uploads = [
        connect(port, form + b'--mark\r\nContent-Disposition: form-data; name="file"\r\n\r\n{"')
        for _ in range(EACH)
    ]
    silent_ones = [connect(port, b"") for _ in range(IDLE)]
    everyone = [*heads, *bodies, *uploads, *silent_ones]
    began = time.monotonic()
    answered(port, base)
    most = 0
    while gone(everyone, pid) < len(everyone):
        assert time.monotonic() - began < PATIENCE_SECONDS, f"{gone(everyone, pid)} were let go"
        answered(port, base)
        trickle(heads + bodies + uploads)
        most = max(most, tree_bytes(pid))
        time.sleep(0.5)
    # Not at once either: a client may take its time.
    assert time.monotonic() - began > deadlines.HEAD_SECONDS - 5
    assert most - before < GROWTH_BYTES


def test_streams_that_nobody_reads(running: tuple[int, int, str], connect: Connect) -> None:
    port, pid, base = running
    answered(port, base)
    before = tree_bytes(pid)
    body = json.dumps({
        "model": base, "messages": [{"role": "user", "content": "a"}], "stream": True, "n": 16,
        "max_tokens": 200, "logprobs": True, "top_logprobs": 20, "temperature": 2,
    }).encode()  # fmt: skip
    unread = [
        connect(port, post("/v1/chat/completions", len(body)) + body, receive_bytes=4096)
        for _ in range(8)
    ]
    for each in unread:
        select.select([each], [], [], PATIENCE_SECONDS)
        assert each.recv(12, socket.MSG_PEEK) == b"HTTP/1.1 200"
    began, most = time.monotonic(), 0
    while gone(unread, pid) < len(unread):
        assert time.monotonic() - began < PATIENCE_SECONDS, f"{gone(unread, pid)} were let go"
        assert request(port, "GET", "/health")[0] == 200
        most = max(most, tree_bytes(pid))
        time.sleep(0.5)
    answered(port, base)
    assert most - before < GROWTH_BYTES


def test_too_many_at_a_time(running: tuple[int, int, str], connect: Connect) -> None:
    """More requests than are worked on at a time get a 429, and large bodies in memory too."""
    port, pid, base = running
    answered(port, base)
    before = tree_bytes(pid)
    begun = [connect(port, post("/v1/chat/completions", 2_000_000)) for _ in range(512)]
    end = time.monotonic() + PATIENCE_SECONDS
    status, body = request(port, "GET", "/v1/models")
    while status == 200 and time.monotonic() < end:  # until the last of them has arrived
        status, body = request(port, "GET", "/v1/models")
    assert status == 429
    refused(status, body)
    assert body["error"]["code"] == "rate_limit_exceeded"
    for each in begun:
        each.close()
    while request(port, "GET", "/v1/models")[0] == 429 and time.monotonic() < end:
        time.sleep(0.1)
    # 40 bodies of which each is allowed, and which together are too much.
    held = [connect(port, post("/v1/chat/completions", 2**23)) for _ in range(40)]
    for each in held:
        each.setblocking(True)
        each.settimeout(30)
        with contextlib.suppress(OSError):
            each.sendall(b"[" * (2**23 - 1))
    answers = [each for each in held if select.select([each], [], [], 0)[0]]
    assert len(answers) >= 40 - 8
    for each in answers:
        with contextlib.suppress(ConnectionResetError):
            assert each.recv(12) == b"HTTP/1.1 429"
    assert tree_bytes(pid) - before < 2 * GROWTH_BYTES
    for each in held:
        each.close()
    while request(port, "GET", "/v1/models")[0] == 429 and time.monotonic() < end:
        time.sleep(0.1)
    answered(port, base)
