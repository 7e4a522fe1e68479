"""Parses JSON request bodies.

A body that is not JSON is refused in one sentence before any model is built from it. Long bodies
are parsed one at a time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from email.message import Message
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from tuneoff.server.errors import ApiError
from tuneoff.server.prompt_limits import LONG_PROMPT, get_turn, run_while_connected

# Limits, because each wrong object, list or name of a body costs time and memory.
MAX_CONTAINERS, MAX_NAMES = 50_000, 1_000
_TYPE_NAMES = {list: "a list", str: "a text", type(None): "null", bool: "true or false"}


class JsonRoute(APIRoute):
    """A route whose body, if it has one, is JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the function that answers a request."""
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle

        async def read(request: Request) -> Response:
            """Check the body's type, wait for a turn if it is long, then answer the request."""
            request = _JsonRequest(request.scope, request.receive)
            body = await request.body()
            _refuse_other_types(request.headers.get("content-type", ""), body)
            if len(body) <= LONG_PROMPT:
                return await handle(request)
            turn = get_turn(request)
            try:
                await run_while_connected(request, turn.begin())
                return await handle(request)
            finally:
                turn.end()

        return read


class _JsonRequest(Request):
    """A request whose `json` raises errors that name the problem."""

    async def json(self) -> Any:
        """Return the parsed body."""
        if not hasattr(self, "_json"):
            self._json = parse_json_object(await self.body())
        return self._json


def parse_json_object(body: bytes) -> dict[str, Any]:
    """Return the object that a body holds.

    Raises:
        ApiError: it is not a JSON object, or has too many parts.
    """
    try:
        value = json.loads(body)
    except RecursionError:
        raise _build_invalid_json("it is nested too deeply") from None
    except UnicodeDecodeError:
        raise _build_invalid_json("it is not encoded as UTF-8") from None
    except ValueError as error:
        raise _build_invalid_json(str(error)) from None
    if not isinstance(value, dict):
        raise _build_invalid_json(
            f"it must be an object, and is {_TYPE_NAMES.get(type(value), 'a number')}"
        )
    _refuse_too_many(value)
    return value


def _refuse_other_types(content_type: str, body: bytes) -> None:
    """Refuse an empty body, or one whose Content-Type is not JSON."""
    if not body:
        raise _build_invalid_json("it is empty")
    header = Message()
    header["content-type"] = content_type
    subtype = header.get_content_subtype()
    is_json = subtype == "json" or subtype.endswith("+json")
    if not content_type or header.get_content_maintype() != "application" or not is_json:
        came = f"the request has {content_type[:100]!r}" if content_type else "the request has none"
        raise ApiError(
            400, f"The body must be JSON, with the header Content-Type: application/json; {came}.",
            "Content-Type", "unsupported_content_type",
        )  # fmt: skip


def _refuse_too_many(value: dict[str, Any]) -> None:
    """Refuse an object with too many names, objects or lists."""
    stack, count = list[Any]([value]), 0
    while stack:
        part = stack.pop()
        count += 1
        if isinstance(part, dict):
            if len(part) > MAX_NAMES:
                raise _build_invalid_json(f"an object in it has more than {MAX_NAMES:,} names")
            part = part.values()
        stack += [child for child in part if isinstance(child, dict | list)]
        if count + len(stack) > MAX_CONTAINERS:
            raise _build_invalid_json(f"it holds more than {MAX_CONTAINERS:,} objects and lists")


def _build_invalid_json(why: str) -> ApiError:
    """Return the error for a body that cannot be read as JSON."""
    return ApiError(400, f"The body cannot be read as JSON: {why}.", None, "invalid_json")
