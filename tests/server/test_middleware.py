"""What is kept out: strangers, other sites, what is too large, what is no training file."""

from __future__ import annotations

import http.client
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running import examples, request, server, upload

from tuneoff.errors import ConfigError

pytest.importorskip("fastapi")
from tuneoff.server.errors import ApiError
from tuneoff.server.settings import build_server_config
from tuneoff.server.uploads import TrainingFileValidator

GOOD = b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}'
TRICKS = ["..", "../server.sqlite", "%2e%2e%2fserver.sqlite", "file-%00", "/etc/passwd", "' OR 1=1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("guarded")


@pytest.fixture(scope="module")
def port(folder: Path, tiny_base: Path) -> Iterator[int]:
    with server(folder / "data", "--base", str(tiny_base)) as (port, _):
        yield port


def test_a_key_is_needed_when_there_are_keys(folder: Path, tiny_base: Path) -> None:
    with server(folder / "keyed", "--base", str(tiny_base), keys="one, two") as (port, _):
        assert request(port, "GET", "/health")[0] == 200
        for header in ({}, {"Authorization": "Bearer three"}, {"Authorization": "one"},
                       {"Authorization": "Bearer "}, {"Authorization": "Bearer \xff"}):  # fmt: skip
            status, body = request(port, "GET", "/v1/models", headers=header)
            assert (status, body["error"]["code"]) == (401, "invalid_api_key")
        for key in ("one", "two"):
            header = {"Authorization": f"Bearer {key}"}
            assert request(port, "GET", "/v1/models", headers=header)[0] == 200
        assert upload(port, examples(10))[0] == 401


def test_without_a_key_only_this_machine_is_answered(port: int) -> None:
    with pytest.raises(ConfigError, match=r"--host 0\.0\.0\.0 lets others in"):
        build_server_config(Path("x"), (), "0.0.0.0", None)
    for header in ({"Host": "attacker.example"}, {"Origin": "http://attacker.example"},
                   {"Origin": "null"}, {"Host": "["}, {"Origin": "http://[x"}):  # fmt: skip
        status, body = request(port, "GET", "/v1/models", headers=header)
        assert (status, body["error"]["code"]) == (403, "forbidden")
    own = {"Origin": f"http://127.0.0.1:{port}"}
    assert request(port, "GET", "/v1/models", headers=own)[0] == 200


@pytest.mark.parametrize("trick", TRICKS)
@pytest.mark.parametrize(
    "path", ["/v1/files/{}", "/v1/files/{}/content", "/v1/fine_tuning/jobs/{}/events",
             "/v1/models/{}"],
)  # fmt: skip
def test_no_id_becomes_a_path(port: int, path: str, trick: str) -> None:
    status, body = request(port, "GET", path.format(trick.replace(" ", "%20")))
    assert status == 404
    assert set(body["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("more", "answer", "why"),
    [
        ({"tools": [{"type": "function"}]}, {}, "tools is not supported"),
        ({}, {"tool_calls": [{"id": "a"}]}, "tool_calls is not supported"),
        ({}, {"weight": 0}, "messages.1.weight is 0"),
        ({"earlier": 1}, {}, "give the others weight: 0"),
        ({"earlier": 0, "tools": []}, {"weight": 1}, None),
    ],
)
def test_what_would_be_learned_otherwise_is_refused(
    port: int, more: dict[str, Any], answer: dict[str, Any], why: str | None
) -> None:
    earlier = [{"role": "assistant", "content": "b", "weight": more.pop("earlier")}] if (
        "earlier" in more
    ) else []  # fmt: skip
    turns = [
        {"role": "user", "content": "a"}, *earlier, {"role": "assistant", "content": "c", **answer},
    ]  # fmt: skip
    status, body = upload(port, json.dumps({"messages": turns, **more}).encode())
    assert status == (400 if why else 200)
    assert why is None or why in body["error"]["message"]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"not json", "not a JSON object"),
        (b'{"messages": "x"}', 'no list "messages"'),
        (b"[]", 'no list "messages"'),
        (b'{"messages": []}', "messages is empty"),
        (b'{"messages": [{"role": "robot", "content": "x"}]}', "messages.0.role is 'robot'"),
        (b'{"messages": [{"role": "user", "content": 5}]}', "must be a text"),
        (b'{"messages": [{"role": "user", "content": "x"}]}', "must be the assistant's"),
        (b'{"messages": [{"role": "assistant", "content": "x"}]}', "no message of a user"),
        (GOOD.replace(b'"b"', b'" "'), "answer is empty"),
        (b"\xff\xfe", "in UTF-8"),
        (b"[" * 100_000, "nested more than"),
        (b'"' + b"x" * 1_100_000 + b'"', "longer than"),
    ],
)
def test_a_wrong_line_is_named_and_nothing_is_kept(
    port: int, folder: Path, line: bytes, why: str
) -> None:
    before = sorted((folder / "data" / "files").glob("*"))
    status, body = upload(port, GOOD + b"\n" + line + b"\n" + GOOD)
    assert status == 400
    assert "Line 2" in body["error"]["message"]
    assert why in body["error"]["message"]
    assert (body["error"]["param"], body["error"]["code"]) == ("file", "invalid_file_format")
    assert sorted((folder / "data" / "files").glob("*")) == before


