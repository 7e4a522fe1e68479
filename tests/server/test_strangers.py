"""Strangers and liars: wrong keys on every route, headers, methods, ids and framing that try to
get past the door. Every answer is a clean 4xx, and neither it nor the log tells anything."""

from __future__ import annotations

import http.client
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from abuse import raw, refused, shaped, silent, statuses
from running import examples, request, server, upload

pytest.importorskip("fastapi")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the server runs on POSIX")
KEY = "the-right-key"
OWN = {"Authorization": f"Bearer {KEY}"}
WRONG_KEYS = (
    None, "", "Bearer", "Bearer ", f"Basic {KEY}", KEY, f"Bearer {KEY}x", f"Bearer {KEY[:-1]}",
    "Bearer \xff\xfe", "Bearer " + "x" * 10_000, f"Bearer {KEY}, Bearer {KEY}",
)  # fmt: skip
TRICKS = (
    "../server.sqlite", "..%2fserver.sqlite", "%2e%2e%2fserver.sqlite", "%252e%252e%252f", "..",
    "....//", "%00", "file-%00.jsonl", "/etc/passwd", "%2fetc%2fpasswd", "..%5c..%5c", ";", "a;b=c",
    "%3f", "%23", "*", "%0d%0aX-Evil: 1".replace(" ", "%20"), "' OR 1=1 --".replace(" ", "%20"),
    quote("ünïcödé-😀-\u202e"), "%ff%fe", "%ed%a0%80", "x" * 10_000, "~root", "$(id)", "-1", "null",
    "CON", ".", "%2e",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("strangers")


@pytest.fixture(scope="module")
def port(folder: Path, tiny_base: Path) -> Iterator[int]:
    with server(folder / "data", "--base", str(tiny_base), keys=f"other, {KEY}") as (port, process):
        yield port
        assert process.poll() is None
    silent((folder / "data.log").read_text(), KEY, "evil")


def operations(port: int) -> list[tuple[str, str]]:
    document = request(port, "GET", "/openapi.json", headers=OWN)[1]
    return [
        (method.upper(), path)
        for path, methods in document["paths"].items()
        for method in methods
    ]  # fmt: skip


def test_a_wrong_key_opens_no_route(port: int) -> None:
    routes = [*operations(port), ("GET", "/openapi.json"), ("GET", "/v1/nothing")]
    assert len(routes) > 20
    seen = set()
    for method, path in routes:
        if path == "/health":
            continue
        for key in WRONG_KEYS:
            headers = {} if key is None else {"Authorization": key}
            status, body = request(port, method, path.format(id="x"), headers=headers)
            assert status == 401, (method, path, key)
            seen.add(json.dumps(body))
    (only,) = seen  # not a word more for a route that exists, or a key that is nearly right
    refused(401, json.loads(only), KEY)


def test_every_route_takes_the_right_key(port: int) -> None:
    for method, path in operations(port):
        status, body = request(port, method, path.format(id="x"), headers=OWN)
        assert status not in (401, 403), (method, path)
        assert status < 500, (method, path, body)


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": ""},
        {"Origin": "http://evil.example"},
        {"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": "evil", "X-Forwarded-Proto": "evil"},
        {"Forwarded": "for=127.0.0.1;host=evil"},
        {"X-Original-URL": "/health", "X-Rewrite-URL": "/health"},
        {"X-HTTP-Method-Override": "DELETE"},
    ],
)
def test_headers_change_nothing(port: int, headers: dict[str, str]) -> None:
    """With keys the key decides, and nothing that is said about the way here."""
    assert request(port, "GET", "/v1/models", headers=headers)[0] == 401
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", "/v1/models/", headers={**headers, **OWN})
        answer = connection.getresponse()
        assert answer.status == 200  # and no redirect
        assert "evil" not in str(answer.headers) + answer.read().decode()
        assert "access-control-allow-origin" not in answer.headers
    finally:
        connection.close()


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "localhost@evil.example"},
        {"Host": ""},
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "null"},
        {"Host": "evil.example", "X-Forwarded-Host": "127.0.0.1"},
    ],
)
def test_without_keys_another_site_gets_nothing(
    tiny_base: Path, open_port: int, headers: dict[str, str]
) -> None:
    for method, path in (("GET", "/v1/files"), ("POST", "/v1/files"), ("DELETE", "/v1/files/x")):
        refused(*request(open_port, method, path, headers=headers))


@pytest.fixture(scope="module")
def open_port(folder: Path, tiny_base: Path) -> Iterator[int]:
    with server(folder / "open", "--base", str(tiny_base)) as (port, _):
        yield port


def test_other_methods(port: int) -> None:
    for path, own in (("/v1/files", "GET, HEAD, POST"), ("/v1/models/a", "DELETE, GET, HEAD"),
                      ("/v1/fine_tuning/jobs/a/cancel", "POST")):  # fmt: skip
        for method in ("PUT", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "X" * 200):
            refused(*request(port, method, path, headers=OWN))
            answer = raw(port, f"{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
                               f"Authorization: Bearer {KEY}\r\n\r\n".encode())  # fmt: skip
            assert statuses(answer) == [405]
            assert f"allow: {own}\r\n".encode() in answer.lower().replace(
                own.lower().encode(), own.encode()
            )
    assert request(port, "HEAD", "/v1/fine_tuning/jobs/a/cancel", headers=OWN)[0] == 405


