"""The application: routes, error handlers, middleware, training workers and batch answering."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from tuneoff.errors import ConfigError
from tuneoff.server import (
    batch_run,
    batches,
    chat,
    errors,
    files,
    jobs,
    leftovers,
    metrics,
    models,
    openapi,
    page,
    shapes,
)
from tuneoff.server.backend import Answerer
from tuneoff.server.claims import Claims
from tuneoff.server.guard import Guard
from tuneoff.server.host import Host
from tuneoff.server.same_place import SamePlace
from tuneoff.server.settings import ServerSettings
from tuneoff.server.store import Store
from tuneoff.server.workers import Workers

GRACE_SECONDS = 10


def build(settings: ServerSettings, host: Answerer | None = None) -> FastAPI:
    """Build the application; its workers run as long as it does.

    Args:
        host: the inference backend, if it was started already.
    """

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        """Start the backend, the workers and the batch task, and stop them at the end."""
        app.state.host = host or Host()
        app.state.claims = Claims(settings.data_dir)
        await run_in_threadpool(leftovers.clear_files, app.state.store)
        workers = Workers(settings) if settings.bases else None
        answering = asyncio.create_task(batch_run.answer_batches(app))
        yield
        answering.cancel()
        with suppress(asyncio.CancelledError):
            await answering
        if workers is not None:
            workers.close()
        app.state.host.close()
        app.state.claims.close()

    app = FastAPI(
        title="tuneoff",
        version=version("tuneoff"),
        lifespan=running,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses=openapi.EVERYWHERE,
        generate_unique_id_function=openapi.operation_id,
    )
    app.state.settings = settings
    app.state.store = Store(settings.data_dir)
    app.state.long_prompts = asyncio.Lock()
    errors.install(app)
    app.state.metrics = metrics.Metrics()
    app.add_middleware(Guard, settings=settings)
    app.add_middleware(metrics.Measured, metrics=app.state.metrics)
    app.add_middleware(SamePlace)
    for module in (files, jobs, batches, models, chat, metrics, page):
        app.include_router(module.router)

    @app.get("/health")
    async def health() -> shapes.Health:
        return {"status": "ok"}

    openapi.install(app, settings)
    return app


def refuse_taken(address: str, port: int) -> None:
    """Raise ConfigError for an address that cannot be listened on."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            raise ConfigError(
                f"{address}:{port} cannot be listened on ({error.strerror}); give another --port."
            ) from None


def serve(settings: ServerSettings, address: str, port: int, host: Answerer | None = None) -> None:
    """Run the server until it is interrupted."""
    import uvicorn

    from tuneoff.server.connection import Connection, connections_that_fit

    options: dict[str, Any] = {
        "http": Connection, "ws": "none", "server_header": False, "log_level": "error",
        # Forwarded client addresses decide nothing here, so they need no check.
        "proxy_headers": False,
        # A client that does not read its answer must not keep the server from ending.
        "timeout_graceful_shutdown": GRACE_SECONDS,
    }  # fmt: skip
    Connection.most = connections_that_fit()
    uvicorn.run(build(settings, host), host=address, port=port, **options)
