"""Normalizes requests: removes a slash at the end of a path, and answers HEAD like GET."""

from __future__ import annotations

from typing import Any


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
