"""The application: routes, errors, guard, and the process that trains."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI

from tuneoff.errors import ConfigError
from tuneoff.server import chat, errors, files, jobs, metrics, models, openapi, page, shapes
from tuneoff.server.backend import Answerer
from tuneoff.server.guard import Guard
from tuneoff.server.host import Host
from tuneoff.server.settings import ServerSettings
from tuneoff.server.store import Store

# A worker that ends at once is not started again at once.
RESTART_SECONDS = 1.0
GRACE_SECONDS = 10


def build(settings: ServerSettings, host: Answerer | None = None) -> FastAPI:
    """The app of some settings; its worker runs while it does.

    Args:
        host: what answers, where it was started already.
    """

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        app.state.host = host or Host()
        worker = Worker(settings) if settings.bases else None
        yield
        if worker is not None:
            worker.close()
        app.state.host.close()

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
    errors.install(app)
    app.state.metrics = metrics.Metrics()
    app.add_middleware(Guard, settings=settings)
    app.add_middleware(metrics.Measured, metrics=app.state.metrics)
    for module in (files, jobs, models, chat, metrics, page):
        app.include_router(module.router)

    @app.get("/health")
    async def health() -> shapes.Health:
        return {"status": "ok"}

    openapi.install(app, settings)
    return app


class Worker:
    """Keeps one training process running."""

    def __init__(self, settings: ServerSettings) -> None:
        self._command = [
            sys.executable, "-m", "tuneoff.server.worker", str(settings.data_dir),
            json.dumps(settings.bases), settings.organization, str(os.getpid()),
        ]  # fmt: skip
        self._closed = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._watch, name="worker-watch", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._closed.is_set():
            # Ctrl-C reaches the server alone, which then ends its worker in good order.
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, start_new_session=True
            )
            while self._process.poll() is None and not self._closed.wait(0.1):
                pass
            if self._closed.is_set():
                self._process.terminate()
                self._process.wait()
                return
            self._closed.wait(RESTART_SECONDS)

    def close(self) -> None:
        """Ends it; a job that it was at goes on when a server is started again."""
        self._closed.set()
        self._thread.join()


def serve(settings: ServerSettings, address: str, port: int, host: Answerer | None = None) -> None:
    """Runs until it is interrupted."""
    import uvicorn

    from tuneoff.server.connection import Connection, connections_that_fit

    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            raise ConfigError(
                f"{address}:{port} cannot be listened on ({error.strerror}); give another --port."
            ) from None
    options: dict[str, Any] = {
        "http": Connection, "ws": "none", "server_header": False, "log_level": "error",
        # What a proxy says of a client decides nothing here, so anybody may say it.
        "proxy_headers": False,
        # Somebody who does not read an answer shall not keep the server from ending.
        "timeout_graceful_shutdown": GRACE_SECONDS,
    }  # fmt: skip
    Connection.most = connections_that_fit()
    uvicorn.run(build(settings, host), host=address, port=port, **options)