def test_no_id_becomes_a_path(port: int, folder: Path) -> None:
    outside = folder / "outside.jsonl"
    outside.write_text("not to be touched")
    data = folder / "data"
    kept = upload(port, examples(10), headers=OWN)[1]["id"]
    before = {path for path in data.rglob("*") if not path.name.startswith("server.sqlite")}
    relative = quote(f"../../{outside.name}", safe="")
    for method, path in operations(port):
        if "{id}" not in path:
            continue
        for trick in (*TRICKS, relative, relative.removesuffix(".jsonl"), quote(str(outside))):
            # Not by http.client, which refuses to send some of these.
            sent = f"{method} {path.replace('{id}', trick)} HTTP/1.1\r\nHost: a\r\n"
            sent += f"Authorization: Bearer {KEY}\r\nConnection: close\r\n\r\n"
            answer = raw(port, sent.encode())
            (status,) = statuses(answer)
            assert status in (400, 404, 405), (method, path, trick, answer)
            body = json.loads(answer.partition(b"\r\n\r\n")[2])
            shaped(status, body)
            assert len(answer) < 1_000, "ids are not repeated at length"
    for trick in TRICKS:
        status, body = request(port, "GET", f"/v1/files?after={trick}", headers=OWN)
        assert status == 404 or (trick, status) == ("%23", 404), trick
        body = {"model": trick, "training_file": trick, "validation_file": trick}
        shaped(*request(port, "POST", "/v1/fine_tuning/jobs", body, OWN))
        body = {"model": trick, "messages": [{"role": "user", "content": "a"}]}
        shaped(*request(port, "POST", "/v1/chat/completions", body, OWN))
    after = {path for path in data.rglob("*") if not path.name.startswith("server.sqlite")}
    assert (after, outside.read_text()) == (before, "not to be touched")
    assert request(port, "GET", f"/v1/files/{kept}/content", headers=OWN)[1] == examples(10)


HEAD = f"Host: a\r\nAuthorization: Bearer {KEY}\r\n".encode()
BEHIND = b"GET /v1/files HTTP/1.1\r\n" + HEAD + b"Connection: close\r\n\r\n"
JOBS = b"POST /v1/fine_tuning/jobs HTTP/1.1\r\n" + HEAD


@pytest.mark.parametrize(
    "sent",
    [
        # Two lengths, a length and chunks, chunks that are none, a length that is none.
        JOBS + b"Content-Length: 2\r\nContent-Length: 30\r\n\r\n{}" + BEHIND,
        JOBS + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + BEHIND,
        JOBS + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + BEHIND,
        JOBS + b"Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n" + BEHIND,
        JOBS + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + BEHIND,
        JOBS + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n" + BEHIND,
        JOBS + b"Content-Length: -1\r\n\r\n" + BEHIND,
        JOBS + b"Content-Length: +2\r\n\r\n{}" + BEHIND,
        JOBS + b"Content-Length: 99999999999999999999999999\r\n\r\n{}",
        JOBS + b"Content-Length : 2\r\n\r\n{}" + BEHIND,
        JOBS.replace(b"Host: a\r\n", b"Host: a\r\nHost: b\r\n") + b"\r\n",
        JOBS.replace(b"Host: a\r\n", b"") + b"\r\n",
        b"GET /v1/files\r\n\r\n",
        b"GET  /v1/files HTTP/1.1\r\n" + HEAD + b"\r\n",
        b"GET /v1/f\x00iles HTTP/1.1\r\n" + HEAD + b"\r\n",
        b"GET /v1/f\xc3\xbcles HTTP/1.1\r\n" + HEAD + b"\r\n",
        b"CONNECT 127.0.0.1:22 HTTP/1.1\r\n" + HEAD + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 200,
        b"GET /v1/files HTTP/1.1\r\n" + HEAD + b"X: " + b"y" * 200_000 + b"\r\n\r\n",
        b"GET /v1/files HTTP/1.1\r\n" + HEAD + b"X: y\r\n" * 20_000 + b"\r\n",
    ],
)
def test_framing_that_could_hide_a_request(port: int, sent: bytes) -> None:
    """At most one request is understood, and never the one behind."""
    answer = raw(port, sent)
    assert [status for status in statuses(answer) if status < 400 or status >= 500] == []
    assert len(statuses(answer)) <= 1
    if answer:
        body = answer.partition(b"\r\n\r\n")[2]
        refused(statuses(answer)[0], json.loads(body), KEY)


def test_whole_requests_that_are_odd(port: int) -> None:
    for target in ("http://evil.example/v1/files", "*", "//v1/files", "/v1//files", "/v1/./files"):
        answer = raw(
            port, f"GET {target} HTTP/1.1\r\n".encode() + HEAD + b"Connection: close\r\n\r\n"
        )
        assert statuses(answer) == [404], target
        refused(404, json.loads(answer.partition(b"\r\n\r\n")[2]))
    many = "&".join(f"metadata[k{n}]=v" for n in range(300))
    refused(*request(port, "GET", f"/v1/fine_tuning/jobs?{many}", headers=OWN))
    upgrade = (
        HEAD + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    assert statuses(raw(port, b"GET /v1/nothing HTTP/1.1\r\n" + upgrade + BEHIND)) == [404, 200]
    # Two requests in one go are two requests.
    one = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"
    assert statuses(raw(port, one + BEHIND)) == [200, 200]