def test_uploads_that_are_none(port: int) -> None:
    assert upload(port, b"")[0] == 400
    assert upload(port, b"\n\n")[0] == 400
    assert upload(port, GOOD, purpose="vision")[1]["error"]["param"] == "purpose"
    status, body = request(port, "POST", "/v1/files", {"purpose": "fine-tune"})
    assert (status, body["error"]["type"]) == (400, "invalid_request_error")


def test_two_thousand_malformed_uploads() -> None:
    """Bytes deleted, changed and put in: every one is counted right or refused, none crashes."""
    rng = random.Random(0)
    whole = GOOD + b"\n" + GOOD
    refused = 0
    for _ in range(2_000):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 8)):
            at = rng.randrange(len(data))
            if rng.random() < 0.4:
                del data[at]
            elif rng.random() < 0.5:
                data[at] = rng.randrange(256)
            else:
                data[at:at] = rng.choice([b"\n", b"{", b'"', b"\xff", b"\0", b"[" * 50])
        check = TrainingFileValidator()
        try:
            for start in range(0, len(data), 37):
                check.feed(bytes(data[start : start + 37]))
            check.finish()
        except ApiError:
            refused += 1
        else:
            assert 1 <= check.examples <= 3
    assert refused > 1_000


def test_bodies_that_are_too_large(port: int) -> None:
    path = "/v1/fine_tuning/jobs"
    status, body = request(port, "POST", path, b"x" * (9 * 1024**2))
    assert (status, body["error"]["code"]) == (413, "request_too_large")
    status, body = request(port, "POST", path, b"{}", {"Content-Length": str(10**12)})
    assert status == 413


def test_a_body_without_a_length_is_counted(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    chunks = (b"x" * 2**20 for _ in range(20))
    try:
        connection.request("POST", "/v1/fine_tuning/jobs", chunks, encode_chunked=True,
                           headers={"Transfer-Encoding": "chunked"})  # fmt: skip
        assert connection.getresponse().status == 413
    except (BrokenPipeError, ConnectionResetError):
        pass  # refused before it was sent
    finally:
        connection.close()


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"text": "\ud800"}, None),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"stop": ""}, "stop"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"n": 10**30}, "n"),
        ({"seed": "x"}, "seed"),
        ({"nothing": 1}, "nothing"),
    ],
)
def test_what_is_no_completion(
    port: int, tiny_base: Path, path: str, change: dict[str, Any], param: str | None
) -> None:
    change = dict(change)
    text = change.pop("text", "a")
    chat = path.startswith("/v1/chat")
    content = {"messages": [{"role": "user", "content": text}]} if chat else {"prompt": text}
    status, body = request(port, "POST", path, {"model": tiny_base.name, **content, **change})
    assert status == 400
    if param is not None:
        assert body["error"]["param"] == param


def test_wrong_bodies_and_methods(port: int) -> None:
    path = "/v1/fine_tuning/jobs"
    for content in (b"not json", b"[]", b"{}", b'{"model": 3}', b"\xff", b"[" * 50_000):
        status, body = request(port, "POST", path, content, {"Content-Type": "application/json"})
        assert status == 400, content
        assert body["error"]["message"]
    assert request(port, "PUT", path)[0] == 405
    assert request(port, "GET", "/v1/nothing")[0] == 404
    assert request(port, "GET", f"{path}?limit=0")[0] == 400
    assert request(port, "GET", f"{path}?after=ftjob-none")[0] == 404


def test_a_base_is_called_as_its_folder(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    inside, link = base / "deeper", tmp_path / "link"
    inside.mkdir()
    link.symlink_to(base)
    monkeypatch.setenv("HOME", str(tmp_path))
    for place, given in (
        (base, "."), (inside, ".."), (tmp_path, base.name), (inside, str(link)),
        (inside, f"~/{base.name}"),
    ):  # fmt: skip
        monkeypatch.chdir(place)
        name = "link" if "link" in given else base.name
        found = build_server_config(tmp_path / "data", (given,), "127.0.0.1", None).bases
        assert found == {name: str(base)}
