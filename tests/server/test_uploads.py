"""Two thousand malformed uploads to a real server: each is refused in one clean sentence or was
none, nothing of it stays, and memory is bounded. Uploads go to the disk as they come."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from abuse import peak_bytes, raw, refused, silent, statuses
from running import examples, request, server, upload

pytest.importorskip("fastapi")
UPLOADS = 2_000
QUICK = 100
MARK = "mark"
GROWTH_BYTES = 200 * 1024**2
TURN = {"role": "user", "content": "a"}
LONG = {"role": "assistant", "content": "b" * 2_000}
EXAMPLE = {"messages": [TURN, {"role": "assistant", "content": "b"}]}
TYPE = {"Content-Type": f"multipart/form-data; boundary={MARK}"}
HEAD = f"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Type: {TYPE['Content-Type']}\r\n"
WRONG_TYPES = (
    "multipart/form-data", "multipart/form-data; boundary=", "multipart/mixed; boundary=mark", "",
    "multipart/form-data; boundary=" + "b" * 300, "application/json", "text/plain", ";;;",
    "multipart/form-data; boundary=another", 'multipart/form-data; boundary="',
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def running(folder: Path, tiny_base: Path) -> Iterator[tuple[int, int]]:
    with server(folder / "data", "--base", str(tiny_base)) as (port, process):
        yield port, process.pid
        assert process.poll() is None
    silent((folder / "data.log").read_text())


def part(name: str, content: bytes, more: str = "") -> bytes:
    head = f'--{MARK}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
    return head.encode("utf-8", "surrogateescape") + content + b"\r\n"


FILE = '; filename="x.jsonl"'
END = f"--{MARK}--\r\n".encode()
PURPOSE = part("purpose", b"fine-tune")


def wrong_value(rng: random.Random) -> Any:
    deep: Any = "x"
    for _ in range(rng.randrange(1, 200)):
        deep = [deep]
    return rng.choice([None, True, 5, -1e300, "", " ", "x", [], {}, [[]], deep, "\ud800", "\0"])


def wrong_line(rng: random.Random) -> bytes:
    """One line that is no example (or, by chance, still is)."""
    value = json.loads(json.dumps(EXAMPLE))
    turn = rng.choice(value["messages"])
    kind = rng.randrange(12)
    if kind == 0:
        turn[rng.choice(["role", "content"])] = wrong_value(rng)
    elif kind == 1:
        value["messages"] = wrong_value(rng)
    elif kind == 2:
        del turn[rng.choice(["role", "content"])]
    elif kind == 3:
        value = wrong_value(rng)
    elif kind == 4:
        value["messages"].reverse()
    line = json.dumps(value).encode()
    if kind == 5:
        line = line[: rng.randrange(1, len(line))]
    elif kind == 6:
        line = line.decode().encode(rng.choice(["utf-16", "utf-32", "utf-16-le", "utf-7"]))
    elif kind == 7:
        at = rng.randrange(len(line))
        line = line[:at] + rng.choice([b"\0", b"\xff", b"\xc0\x80", b"\r", b"\x1b"]) + line[at:]
    elif kind == 8:
        line = line.replace(b'"messages"', b'"messages": 1, "messages"').replace(b'"b"', b'" "')
    elif kind == 9:
        line = rng.choice([b"[", b'{"a":', b'"', b"1"]) * rng.randrange(1_000, 200_000)
    elif kind == 10:
        line = line.replace(b'"b"', b'"' + b"b" * rng.randrange(1_048_500, 1_100_000) + b'"')
    elif kind == 11:
        line = b'{"messages": NaN}' if rng.random() < 0.5 else b"9" * rng.randrange(5_000, 50_000)
    return line


def wrong_file(rng: random.Random) -> bytes:
    lines = examples(12).splitlines()
    for _ in range(rng.randrange(1, 3)):
        lines[rng.randrange(len(lines))] = wrong_line(rng)
    return b"\n".join(lines)


def wrong_form(rng: random.Random) -> tuple[bytes, dict[str, str]]:
    """A body with its headers: something about the framing is off, or about the file."""
    good = examples(10)
    header = dict(TYPE)
    name = rng.choice([
        "../../etc/passwd", "..\\..\\x", "a\0b", "x" * 4_000, "\u202e.lnosj", '"', "CON", "\udcff",
        "; rm -rf", "%2e%2e%2f", "", "/",
    ])  # fmt: skip
    body = part("file", good, f'; filename="{name}"') + PURPOSE + END
    kind = rng.randrange(14)
    if kind < 6:
        body = part("file", wrong_file(rng), FILE) + PURPOSE + END
    elif kind == 6:
        body = rng.choice([PURPOSE, part("file", good, FILE), b""]) + END
    elif kind == 7:
        twice = rng.choice([PURPOSE, part("file", good, FILE)])
        body = twice + part("file", good, FILE) + PURPOSE + twice + END
    elif kind == 8:
        body = body[: rng.randrange(len(body))]
    elif kind == 9:
        at = rng.randrange(len(body))
        body = body[:at] + rng.randbytes(rng.randrange(1, 50)) + body[at + rng.randrange(20) :]
    elif kind == 10:
        body = part(rng.choice(["other", "file[]", "", "x" * 5_000]), b"1") + body
    elif kind == 11:
        wrong = rng.choice([b"", b"vision", b"fine-tune\0", b"x" * 5_000, b"\xff"])
        body = part("file", good, FILE) + part("purpose", wrong) + END
    elif kind == 12:
        header = {"Content-Type": rng.choice(WRONG_TYPES)}
    return body, header


@pytest.mark.parametrize(
    "count", [QUICK, pytest.param(UPLOADS, marks=[pytest.mark.slow, pytest.mark.alone])]
)
def test_malformed_uploads(running: tuple[int, int], folder: Path, count: int) -> None:
    port, pid = running
    rng, kept, turned_away = random.Random(count), 0, 0
    at_first = len(request(port, "GET", "/v1/files")[1]["data"])
    for _ in range(20):
        assert upload(port, b"x" * 2**20)[0] == 400
    before = peak_bytes(pid)
    for number in range(count):
        body, headers = wrong_form(rng)
        status, answer = request(port, "POST", "/v1/files", body, headers)
        if status == 200:  # what was done to it left it good
            kept += 1
            assert answer["bytes"] <= len(body)
            assert answer["filename"].isprintable()
            assert request(port, "DELETE", f"/v1/files/{answer['id']}")[0] == 200
        else:
            turned_away += 1
            assert answer["error"]["type"] == "invalid_request_error", number
            message = answer["error"]["message"]
            refused(status, {"error": {**answer["error"], "message": message.split("'")[0] + "."}})
    assert turned_away > count / 2
    assert kept > count / 100, "odd names alone are no fault"
    assert list((folder / "data" / "files").iterdir()) == []
    assert len(request(port, "GET", "/v1/files")[1]["data"]) == at_first == 0
    assert peak_bytes(pid) - before < GROWTH_BYTES
    assert not [path for path in folder.parent.iterdir() if path.name in ("x", "etc")]


def test_an_upload_lies_in_the_data_directory_while_it_comes(
    running: tuple[int, int], folder: Path
) -> None:
    """Neither in memory nor in a temporary file; and it is gone with whoever sent it."""
    port, pid = running
    files, before = folder / "data" / "files", peak_bytes(pid)
    line = json.dumps({"messages": [TURN, {"role": "assistant", "content": "b" * 100_000}]})
    chunk = (line + "\n").encode()
    body = part("file", chunk, FILE)[:-2]
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(f"{HEAD}Content-Length: {2**29}\r\n\r\n".encode() + body)
        for _ in range(1_000):
            connection.sendall(chunk)
        size = 0
        while size < 900 * len(chunk):  # until what was sent has arrived
            time.sleep(0.05)
            (incoming,) = files.iterdir()
            size = incoming.stat().st_size
    while list(files.iterdir()):
        time.sleep(0.05)
    assert peak_bytes(pid) - before < GROWTH_BYTES / 4
    assert request(port, "GET", "/v1/files")[1]["data"] == []


def test_the_first_wrong_line_ends_an_upload(running: tuple[int, int]) -> None:
    """Long before the rest is sent."""
    port, _ = running
    body = part("file", b"no example\n", FILE)[:-2]
    answer = raw(port, f"{HEAD}Content-Length: {2**29}\r\n\r\n".encode() + body)
    assert statuses(answer) == [400]
    assert b"Line 1" in answer


@pytest.mark.slow
def test_a_file_that_is_too_large(running: tuple[int, int], folder: Path) -> None:
    """By its length at once; without one as soon as it is too much."""
    port, pid = running
    before = peak_bytes(pid)
    answer = raw(port, f"{HEAD}Content-Length: {2**40}\r\n\r\n".encode() + PURPOSE)
    assert statuses(answer) == [413]
    # Each line is read as an example: long ones are as many bytes in a tenth of the time.
    lines = (json.dumps({"messages": [TURN, LONG]}) + "\n").encode() * 500
    chunk = f"{len(lines):x}\r\n".encode() + lines + b"\r\n"
    start = part("file", b"", FILE)[:-2]
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(f"{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode())
        connection.sendall(f"{len(start):x}\r\n".encode() + start + b"\r\n")
        answer, sent = b"", 0
        connection.setblocking(False)
        pending = b""
        while not answer.endswith(b"}}") and sent < 2**30:
            pending = pending or chunk
            try:
                sent += (wrote := connection.send(pending))
                pending = pending[wrote:]
            except BlockingIOError:
                time.sleep(0.001)
            with contextlib.suppress(BlockingIOError):
                answer += connection.recv(65536)
    assert statuses(answer) == [413]
    assert b"file_too_large" in answer or b"request_too_large" in answer
    assert 2**29 <= sent < 2**29 + 2**25
    assert peak_bytes(pid) - before < GROWTH_BYTES / 4
    assert list((folder / "data" / "files").iterdir()) == []


def test_odd_forms_that_are_good(running: tuple[int, int]) -> None:
    port, _ = running
    content = examples(10)
    for body in (
        PURPOSE + part("file", content, FILE) + END,
        part("file", content, FILE) + PURPOSE + END + b"epilogue",
        b"\r\n" + part("file", content) + PURPOSE + END,
    ):
        status, file = request(port, "POST", "/v1/files", body, TYPE)
        assert (status, file["bytes"]) == (200, len(content))
        assert request(port, "GET", f"/v1/files/{file['id']}/content")[1] == content
        assert request(port, "DELETE", f"/v1/files/{file['id']}")[0] == 200
    unknown = part("expires_after[anchor]", b"x") + END
    status, body = request(port, "POST", "/v1/files", unknown, TYPE)
    assert (status, body["error"]["code"]) == (400, "invalid_value")
    assert "'expires_after[anchor]'" in body["error"]["message"]
