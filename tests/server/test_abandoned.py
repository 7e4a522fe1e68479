"""Clients that go away before anything came, and many that wait for a base: the engine does not
work for nobody, and everything else is answered meanwhile. Requests go through the application
itself, so that it is sure when a client goes."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
from tuneoff.inference.loaded_model import LoadedModel, ServedModel
from tuneoff.inference.requests import GenerationRequest
from tuneoff.inference.transformers_backend import TransformersBackend
from tuneoff.server.app import build_app
from tuneoff.server.settings import ServerConfig

MANY, PATIENCE_SECONDS = 60, 60
Message = dict[str, Any]


class Noting(TransformersBackend):
    """A host that remembers what it was asked, and may be slow to load."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[GenerationRequest] = []
        self.may_load = threading.Event()
        self.may_load.set()
        self.waiting = 0

    def base(self, served: ServedModel) -> LoadedModel:
        self.waiting += 1
        assert self.may_load.wait(PATIENCE_SECONDS)
        return super().base(served)

    def submit(self, served: ServedModel, request: GenerationRequest) -> None:
        self.asked.append(request)
        super().submit(served, request)


@asynccontextmanager
async def running(tiny_base: Path, folder: Path) -> AsyncIterator[tuple[Any, Noting]]:
    host = Noting()
    served = (ServedModel("random", str(tiny_base)),)
    app = build_app(ServerConfig(folder / "data", {}, run_models=served), host)
    async with app.router.lifespan_context(app):
        yield app, host


async def asked(
    app: Any,
    method: str,
    path: str,
    body: Any = None,
    gone: Callable[[], Awaitable[Any]] | None = None,
) -> list[Message]:
    """What comes back; the client goes away when `gone` returns."""
    told: list[Message] = []
    sent = json.dumps(body).encode() if body is not None else b""
    left = [{"type": "http.request", "body": sent, "more_body": False}]

    async def receive() -> Message:
        if left:
            return left.pop()
        await (gone() if gone is not None else asyncio.Event().wait())
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        told.append(message)

    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1",
        "method": method, "scheme": "http", "path": path, "raw_path": path.encode(),
        "query_string": b"", "headers": headers, "client": ("127.0.0.1", 1), "server": None,
        "root_path": "",
    }  # fmt: skip
    await app(scope, receive, send)
    return told


def body(**more: Any) -> dict[str, Any]:
    return {"model": "random", "messages": [{"role": "user", "content": "a"}], **more}


@pytest.mark.parametrize("stream", [True, False])
def test_nobody_is_answered_who_went_before_anything_came(
    tiny_base: Path, tmp_path: Path, stream: bool
) -> None:
    async def at_once() -> None:
        return None

    async def story() -> None:
        async with running(tiny_base, tmp_path) as (app, host):

            async def when_asked() -> None:
                while not host.asked:
                    await asyncio.sleep(0.01)

            path, chat = "/v1/chat/completions", body(stream=stream, n=4, max_tokens=900)
            await asked(app, "POST", path, chat, at_once)
            assert not host.asked
            await asked(app, "POST", path, chat, when_asked)
            assert len(host.asked) == 4
            assert all(request.cancelled.is_set() for request in host.asked)

    asyncio.run(story())


def test_many_may_wait_for_a_base_and_others_are_answered(tiny_base: Path, tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tiny_base, tmp_path) as (app, host):
            host.may_load.clear()
            path = "/v1/chat/completions"
            waiting = [
                asyncio.create_task(asked(app, "POST", path, body(max_tokens=1)))
                for _ in range(MANY)
            ]
            while host.waiting < MANY:
                await asyncio.sleep(0.01)
            told = await asked(app, "GET", "/v1/models")
            assert told[0]["status"] == 200
            host.may_load.set()
            answers = await asyncio.gather(*waiting)
            assert {answer[0]["status"] for answer in answers} == {200}

    asyncio.run(asyncio.wait_for(story(), PATIENCE_SECONDS))
