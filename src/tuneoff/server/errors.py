"""Errors in the format that clients of the hosted APIs expect.

Every error body is `{"error": {"message", "type", "param", "code"}}`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import compile_path

INVALID = "invalid_request_error"
_CODES = {404: "not_found", 405: "method_not_allowed", 413: "request_too_large"}


_FIELD = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class ApiError(HTTPException):
    """A response that is not 2xx. (It subclasses HTTPException because FastAPI passes no other
    exception on while it reads a body.)"""

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        type: str = INVALID,
    ) -> None:
        super().__init__(status, message)
        self.status = status
        self.body = {"message": message, "type": type, "param": param, "code": code}


def build_not_found(what: str, id: str, param: str | None = None) -> ApiError:
    """Return the error for an unknown id; long ids are cut."""
    return ApiError(
        404, f"No such {what}: {id[:100]!r}", param, f"{what.replace(' ', '_')}_not_found"
    )


def build_server_error(error: Exception) -> ApiError:
    """Return the error for an unexpected exception."""
    text = f"The server failed ({type(error).__name__}); its log says more."
    return ApiError(500, text, None, "server_error", "server_error")


def _find_allowed_methods(request: Request) -> str:
    """Return the HTTP methods of a path, from all routes that match it."""
    operations = request.app.openapi()["paths"]
    allowed_methods = {
        method.upper()
        for path, methods in operations.items()
        for method in methods
        if compile_path(path)[0].match(request.scope["path"])
    }
    return ", ".join(sorted(allowed_methods | ({"HEAD"} if "GET" in allowed_methods else set())))


def build_invalid_value(errors: Sequence[Any], where: int) -> ApiError:
    """Return the error for a body that Pydantic refuses.

    Args:
        errors: Pydantic's errors.
        where: how many parts of an error's location name a parameter.
    """
    # Take the errors of one parameter. Of a union's alternatives take the one that read the value
    # furthest, and of these the last one that accepts such a type.
    place = [str(part) for part in errors[0]["loc"][:where]]
    same_parameter = [
        error for error in errors if [str(part) for part in error["loc"][:where]] == place
    ]
    furthest = _find_parameter(
        max(same_parameter, key=lambda error: len(_find_parameter(error["loc"])))["loc"]
    )
    candidates = [error for error in same_parameter if _find_parameter(error["loc"]) == furthest]
    error = next(
        (candidate for candidate in reversed(candidates) if not _is_type_error(candidate["type"])),
        candidates[-1],
    )
    param = ".".join(furthest) or None
    return ApiError(400, _explain_error(error, param), param, "invalid_value")


def _find_parameter(place: Sequence[Any]) -> list[str]:
    """Return the parts of a location that a client knows: names and numbers.

    Pydantic's names for the alternatives of a union are left out.
    """
    return [
        str(part)
        for part in place
        if part not in ("body", "query", "path")
        and _FIELD.fullmatch(str(part))
        and "constrained-" not in str(part)
    ]


def _is_type_error(type: str) -> bool:
    """Say whether an error means that the value has the wrong type."""
    return type.endswith("_type") or type == "literal_error"


def _explain_error(error: Any, param: str | None) -> str:
    """Return one sentence that names a parameter and says what is wrong with it."""
    kind, value = error["type"], error.get("input")
    if kind == "missing":
        return f"Missing required parameter: {param}."
    if kind == "extra_forbidden":
        allowed = _ALLOWED_FIELDS.get(str(error["loc"][-2:][0]))
        return f"Unknown parameter: {param}" + (f" (allowed: {allowed})." if allowed else ".")
    if kind == "value_error":
        return f"Invalid value for {param}: {error['ctx']['error']}."
    if kind == "none_required":
        return f"Invalid value for {param}: it is not supported here; leave it out."
    if kind == "literal_error":
        expected = f"allowed: {error['ctx']['expected']}"
        return f"Invalid value for {param}: {_shorten_json(value)} is not supported ({expected})."
    problem = str(error["msg"])
    if _is_type_error(kind) and (param or "").rpartition(".")[2] in _EXPECTED_TEXTS:
        problem = f"Input should be {_EXPECTED_TEXTS[str(param).rpartition('.')[2]]}"
    got = f" (got {_shorten_json(value)})" if isinstance(value, _SHOWN_TYPES) else ""
    return f"Invalid value for {param}: {problem}{got}."


# An unknown parameter here often belongs to another API, so list the allowed ones.
_ALLOWED_FIELDS = {"hyperparameters": "n_epochs, batch_size, learning_rate_multiplier"}
# Pydantic's messages about each alternative do not help here.
_EXPECTED_TEXTS = {"content": "a text or a list of text parts", "prompt": "a text"}
_SHOWN_TYPES = (str, int, float, type(None))


def _shorten_json(value: Any) -> str:
    """Return a value as JSON, cut short."""
    try:
        text = json.dumps(value)
    except ValueError:
        text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def install_error_handlers(app: FastAPI) -> None:
    """Register handlers that give every error this format."""

    async def api_error(_: Request, error: Any) -> JSONResponse:
        return JSONResponse({"error": error.body}, error.status)

    async def http_error(request: Request, error: Any) -> JSONResponse:
        code, message = _CODES.get(error.status_code), str(error.detail)
        if error.status_code in (404, 405):  # unknown routes; our own errors say more
            message = f"{message}: {request.method} {request.url.path[:100]}"
        response_error = ApiError(error.status_code, message, None, code)
        headers = dict(error.headers or {})
        if error.status_code == 405:
            headers["Allow"] = _find_allowed_methods(request) or headers.get("Allow", "")
        return JSONResponse({"error": response_error.body}, response_error.status, headers)

    async def gone(_: Request, error: Any) -> JSONResponse:
        return await api_error(_, ApiError(400, "The body ended early."))  # the client is gone

    async def invalid(_: Request, error: Any) -> JSONResponse:
        return await api_error(_, build_invalid_value(error.errors(), 2))

    async def unexpected(_: Request, error: Any) -> JSONResponse:
        return await api_error(_, build_server_error(error))

    app.add_exception_handler(Exception, unexpected)
    app.add_exception_handler(ApiError, api_error)
    app.add_exception_handler(ClientDisconnect, gone)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(RequestValidationError, invalid)
