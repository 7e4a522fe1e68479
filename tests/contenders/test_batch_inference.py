"""`batch: true` against a real `tuneoff serve` behind a proxy that loses answers and changes what
comes back: each example is answered once, each batch is paid for once, at the price of batches."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from running import server as serving

pytest.importorskip("fastapi")
pytest.importorskip("openai")

import tuneoff
from tuneoff.contenders import batch_inference, idempotency
from tuneoff.costs.ledger import Ledger
from tuneoff.errors import BudgetError, ConfigError
from tuneoff.progress import SilentProgress
from tuneoff.storage.run_dir import RunDir

COUNT = 24
PRICE = (
    "price: {input_usd_per_million_tokens: 10, output_usd_per_million_tokens: 20, "
    "batch_input_usd_per_million_tokens: 5, batch_output_usd_per_million_tokens: 10}"
)
# What may be done to an answer: (method, path, content) → content, or None: it is never sent.
Change = Callable[[str, str, bytes], bytes | None]


class Proxy(ThreadingHTTPServer):
    """Hands requests on and counts them."""

    request_queue_size = 128

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind = port
        self.change: Change = lambda method, path, content: content
        self.requests: Counter[str] = Counter()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, *_: Any) -> None:
        return None  # whoever was cut off


class _Handler(BaseHTTPRequestHandler):
    protocol_version, disable_nagle_algorithm = "HTTP/1.1", True
    server: Proxy

    def log_message(self, *_: Any) -> None:
        return None

    def _handle(self) -> None:
        path = self.path.partition("?")[0]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.requests[f"{self.command} {re.sub('/(batch|file)-[^/]+', '/ID', path)}"] += 1
        behind = http.client.HTTPConnection("127.0.0.1", self.server.behind, timeout=60)
        kept = ("content-type", "authorization")
        headers = {k: v for k, v in self.headers.items() if k.lower() in kept}
        behind.request(self.command, self.path, body, headers)
        answer = behind.getresponse()
        content = self.server.change(self.command, path, answer.read())
        behind.close()
        if content is None:
            self.close_connection = True
            return
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.headers["Content-Type"])
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = _handle


@pytest.fixture(scope="module")
def port(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("served") / "data"
    with serving(folder, "--base", str(tiny_base)) as (port, _):
        yield port


@pytest.fixture
def proxy(port: int) -> Iterator[Proxy]:
    with Proxy(port) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield proxy
        proxy.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_inference, "MIN_POLL_SECONDS", 0.05)
    monkeypatch.setattr(batch_inference, "MAX_POLL_SECONDS", 0.1)
    monkeypatch.setattr(idempotency, "LISTING_POLL_SECONDS", 0.05)


def written(folder: Path, proxy: Proxy, base: Path, more: str, top: str = "") -> Path:
    """A bake-off file with one contender that only answers; each test asks its own questions."""
    for name, count in (("train", 2), ("validation", 2), ("test", COUNT)):
        rows = (
            {"messages": [{"role": "user", "content": f"{folder.name} {name} {number}?"},
                          {"role": "assistant", "content": "yes"}]}
            for number in range(count)
        )  # fmt: skip
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = folder / "b.yaml"
    file.write_text(
        "name: batches\ntask: {id: chat, train: train.jsonl, validation: validation.jsonl, "
        f"test: test.jsonl, max_new_tokens: 4}}\n{top}"
        f"contenders:\n  - {{name: asked, id: prompted, provider: openai, model: {base.name}, "
        f"base_url: '{proxy.url}', {more}}}\n"
    )
    return file


class Says(SilentProgress):
    """Progress that remembers what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, line: str) -> None:
        self.said.append(line)


def run(file: Path, says: Says | None = None, **options: Any) -> Any:
    run_dir = options.pop("run_dir", file.parent / "run")
    result = tuneoff.run(tuneoff.load(file), run_dir, progress=says or Says(), **options)
    return result.contenders[0]


