"""What goes wrong with one request of a batch, or for a while, costs no other's answer."""

from __future__ import annotations

import asyncio
import errno
import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from asked_batches import ENDED, ended, line, rows
from running import request, server, upload

pytest.importorskip("openai")
pytest.importorskip("fastapi")
import openai

from tuneoff.inference.loaded_model import ServedModel
from tuneoff.server import batch_worker
from tuneoff.server.app import build_app
from tuneoff.server.errors import ApiError
from tuneoff.server.settings import ServerConfig
from tuneoff.server.store import BATCH, Store


def test_a_base_that_cannot_be_loaded_fails_its_own_requests(
    tiny_base: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_base, broken)
    (broken / "model.safetensors").unlink()
    asked = [line("good", tiny_base.name), line("bad", "broken"), line("fine", tiny_base.name)]
    arguments = ("--base", str(tiny_base), "--base", str(broken))
    with server(tmp_path / "data", *arguments) as (port, _):
        body = json.loads(asked[1])["body"]
        status, told = request(port, "POST", "/v1/chat/completions", body)
        assert (status, told["error"]["code"]) == (500, "model_not_loaded")
        assert str(tmp_path) not in told["error"]["message"]
        url = f"http://127.0.0.1:{port}/v1"
        with openai.OpenAI(base_url=url, api_key="any", max_retries=0) as client:
            file = upload(port, "".join(asked).encode(), BATCH)[1]["id"]
            batch = ended(client, client.batches.create(
                input_file_id=file, endpoint="/v1/chat/completions", completion_window="24h"
            ).id)  # fmt: skip
            assert batch.status == "completed"
            assert set(rows(client, batch.output_file_id)) == {"good", "fine"}
            (error,) = rows(client, batch.error_file_id).items()
    assert (error[0], error[1]["status_code"]) == ("bad", 500)


def test_a_line_that_a_kill_left_half_is_in_no_file(tmp_path: Path) -> None:
    row = {"custom_id": "a", "response": {"status_code": 404, "body": {}}}
    whole = json.dumps(row) + "\n"
    for name in (batch_worker.OUTPUT, batch_worker.ERRORS):
        (tmp_path / name).write_text(whole + whole[:20])
    assert batch_worker._resume_progress(tmp_path).done == {"a"}
    for name in (batch_worker.OUTPUT, batch_worker.ERRORS):
        assert (tmp_path / name).read_text() == whole


def test_a_batch_waits_as_long_as_others_take_all_there_is(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand times, which is as deep as Python calls."""
    monkeypatch.setattr(batch_worker, "BUSY_SECONDS", 0)
    left = 3000

    async def busy(client: Any, body: Any) -> dict[str, Any]:
        nonlocal left
        left -= 1
        if left:
            raise ApiError(429, "Too many requests are waiting; try again later.")
        return {"id": "answered"}

    monkeypatch.setattr(batch_worker.chat, "chat", busy)
    app: Any = None
    row = asyncio.run(batch_worker._answer_request(app, json.loads(line("a", tiny_base.name))))
    assert row["response"]["status_code"] == 200
    assert row["response"]["body"] == {"id": "answered"}


@pytest.mark.parametrize(
    ("place", "name", "error"),
    [
        (Store, "oldest_batch", sqlite3.OperationalError("database or disk is full")),
        (batch_worker, "append_lines", OSError(errno.ENOSPC, "No space left on device")),
    ],
)
def test_batches_are_answered_again_when_the_disk_was_full(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    place: Any, name: str, error: Exception,
) -> None:  # fmt: skip
    true, failures = getattr(place, name), 3

    def full(*given: Any) -> Any:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise error
        return true(*given)

    monkeypatch.setattr(place, name, full)
    monkeypatch.setattr(batch_worker, "RETRY_SECONDS", 0.01)
    served = (ServedModel("random", str(tiny_base)),)
    app = build_app(ServerConfig(tmp_path / "data", {}, run_models=served))
    store: Store = app.state.store
    store.file_path("file-a").parent.mkdir()
    store.file_path("file-a").write_text(line("a", "random"))
    store.add_file("file-a", "a.jsonl", BATCH, 1, None)
    facts = {"input_file_id": "file-a", "metadata": None, "expires_at": 2**40}
    with store.transaction() as connection:
        connection.execute(
            "INSERT INTO batches (id, created_at, status, facts) VALUES ('b', 0, 'validating', ?)",
            (json.dumps(facts),),
        )

    async def story() -> dict[str, Any]:
        async with app.router.lifespan_context(app):
            while True:
                row = store.row("batches", "b")
                assert row is not None
                if row["status"] in ENDED:
                    return row
                await asyncio.sleep(0.05)

    row = asyncio.run(asyncio.wait_for(story(), 60))
    assert (row["status"], json.loads(row["facts"])["counts"]["completed"]) == ("completed", 1)
    assert failures < 0
