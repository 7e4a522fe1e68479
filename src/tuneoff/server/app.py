"""The application: routes, error handlers, middleware, training workers and batch answering.

`serve` starts it from the arguments of the command line. `install_openapi` corrects its document,
`/openapi.json`, from which users generate clients.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from tuneoff.errors import ConfigError
from tuneoff.inference import backend
from tuneoff.inference.backend import InferenceBackend
from tuneoff.inference.transformers_backend import TransformersBackend
from tuneoff.server import batch_worker, cleanup, errors, metrics, page, schemas
from tuneoff.server.middleware import OPEN_PATHS, RequestGuard, RequestNormalizer
from tuneoff.server.routes import batches, chat, files, jobs, models
from tuneoff.server.run_models import start_run_backend
from tuneoff.server.settings import KEYS_VARIABLE, ServerConfig, build_server_config
from tuneoff.server.store import JobLocks, Store
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
        responses=COMMON_ERRORS,
        generate_unique_id_function=build_operation_id,
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

    install_openapi(app, settings)
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


def serve(
    run_dir: Path | None,
    contender: str | None,
    bases: Sequence[str],
    *,
    strict: bool,
    answers_with: backend.BackendName,
    address: str,
    port: int,
    data_dir: Path,
    workers: int | None,
    say: Callable[[str], None],
) -> None:
    """Serve a run's tuned contenders, or one of them, and bases that may be tuned.

    It runs until it is interrupted.

    Raises:
        ConfigError, MissingExtraError: as `start_run_backend`, `build_server_config` and
            `start_backend` do.
    """
    check_address(address, port)  # before anything is loaded
    start = partial(backend.start_backend, answers_with, tuple(bases))
    opened = (
        start_run_backend(run_dir, contender, strict, say, start) if run_dir is not None else None
    )
    served = opened[1] if opened else ()
    keys = os.environ.get(KEYS_VARIABLE)
    settings = build_server_config(data_dir, tuple(bases), address, keys, served, workers)
    host = opened[0] if opened else backend.start_backend(answers_with, tuple(settings.bases), ())
    names = ", ".join([*settings.bases, *(model.name for model in served)])
    say(
        f"serving {names} on http://{address}:{port}/v1, with a page at http://{address}:{port}/ "
        f"({'a key is needed' if settings.api_keys else 'no key, this machine only'})"
    )
    run_app(settings, address, port, host)


# Errors of every route (see `server/middleware.py`); 400 replaces FastAPI's 422.
COMMON_ERRORS = schemas.describe_errors(400, 401, 403, 413, 429, 431)
# All errors of an operation are JSON, whatever its other responses are.
_ERROR = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}}
_KEY = {"type": "http", "scheme": "bearer", "description": "One of TUNEOFF_API_KEYS."}


def build_operation_id(route: APIRoute) -> str:
    """Return an operation's id, such as `files_create`: the method name in a generated client."""
    return f"{route.endpoint.__module__.rpartition('.')[2]}_{route.name}"


def install_openapi(app: FastAPI, settings: ServerConfig) -> None:
    """Correct the app's document: its errors, keys and model names."""
    build_document, keyed = app.openapi, bool(settings.api_keys)

    def described() -> dict[str, Any]:
        """Build the document once and return it."""
        if app.openapi_schema is None:
            document = build_document()
            for path, operations in document["paths"].items():
                for operation in operations.values():
                    operation["responses"].pop("422", None)
                    for code in (code for code in operation["responses"] if code >= "4"):
                        operation["responses"][code]["content"] = _ERROR
                    if keyed and path not in OPEN_PATHS:
                        operation["security"] = [{"key": []}]
            schemas = document["components"]["schemas"]
            schemas["JobCreate"]["properties"]["model"]["enum"] = list(settings.bases)
            for name in ("ChatCreate", "TextCreate"):
                schemas[name]["properties"]["model"]["examples"] = settings.list_models()
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            if keyed:
                document["components"]["securitySchemes"] = {"key": _KEY}
        return app.openapi_schema or {}

    app.openapi = described  # type: ignore[method-assign]
