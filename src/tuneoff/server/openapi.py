"""The document that describes the API, `/openapi.json`: what people generate clients from."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from tuneoff.server import shapes
from tuneoff.server.guard import OPEN_PATHS
from tuneoff.server.settings import ServerSettings

# What every request may be told: see guard.py; 400 is what FastAPI would answer as 422.
EVERYWHERE = shapes.errors(400, 401, 403, 413, 429, 431)
# Whatever else an operation answers with, its errors are JSON.
_ERROR = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}}
_KEY = {"type": "http", "scheme": "bearer", "description": "One of TUNEOFF_API_KEYS."}


def operation_id(route: APIRoute) -> str:
    """`files_create`: a name for the method of a generated client."""
    return f"{route.endpoint.__module__.rpartition('.')[2]}_{route.name}"


def install(app: FastAPI, settings: ServerSettings) -> None:
    """Makes an app's document say how errors, keys and models really are here."""
    made, keyed = app.openapi, bool(settings.api_keys)

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = made()
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
