"""What the tests of abuse have in common: raw bytes to a server, its memory, and what no answer
and no log may hold."""

from __future__ import annotations

import contextlib
import json
import socket
from pathlib import Path
from typing import Any

import psutil

LEAKS = ("Traceback", "site-packages", "tuneoff/server", "/tmp/", "/home/", "/root/", ".sqlite")


def raw(port: int, sent: bytes, seconds: float = 60) -> bytes:
    """Whatever a server answers to bytes, until it closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(sent)
        got = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := connection.recv(65536):
                got += chunk
        return got


def statuses(answer: bytes) -> list[int]:
    """The status of each answer in what a server sent."""
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]


def refused(status: int, body: Any, *secrets: str) -> None:
    """A clean 4xx in the hosted shape that tells nothing of the machine."""
    shaped(status, body)
    silent(json.dumps(body), *secrets)


def shaped(status: int, body: Any) -> None:
    """A clean 4xx in the hosted shape."""
    assert 400 <= status < 500, (status, body)
    assert set(body) == {"error"}, body
    assert set(body["error"]) == {"message", "type", "param", "code"}, body
    assert body["error"]["message"]


def silent(text: str, *secrets: str) -> None:
    """No path of the machine, no traceback, no key."""
    assert not [leak for leak in (*LEAKS, *secrets) if leak in text], text


def peak_bytes(pid: int) -> int:
    """The most memory that a process ever had."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"/proc/{pid}/status has no VmHWM")


def tree_bytes(pid: int) -> int:
    """The memory of a server and of what it started."""
    own = psutil.Process(pid)
    return sum(each.memory_info().rss for each in (own, *own.children(recursive=True)))
