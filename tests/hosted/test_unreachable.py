"""A server that is not there: who waits is told in one line, a server that never answered is given
up soon with what to do, and nothing counts as paid."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from world import KEY, PRICE, Heard, bakeoff_file, hosted, prompted, rows, trainer
from world import run as carry_out

from tuneoff.costs.ledger import Ledger
from tuneoff.providers.retries import MAX_FIRST_TRIES

pytest.importorskip("openai")
pytestmark = pytest.mark.usefixtures("no_report")
AGAIN = "trying again"


@pytest.fixture
def port() -> int:
    """A port where nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        found: int = one.getsockname()[1]
    return found


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        choice = {"index": 0, "finish_reason": "stop",
                  "message": {"role": "assistant", "content": "yes"}}  # fmt: skip
        usage = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}
        body = json.dumps(
            {"id": "1", "object": "chat.completion", "created": 1, "model": "fake-1",
             "choices": [choice], "usage": usage}
        ).encode()  # fmt: skip
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        return None


@contextmanager
def answering(port: int) -> Iterator[None]:
    """A server that answers every question."""
    with ThreadingHTTPServer(("127.0.0.1", port), _Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


class StartsIt(Heard):
    """Starts the server when it hears that it is not there, as a user would."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.server = answering(port)

    def say(self, line: str) -> None:
        super().say(line)
        if AGAIN in line:
            self.server.__enter__()


@pytest.mark.parametrize("kind", ["prompted", "hosted"])
def test_a_server_that_never_answered_is_given_up_soon(
    port: int, kind: str, tmp_path: Path
) -> None:
    url = f"http://127.0.0.1:{port}/v1"
    contender = (hosted if kind == "hosted" else prompted)(url, "asked", price=PRICE)
    file, heard = bakeoff_file(tmp_path / "b", contender, test=40), Heard()
    error = str(carry_out(file, heard).contenders[0].error)
    assert f"{url}: " in error
    assert "Connection refused" in error
    assert "start the server, or mend base_url" in error
    if kind == "prompted":
        assert f"(tried {MAX_FIRST_TRIES} times)" in error
    told = [line for line in heard.lines if AGAIN in line]
    assert len(told) == 1
    assert told[0].startswith(f"asked: {url}: ")
    assert "Connection refused" in told[0]
    assert f"up to {MAX_FIRST_TRIES - 2} times" in told[0]
    assert KEY not in error + heard.text()
    if kind == "prompted":  # a hosted one's leave is asked for once its files are there
        spent = Ledger(file.parent / "run" / "events.jsonl").spent()
        assert float(spent.known + spent.uncertain) == 0


def test_who_starts_the_server_then_gets_all_answers(port: int, tmp_path: Path) -> None:
    contender = prompted(f"http://127.0.0.1:{port}/v1", concurrency=1)
    file, heard = bakeoff_file(tmp_path / "b", contender, test=5), StartsIt(port)
    try:
        assert carry_out(file, heard).contenders[0].error is None
    finally:
        heard.server.__exit__(None, None, None)
    assert [row["error"] for row in rows(file, "asked")] == [None] * 5
    assert sum(AGAIN in line for line in heard.lines) == 1


def test_a_server_that_answered_before_is_waited_for(port: int, tmp_path: Path) -> None:
    """Also where it was another command that it answered."""
    contender = prompted(f"http://127.0.0.1:{port}/v1", concurrency=1)
    file = bakeoff_file(tmp_path / "b", contender, test=3)
    with answering(port):
        assert carry_out(file).contenders[0].error is None
    kept = file.parent / "run" / "contenders" / "asked" / "predictions.jsonl"
    kept.write_text(kept.read_text().splitlines(keepends=True)[0])
    error = str(carry_out(file).contenders[0].error)
    assert "(tried 6 times)" in error
    assert "start the server" not in error


@pytest.mark.parametrize("path", ["", "/v2"])
def test_an_address_without_a_path_says_what_it_mostly_ends_in(path: str, tmp_path: Path) -> None:
    with trainer(tmp_path / "fake") as fake:
        url = fake.url.removesuffix("/v1") + path
        file = bakeoff_file(tmp_path / "b", prompted(url), test=3)
        error = str(carry_out(file).contenders[0].error)
    assert f"{url}: " in error
    assert ("mostly ends in /v1" in error) is (path == "")
