"""Checks that every request must pass first: key, origin, size and number of requests.

Before them a request is normalized: a slash at the end of a path is removed, and HEAD is answered
like GET.
"""

from __future__ import annotations

import hmac
from typing import Any
from urllib.parse import urlsplit

from fastapi.responses import JSONResponse

from tuneoff.server.errors import ApiError
from tuneoff.server.settings import LOOPBACK_HOSTS, ServerConfig

OPEN_PATHS = ("/health",)
MAX_HEAD_BYTES = 16 * 1024
UPLOADS = "/v1/files"
# The page's shell, which asks for the key, and its assets; they reveal nothing.
SHELL, ASSETS = "/", "/page/assets/"


class RequestGuard:
    """ASGI middleware that rejects requests before any route sees them.

    It counts a body while it streams in, so a false Content-Length does not help. It checks the
    origin, so a page of another site cannot use a server without keys.
    """

    def __init__(self, app: Any, settings: ServerConfig) -> None:
        self._app, self._settings = app, settings
        self._under_way = 0
        self._held = 0  # bytes of bodies in memory

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1")
                   for name, value in scope["headers"]}  # fmt: skip
        error = self._refused(scope["path"], headers)
        most = self._max_bytes(scope["path"])
        error = error or _find_malformed(scope, headers)
        if error is None and _parse_length(headers) > most:
            error = _build_too_large(most)
        if error is None and self._under_way >= self._settings.max_requests:
            error = _build_too_many("requests")
        if error is not None:
            response = JSONResponse({"error": error.body}, error.status, error.headers)
            await response(scope, receive, send)
            return
        seen, held = 0, 0

        async def counted() -> Any:
            """Receive a message and enforce the limits on bytes."""
            nonlocal seen, held
            message = await receive()
            size = len(message.get("body", b""))
            seen += size
            if seen > most:
                raise _build_too_large(most)
            if scope["path"] != UPLOADS:  # uploads go to disk as they arrive
                held += size
                self._held += size
                if self._held > self._settings.max_held_bytes:
                    raise _build_too_many("large requests")
            return message

        self._under_way += 1
        try:
            await self._app(scope, counted, send)
        finally:
            self._under_way -= 1
            self._held -= held

    def _max_bytes(self, path: str) -> int:
        """Return the body limit of a path in bytes."""
        # A multipart body is a little larger than its file.
        upload = self._settings.max_file_bytes + 1024**2
        return upload if path == UPLOADS else self._settings.max_body_bytes

    def _refused(self, path: str, headers: dict[str, str]) -> ApiError | None:
        """Return the error for a missing key or a foreign origin; None if access is allowed."""
        if path in OPEN_PATHS:
            return None
        if self._settings.api_keys:
            if path == SHELL or path.startswith(ASSETS):
                return None
            scheme, _, key = headers.get("authorization", "").partition(" ")
            matches = [
                hmac.compare_digest(key.strip().encode(), api_key.encode())
                for api_key in self._settings.api_keys
            ]
            if scheme.lower() != "bearer" or not any(matches):
                error = ApiError(401, "Incorrect API key provided.", None, "invalid_api_key")
                error.headers = {"WWW-Authenticate": "Bearer"}
                return error
            return None
        host, origin = headers.get("host", ""), headers.get("origin")
        if _parse_host(host) not in LOOPBACK_HOSTS or (origin and _parse_origin(origin) != host):
            return ApiError(
                403, "A server without keys answers this machine only.", None, "forbidden"
            )
        return None


def _find_malformed(scope: Any, headers: dict[str, str]) -> ApiError | None:
    """Return the error for a request that HTTP allows but that only an attacker sends."""
    if "transfer-encoding" in headers and "content-length" in headers:
        # A proxy may use the other length, and see a second request in the rest (request
        # smuggling).
        error = ApiError(400, "A body has a length or comes in chunks, not both.")
        error.headers = {"Connection": "close"}
        return error
    size = len(scope["raw_path"]) + len(scope["query_string"])
    if size + sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEAD_BYTES:
        return ApiError(431, f"Address and headers are larger than {MAX_HEAD_BYTES} bytes.")
    return None


def _parse_host(host: str) -> str:
    """Return a host without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _parse_origin(origin: str) -> str:
    """Return the host and port of an origin."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def _parse_length(headers: dict[str, str]) -> int:
    """Return the announced length of a body in bytes; 0 if there is none."""
    length = headers.get("content-length", "0")
    return int(length) if length.isdecimal() else 0


def _build_too_large(most: int) -> ApiError:
    """Return the error for a body over its limit."""
    return ApiError(413, f"The body is larger than {most} bytes.", None, "request_too_large")


def _build_too_many(what: str) -> ApiError:
    """Return the error for too many requests at a time."""
    return ApiError(
        429, f"Too many {what} at a time; try again later.", None, "rate_limit_exceeded", "requests"
    )


class RequestNormalizer:
    """ASGI middleware, outside all others, so that they check and count the normalized path.

    It sends no redirects, because a redirected request loses its body.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_head = scope["method"] == "HEAD"

        async def headed(message: Any) -> None:
            """Send a message without its body."""
            await send({**message, "body": b""} if "body" in message else message)

        path, raw_path = scope["path"], scope.get("raw_path") or scope["path"].encode()
        if len(path) > 1 and path.endswith("/"):
            path, raw_path = path[:-1], raw_path.removesuffix(b"/")
        normalized = {
            **scope, "path": path, "raw_path": raw_path,
            "method": "GET" if is_head else scope["method"],
        }  # fmt: skip
        await self._app(normalized, receive, headed if is_head else send)
