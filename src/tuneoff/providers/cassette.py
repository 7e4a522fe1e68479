"""A cassette: every exchange with a provider, recorded and replayed.

`record: true` writes every exchange to `exchanges.jsonl`, complete except for the key. The key is
in no recorded header and is redacted in every body. A model that was switched off can then still be
evaluated: a replay gives the SDK the recorded bytes, and nothing leaves the machine.

In a replay, a question gets the answers that the same question got, in their order. Samples of
repeated answers are kept apart, because many are under way at once. Everything else (a job's state,
a listing) gets the last recorded answer, so nobody waits for a job that ended long ago. Failed
attempts that were retried are left out.
"""

from __future__ import annotations

import base64
import contextlib
import json
import threading
import time
import urllib.request
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from tuneoff.errors import ConfigError
from tuneoff.providers.http_errors import redact
from tuneoff.storage.files import append_lines, read_lines

CHAT_PATH = "/chat/completions"
# How long a recorded answer took, in a header of our own: a replay must not look fast.
SECONDS_HEADER = "tuneoff-seconds"
RECORDED_HEADERS = (
    "content-type", "date", "retry-after", "retry-after-ms", "x-request-id", "openai-version",
    "openai-model", "openai-processing-ms",
)  # fmt: skip


# The sample that is asked for. A request does not name it, and no provider should be told.
_SAMPLE: ContextVar[int] = ContextVar("sample", default=0)


@contextlib.contextmanager
def mark_sample(sample: int) -> Iterator[None]:
    """Record, or replay, the requests of this thread as this sample while inside."""
    token = _SAMPLE.set(sample)
    try:
        yield
    finally:
        _SAMPLE.reset(token)


class Cassette(Protocol):
    """A cassette between an SDK and the network."""

    def transport(self, library: Any, key: str) -> Any:
        """Return a transport for the HTTP library of an SDK (httpx, httpx2)."""
        ...


class RecordingTransport:
    """Forwards every request and records the exchange."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()

    def transport(self, library: Any, key: str) -> Any:
        network = _NetworkTransports(library)

        def carry(request: Any) -> Any:
            started = time.perf_counter()
            response = network.to(request.url).handle_request(request)
            content = response.read()
            seconds = time.perf_counter() - started
            row = _serialize_exchange(request, response, content, seconds, key)
            with self._lock:
                append_lines(self._path, [row])
            headers = {k: v for k, v in response.headers.items() if k != "content-encoding"}
            headers[SECONDS_HEADER] = str(row["seconds"])  # as a replay will have it
            return library.Response(
                response.status_code, headers=headers, content=content, request=request
            )

        return _build_transport(library, carry, network.close)


class _NetworkTransports:
    """Transports to the network, one per proxy.

    A custom transport disables the environment's proxies in these libraries, so they are applied
    here.
    """

    def __init__(self, library: Any) -> None:
        self._library, self._lock = library, threading.Lock()
        self._transports: dict[str | None, Any] = {}

    def to(self, url: Any) -> Any:
        """Return the transport to an address, through the environment's proxy if there is one."""
        proxies = urllib.request.getproxies()
        proxy = proxies.get(url.scheme) or proxies.get("all")
        if proxy and urllib.request.proxy_bypass(url.host):
            proxy = None
        if proxy and "://" not in proxy:
            proxy = f"http://{proxy}"
        with self._lock:
            if proxy not in self._transports:
                limits = self._library.Limits(max_connections=1000, max_keepalive_connections=100)
                self._transports[proxy] = self._library.HTTPTransport(
                    limits=limits, proxy=proxy or None
                )
            return self._transports[proxy]

    def close(self) -> None:
        for way in self._transports.values():
            way.close()


class ReplayTransport:
    """Replays recorded answers; nothing leaves the machine."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise ConfigError(
                f"{path}: there is no recording; a run keeps one with `record: true` in the "
                "contender's settings."
            )
        self._path, self._lock = path, threading.Lock()
        self._answers: dict[str, deque[dict[str, Any]]] = defaultdict(deque)
        self._last: dict[str, dict[str, Any]] = {}
        for row in read_lines(path):
            if row["status"] in (408, 409, 429) or row["status"] >= 500:
                continue
            if row["path"].endswith(CHAT_PATH):
                answers = self._answers[_build_question_key(row)]
                # It was rejected and asked again later, so the rejection was not final.
                if answers and answers[-1]["status"] >= 400:
                    answers.pop()
                answers.append(row)
            else:
                self._last[_build_route_key(row)] = row

    def transport(self, library: Any, key: str) -> Any:
        def carry(request: Any) -> Any:
            request_row = _serialize_request(request)
            row = self._find_response(request_row)
            if row is None:
                raise ConfigError(
                    f"{self._path}: the recording holds no answer to {request_row['method']} "
                    f"{request_row['path']}; replay it with the bake-off file of the recorded run."
                )
            headers = {**row["headers"], SECONDS_HEADER: str(row["seconds"])}
            return library.Response(
                row["status"], headers=headers, content=_decode_content(row), request=request
            )

        return _build_transport(library, carry, lambda: None)

    def _find_response(self, request: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the recorded answer to a request; None if there is none."""
        if not request["path"].endswith(CHAT_PATH):
            return self._last.get(_build_route_key(request))
        with self._lock:
            answers = self._answers.get(_build_question_key(request))
            if not answers:
                return None
            # A question may be asked more often than it was recorded: the last answer repeats.
            return answers.popleft() if len(answers) > 1 else answers[0]


def _build_transport(library: Any, carry: Any, close: Any) -> Any:
    """Return a transport of a library that consists of two functions."""
    made = type("Carried", (library.BaseTransport,), {})()
    made.handle_request, made.close = carry, close
    return made


def _serialize_request(request: Any) -> dict[str, Any]:
    """Return a request as it is recorded: no host, no headers.

    Uploaded files are left out; they lie in `upload/`.
    """
    parts = urlsplit(str(request.url))
    body: Any = None
    # An upload is streamed from its file and cannot be read again.
    if "json" in request.headers.get("content-type", ""):
        body = json.loads(request.read())
    row = {"method": request.method, "path": parts.path, "query": parts.query, "body": body}
    return row | ({"sample": sample} if (sample := _SAMPLE.get()) else {})


def _serialize_exchange(
    request: Any, response: Any, content: bytes, seconds: float, key: str
) -> dict[str, Any]:
    """Return an exchange as a row, with the key redacted."""
    headers = {
        name: redact(value, key)
        for name, value in response.headers.items()
        if name.lower() in RECORDED_HEADERS or name.lower().startswith("x-ratelimit-")
    }
    row = {**_serialize_request(request), "status": response.status_code, "headers": headers}
    try:
        row["content"] = redact(content.decode(), key)
    except UnicodeDecodeError:
        # Latin-1 maps every byte, so the key is redacted here as in a text.
        plain = redact(content.decode("latin-1"), key).encode("latin-1")
        row["base64"] = base64.b64encode(plain).decode()
    return {**row, "seconds": round(seconds, 6)}


def _decode_content(row: Mapping[str, Any]) -> bytes:
    """Return a recorded answer's bytes."""
    if "base64" in row:
        return base64.b64decode(row["base64"])
    return str(row["content"]).encode()


def _build_question_key(row: Mapping[str, Any]) -> str:
    """Return what identifies a question: its path, body and sample."""
    parts = [row["path"], row["body"], *([row["sample"]] if "sample" in row else [])]
    return json.dumps(parts, sort_keys=True)


def _build_route_key(row: Mapping[str, Any]) -> str:
    """Return what identifies any other request: its method and path."""
    return f"{row['method']} {row['path']}"
