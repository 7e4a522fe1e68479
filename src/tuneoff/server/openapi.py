"""The API's OpenAPI document, `/openapi.json`, from which users generate clients."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from tuneoff.server import schemas as shapes
from tuneoff.server.middleware import OPEN_PATHS
from tuneoff.server.settings import ServerConfig

# Errors of every route (see `server/middleware.py`); 400 replaces FastAPI's 422.
COMMON_ERRORS = shapes.describe_errors(400, 401, 403, 413, 429, 431)
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
                schemas[name]["properties"]["model"]["examples"] = settings.ready()
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            if keyed:
                document["components"]["securitySchemes"] = {"key": _KEY}
        return app.openapi_schema or {}

    app.openapi = described  # type: ignore[method-assign]