def predictions(folder: Path) -> dict[str, Any]:
    """Rows by id, each one there once."""
    text = (folder / "contenders/asked/predictions.jsonl").read_text()
    lines = text.rstrip("\n").split("\n")
    rows = {row["id"]: row for row in map(json.loads, lines)}
    assert len(rows) == len(lines)
    return rows


def texts(rows: dict[str, Any]) -> dict[str, tuple[str, int, int]]:
    return {id: (r["prediction"], r["tokens_in"], r["tokens_out"]) for id, r in rows.items()}


def test_answers_are_those_of_live_requests_at_half_the_price(
    tmp_path: Path, proxy: Proxy, tiny_base: Path
) -> None:
    file = written(tmp_path, proxy, tiny_base, PRICE)
    run(file, run_dir=tmp_path / "live")
    file = written(tmp_path, proxy, tiny_base, f"{PRICE}, batch: true, record: true")
    says = Says()
    assert run(file, says).error is None
    rows = predictions(tmp_path / "run")
    assert texts(rows) == texts(predictions(tmp_path / "live"))
    assert len(rows) == COUNT
    assert proxy.requests["POST /v1/files"] == proxy.requests["POST /v1/batches"] == 1
    live, batch = (Ledger(tmp_path / name / "events.jsonl").spent() for name in ("live", "run"))
    assert (live.uncertain, batch.uncertain) == (0, 0)
    assert batch.known == live.known / 2 > 0
    assert any(f"{COUNT} requests" in line for line in says.said)
    asked = proxy.requests.total()
    assert run(file).error is None  # nothing is left to be asked
    assert proxy.requests.total() == asked
    assert run(file, run_dir=tmp_path / "again", replay=tmp_path / "run").error is None
    assert proxy.requests.total() == asked
    assert predictions(tmp_path / "again") == rows


def test_a_lost_create_makes_one_batch(tmp_path: Path, proxy: Proxy, tiny_base: Path) -> None:
    """The answers of upload and create are cut off after the server carried them out."""
    lost = Counter[str]()

    def change(method: str, path: str, content: bytes) -> bytes | None:
        lost[f"{method} {path}"] += 1
        first = lost[f"{method} {path}"] == 1
        return None if first and path.endswith(("/files", "/batches")) else content

    proxy.change = change
    assert run(written(tmp_path, proxy, tiny_base, "batch: true")).error is None
    assert len(predictions(tmp_path / "run")) == COUNT
    assert proxy.requests["POST /v1/files"] == proxy.requests["POST /v1/batches"] == 1


