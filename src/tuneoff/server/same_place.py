"""Makes what clients write in two ways the same to everybody behind: a path with a slash at its
end, and HEAD for what can be got."""

from __future__ import annotations

from typing import Any


class SamePlace:
    """ASGI middleware, before all others: what they refuse and count is the real path's. It
    redirects nobody, for a redirected request loses its body."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_head = scope["method"] == "HEAD"

        async def headed(message: Any) -> None:
            await send({**message, "body": b""} if "body" in message else message)

        path, raw_path = scope["path"], scope.get("raw_path") or scope["path"].encode()
        if len(path) > 1 and path.endswith("/"):
            path, raw_path = path[:-1], raw_path.removesuffix(b"/")
        same = {
            **scope, "path": path, "raw_path": raw_path,
            "method": "GET" if is_head else scope["method"],
        }  # fmt: skip
        await self._app(same, receive, headed if is_head else send)
