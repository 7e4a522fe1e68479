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
from tuneoff.inference.backend import InferenceBackend
from tuneoff.inference.transformers_backend import TransformersBackend
from tuneoff.server import batch_worker, cleanup, errors, metrics, openapi, page, schemas
from tuneoff.server.claims import JobLocks
from tuneoff.server.middleware import RequestGuard
from tuneoff.server.routes import batches, chat, files, jobs, models
from tuneoff.server.same_place import RequestNormalizer
from tuneoff.server.settings import ServerConfig
from tuneoff.server.store import Store
from tuneoff.server.supervisor import WorkerSupervisor

GRACE_SECONDS = 10


def build_app(settings: ServerConfig, host: InferenceBackend | None = None) -> FastAPI:
    """Build the application; its workers run as long as it does.

    Args:
        host: the inference backend, if it was started already.
    """

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        """Start the backend, the workers and the batch task, and stop them at the end."""
        app.state.host = host or TransformersBackend()
        app.state.claims = JobLocks(settings.data_dir)
        await run_in_threadpool(cleanup.clean_files, app.state.store)
        workers = WorkerSupervisor(settings) if settings.bases else None
        answering = asyncio.create_task(batch_worker.answer_batches(app))
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
        responses=openapi.COMMON_ERRORS,
        generate_unique_id_function=openapi.build_operation_id,
    )
    app.state.settings = settings
    app.state.store = Store(settings.data_dir)
    app.state.long_prompts = asyncio.Lock()
    errors.install_error_handlers(app)
    app.state.metrics = metrics.Metrics()
    app.add_middleware(RequestGuard, settings=settings)
    app.add_middleware(metrics.MetricsMiddleware, metrics=app.state.metrics)
    app.add_middleware(RequestNormalizer)
    for module in (files, jobs, batches, models, chat, metrics, page):
        app.include_router(module.router)

    @app.get("/health")
    async def health() -> schemas.Health:
        return {"status": "ok"}

    openapi.install_openapi(app, settings)
    return app


def check_address(address: str, port: int) -> None:
    """Raise ConfigError for an address that cannot be listened on."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            raise ConfigError(
                f"{address}:{port} cannot be listened on ({error.strerror}); give another --port."
            ) from None


def run_app(
    settings: ServerConfig, address: str, port: int, host: InferenceBackend | None = None
) -> None:
    """Run the server until it is interrupted."""
    import uvicorn

    from tuneoff.server.connection_limits import DeadlineConnection, compute_max_connections

    options: dict[str, Any] = {
        "http": DeadlineConnection, "ws": "none", "server_header": False, "log_level": "error",
        # Forwarded client addresses decide nothing here, so they need no check.
        "proxy_headers": False,
        # A client that does not read its answer must not keep the server from ending.
        "timeout_graceful_shutdown": GRACE_SECONDS,
    }  # fmt: skip
    DeadlineConnection.most = compute_max_connections()
    uvicorn.run(build_app(settings, host), host=address, port=port, **options)