def test_what_is_missing_or_failed_is_asked_again_a_few_times(
    tmp_path: Path, proxy: Proxy, tiny_base: Path
) -> None:
    """Of the first batch some rows never come and some are a server's failures, of all batches one
    is; results come as base64."""
    asked: list[set[str]] = []

    def change(method: str, path: str, content: bytes) -> bytes:
        if not path.endswith("/content"):
            return content
        rows = [json.loads(line) for line in content.splitlines()]
        asked.append({row["custom_id"] for row in rows})
        kept = []
        for number, row in enumerate(sorted(rows, key=lambda row: str(row["custom_id"]))):
            first = len(asked) == 1
            if number == 0 or (first and number % 4 == 0):
                error = {"message": "the server failed", "code": "server_error"}
                row["response"] = {"status_code": 500, "body": {"error": error}}
            if not (first and number % 4 == 1):
                kept.append(json.dumps(row))
        return base64.encodebytes("\n".join(kept).encode())

    proxy.change = change
    assert run(written(tmp_path, proxy, tiny_base, "batch: true")).error is None
    sizes = [len(ids) for ids in asked]
    assert sizes == [COUNT, COUNT // 2, 1]
    assert asked[0] > asked[1] > asked[2]
    rows = predictions(tmp_path / "run")
    assert len(rows) == COUNT
    (failed,) = (row for row in rows.values() if row["error"])
    assert {failed["id"]} == asked[2]
    assert "the server failed (tried in 3 batches)" in failed["error"]


def test_a_refused_request_is_a_row_with_an_error(
    tmp_path: Path, proxy: Proxy, tiny_base: Path
) -> None:
    file = written(tmp_path, proxy, tiny_base, "batch: true")
    long = {"messages": [{"role": "user", "content": "word " * 3000},
                         {"role": "assistant", "content": "yes"}]}  # fmt: skip
    with (tmp_path / "test.jsonl").open("a") as stream:
        stream.write(json.dumps(long) + "\n")
    assert run(file).error is None
    (refused,) = (row for row in predictions(tmp_path / "run").values() if row["error"])
    assert "positions" in refused["error"]
    assert proxy.requests["POST /v1/batches"] == 1


def test_unknown_states_are_shown_and_waited_on(
    tmp_path: Path, proxy: Proxy, tiny_base: Path
) -> None:
    shown = Counter[str]()

    def change(method: str, path: str, content: bytes) -> bytes:
        if method == "GET" and "/batches/" in path:
            shown["looks"] += 1
            if shown["looks"] < 4:
                resting = {"status": "resting", "completed_at": None}
                return json.dumps(json.loads(content) | resting).encode()
        return content

    proxy.change = change
    says = Says()
    assert run(written(tmp_path, proxy, tiny_base, "batch: true"), says).error is None
    told = [line for line in says.said if "is resting" in line]
    assert told
    assert "not known here; waiting on" in told[0]


def test_a_batch_that_is_refused_as_a_whole_costs_nothing(
    tmp_path: Path, proxy: Proxy, tiny_base: Path
) -> None:
    def change(method: str, path: str, content: bytes) -> bytes:
        if method == "GET" and "/batches/" in path:
            error = {"code": "token_limit_exceeded", "message": "too many tokens are enqueued",
                     "line": None, "param": None}  # fmt: skip
            no = {"status": "failed", "output_file_id": None, "usage": None,
                  "errors": {"object": "list", "data": [error]}}  # fmt: skip
            return json.dumps(json.loads(content) | no).encode()
        return content

    proxy.change = change
    file = written(tmp_path, proxy, tiny_base, f"batch: true, {PRICE}")
    error = run(file).error
    assert error is not None
    assert "too many tokens are enqueued" in error
    spent = Ledger(tmp_path / "run/events.jsonl").spent()
    assert (spent.known, spent.uncertain) == (0, 0)
    proxy.change = lambda method, path, content: content
    assert run(file).error is None
    assert proxy.requests["POST /v1/batches"] == 2
    assert proxy.requests["POST /v1/files"] == 1  # of the same content


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_whoever_stops_the_client_finds_the_batch_again(
    tmp_path: Path, proxy: Proxy, tiny_base: Path, how: signal.Signals
) -> None:
    def resting(method: str, path: str, content: bytes) -> bytes:
        if method == "GET" and "/batches/" in path:
            return json.dumps(json.loads(content) | {"status": "in_progress"}).encode()
        return content

    proxy.change = resting
    file = written(tmp_path, proxy, tiny_base, f"batch: true, {PRICE}")
    command = [sys.executable, "-c", "from tuneoff.cli.main import main; main()", "run", str(file),
               "--run-dir", str(tmp_path / "run")]  # fmt: skip
    with (tmp_path / "log").open("wb") as log:
        client = subprocess.Popen(
            command, stderr=log, stdout=log, env=dict(os.environ),
            # A suite that runs in the background ignores Ctrl-C, and its children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        while not proxy.requests["GET /v1/batches/ID"] and client.poll() is None:
            time.sleep(0.05)
        client.send_signal(how)
        client.wait(60)
    said = (tmp_path / "log").read_text()
    if how is signal.SIGINT:
        assert client.returncode == 130
        assert "goes on at" in said
    before = Ledger(tmp_path / "run/events.jsonl").spent()
    assert (before.known, before.uncertain > 0) == (0, True)
    proxy.change = lambda method, path, content: content
    assert run(file).error is None
    assert len(predictions(tmp_path / "run")) == COUNT
    assert proxy.requests["POST /v1/files"] == proxy.requests["POST /v1/batches"] == 1
    after = Ledger(tmp_path / "run/events.jsonl").spent()
    assert (after.known > 0, after.uncertain) == (True, 0)
    assert after.known <= before.uncertain
    (kept,) = RunDir(tmp_path / "run").contender("asked").batches()
    assert (kept["read"], kept["status"]) == (True, "completed")


def test_the_budget_goes_by_the_prices_of_batches(
    tmp_path: Path, proxy: Proxy, tiny_base: Path
) -> None:
    """Between the most that live requests and a batch can cost, only the batch is let through."""
    with pytest.raises(BudgetError) as refused:
        run(written(tmp_path, proxy, tiny_base, PRICE, "budget_usd: 0.0001\n"))
    most = float(str(refused.value).split("up to $")[1].split(",")[0])
    budget = f"budget_usd: {most * 0.75}\n"
    with pytest.raises(BudgetError):
        run(written(tmp_path, proxy, tiny_base, PRICE, budget), run_dir=tmp_path / "live")
    assert proxy.requests.total() == 0
    file = written(tmp_path, proxy, tiny_base, f"batch: true, {PRICE}", budget)
    assert run(file, run_dir=tmp_path / "batch").error is None


def test_who_has_no_batches_says_so(
    tmp_path: Path, proxy: Proxy, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("together", reason="the SDK of Together is not installed")
    file = written(tmp_path, proxy, tiny_base, "batch: true")
    file.write_text(file.read_text().replace("openai", "together"))
    with pytest.raises(ConfigError, match="together has no batches that are known here"):
        run(file)
    file.write_text(file.read_text().replace("provider: together, model", "base"))
    with pytest.raises(ConfigError, match=r"base_url|batch"):
        tuneoff.load(file)


def test_odd_rows_do_not_keep_the_others_from_being_read(
    tmp_path: Path, proxy: Proxy, tiny_base: Path
) -> None:
    """An answer may hold what some take for the end of a line, and another be no text."""
    strange = "one\u2028two\x85three"

    def change(method: str, path: str, content: bytes) -> bytes:
        if not path.endswith("/content") or proxy.requests["POST /v1/batches"] > 1:
            return content
        lines = [json.loads(line) for line in content.decode().split("\n") if line]
        lines.sort(key=lambda row: str(row["custom_id"]))
        contents: list[Any] = [strange, ["no", "text"]]
        for row, said in zip(lines, contents, strict=False):
            row["response"]["body"]["choices"][0]["message"]["content"] = said
        lines[2]["response"]["body"] = "no object"
        return "\n".join(json.dumps(row, ensure_ascii=False) for row in lines).encode()

    proxy.change = change
    assert run(written(tmp_path, proxy, tiny_base, "batch: true")).error is None
    rows = predictions(tmp_path / "run")
    assert len(rows) == COUNT
    assert strange in [row["prediction"] for row in rows.values()]
    assert proxy.requests["POST /v1/batches"] == 2  # the odd ones are asked again


def test_a_refused_create_gives_the_leave_back(
    tmp_path: Path, proxy: Proxy, tiny_base: Path
) -> None:
    """The uploaded file has expired meanwhile, say: nothing was paid, and the next try goes on."""

    def expired(method: str, path: str, content: bytes) -> bytes | None:
        if method == "POST" and path.endswith("/files"):
            return json.dumps(json.loads(content) | {"id": "file-gone"}).encode()
        return content

    proxy.change = expired
    file = written(tmp_path, proxy, tiny_base, f"batch: true, {PRICE}")
    assert "file-gone" in str(run(file).error)
    spent = Ledger(tmp_path / "run/events.jsonl").spent()
    assert (spent.known, spent.uncertain) == (0, 0)
    proxy.change = lambda method, path, content: content
    assert run(file).error is None
    assert len(predictions(tmp_path / "run")) == COUNT
