"""A recorded run is replayed: same bytes, no network, no key, no server."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import tuneoff
from tuneoff.errors import ConfigError
from tuneoff.providers.cassette import RecordingTransport
from tuneoff.records import Prediction
from tuneoff.storage.run_dir import RunDir

pytest.importorskip("openai")
RECORDED = Path(__file__).parent / "recorded"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can be reached, and nobody has a key."""

    def refuse(*_: Any) -> None:
        raise AssertionError("the network was used")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def replayed(tmp_path: Path) -> RunDir:
    bakeoff = tuneoff.load(RECORDED / "bakeoff.yaml")
    results = tuneoff.run(bakeoff, tmp_path / "run", replay=RECORDED)
    assert [each.error for each in results.contenders] == [None, None]
    return RunDir(tmp_path / "run")


@pytest.mark.usefixtures("offline")
def test_a_replay_gives_the_recorded_answers(tmp_path: Path) -> None:
    run, recorded = replayed(tmp_path), RunDir(RECORDED)
    for name in ("tuned", "shown"):
        before: dict[str, Prediction] = recorded.contender(name).predictions()
        assert len(before) == 24
        assert run.contender(name).predictions() == before  # with tokens, seconds and all
    assert run.contender("tuned").job()["job_id"] == recorded.contender("tuned").job()["job_id"]
    training = run.contender("tuned").training()
    assert training is not None
    assert training.tokens_billed == recorded.contender("tuned").job()["trained_tokens"]
    assert len(run.contender("tuned").loss()) > 2


@pytest.mark.usefixtures("offline")
def test_an_answer_that_was_not_recorded_is_no_answer(tmp_path: Path) -> None:
    """Another prompt than the recorded one must not get some answer or other."""
    text = (RECORDED / "bakeoff.yaml").read_text().replace("prompt: short", "prompt: full")
    (tmp_path / "b.yaml").write_text(text)
    results = tuneoff.run(tuneoff.load(tmp_path / "b.yaml"), tmp_path / "run", replay=RECORDED)
    for each in results.contenders:
        assert "the recording holds no answer" in (each.error or "")


def test_a_run_without_a_recording_cannot_be_replayed(tmp_path: Path) -> None:
    bakeoff = tuneoff.load(RECORDED / "bakeoff.yaml")
    with pytest.raises(ConfigError, match=r"there is no recording; .*record: true"):
        tuneoff.run(bakeoff, tmp_path / "run", replay=tmp_path / "nothing")


def test_what_ships_holds_no_headers_but_harmless_ones() -> None:
    for file in RECORDED.glob("contenders/*/exchanges.jsonl"):
        for line in file.read_text().splitlines():
            row = json.loads(line)
            assert set(row["headers"]) <= {"content-type", "date", "x-request-id"}
            assert "authorization" not in line.lower()


class _Proxy(BaseHTTPRequestHandler):
    """Answers for every host by itself, with the address that it was asked for."""

    def do_GET(self) -> None:
        content = self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        return None


@pytest.fixture
def proxy() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Proxy) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_what_is_recorded_goes_through_the_environments_proxy(
    tmp_path: Path, proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    httpx = pytest.importorskip("httpx")
    for name in ("http_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HTTP_PROXY", proxy)  # without a scheme, as many have it
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    transport = RecordingTransport(tmp_path / "exchanges.jsonl").transport(httpx, "")
    with httpx.Client(transport=transport) as client:
        assert client.get("http://nowhere.invalid/v1/x").text == "http://nowhere.invalid/v1/x"
        assert client.get(f"http://{proxy}/direct").text == "/direct"
    assert len((tmp_path / "exchanges.jsonl").read_text().splitlines()) == 2
