"""Keeping what was said to a provider and what it said, and saying it again without it.

`record: true` writes every exchange to `exchanges.jsonl`, whole but for the key, which is in no
header that is kept and is struck out of every body. A model that has been switched off can then
be measured for ever: a replay gives the SDK the recorded bytes, and nothing leaves the machine.

In a replay a question gets the answers that this very question got, in their order; those of each
sample of repeated answers are kept apart, for many are under way at once. Everything
else (a job's state, a listing) gets the last answer there was, so nobody waits for a job that
ended long ago. What failed and was tried again is left out.
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
from tuneoff.files import append_lines, read_lines
from tuneoff.providers.sdk import hidden

ANSWERING = "/chat/completions"
# How long a recorded answer took, in a header of our own: a replay must not look fast.
SECONDS_HEADER = "tuneoff-seconds"
KEPT_HEADERS = (
    "content-type", "date", "retry-after", "retry-after-ms", "x-request-id", "openai-version",
    "openai-model", "openai-processing-ms",
)  # fmt: skip


# Which sample is asked for: a request does not say it, and no provider is to be told.
_SAMPLE: ContextVar[int] = ContextVar("sample", default=0)


@contextlib.contextmanager
def mark_sample(sample: int) -> Iterator[None]:
    """Record, or replay, what is asked on this thread as of this sample, while inside."""
    token = _SAMPLE.set(sample)
    try:
        yield
    finally:
        _SAMPLE.reset(token)


class Tape(Protocol):
    """What stands between an SDK and the network."""

    def transport(self, library: Any, key: str) -> Any:
        """A transport for the HTTP library of an SDK (httpx, httpx2)."""
        ...


class Recorder:
    """Lets everything through and writes it down."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()

    def transport(self, library: Any, key: str) -> Any:
        network = _Network(library)

        def carry(request: Any) -> Any:
            began = time.perf_counter()
            response = network.to(request.url).handle_request(request)
            content = response.read()
            seconds = time.perf_counter() - began
            row = _row(request, response, content, seconds, key)
            with self._lock:
                append_lines(self._path, [row])
            headers = {k: v for k, v in response.headers.items() if k != "content-encoding"}
            headers[SECONDS_HEADER] = str(row["seconds"])  # as a replay will have it
            return library.Response(
                response.status_code, headers=headers, content=content, request=request
            )

        return _transport(library, carry, network.close)


class _Network:
    """Ways to the network. A transport of one's own turns the environment's proxies off in these
    libraries, so they are looked for here."""

    def __init__(self, library: Any) -> None:
        self._library, self._lock = library, threading.Lock()
        self._ways: dict[str | None, Any] = {}

    def to(self, url: Any) -> Any:
        """The transport to an address: through the environment's proxy, if there is one for it."""
        proxies = urllib.request.getproxies()
        proxy = proxies.get(url.scheme) or proxies.get("all")
        if proxy and urllib.request.proxy_bypass(url.host):
            proxy = None
        if proxy and "://" not in proxy:
            proxy = f"http://{proxy}"
        with self._lock:
            if proxy not in self._ways:
                limits = self._library.Limits(max_connections=1000, max_keepalive_connections=100)
                self._ways[proxy] = self._library.HTTPTransport(limits=limits, proxy=proxy or None)
            return self._ways[proxy]

    def close(self) -> None:
        for way in self._ways.values():
            way.close()


class Player:
    """Says what was said before; nothing leaves the machine."""

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
            if row["path"].endswith(ANSWERING):
                answers = self._answers[_question(row)]
                # Refused, and asked again later: it was not for good.
                if answers and answers[-1]["status"] >= 400:
                    answers.pop()
                answers.append(row)
            else:
                self._last[_place(row)] = row

    def transport(self, library: Any, key: str) -> Any:
        def carry(request: Any) -> Any:
            asked = _asked(request)
            row = self._said(asked)
            if row is None:
                raise ConfigError(
                    f"{self._path}: the recording holds no answer to {asked['method']} "
                    f"{asked['path']}; replay it with the bake-off file of the recorded run."
                )
            headers = {**row["headers"], SECONDS_HEADER: str(row["seconds"])}
            return library.Response(
                row["status"], headers=headers, content=_content(row), request=request
            )

        return _transport(library, carry, lambda: None)

    def _said(self, asked: Mapping[str, Any]) -> dict[str, Any] | None:
        if not asked["path"].endswith(ANSWERING):
            return self._last.get(_place(asked))
        with self._lock:
            answers = self._answers.get(_question(asked))
            if not answers:
                return None
            # The same question may be asked more often than it was: the last answer stays.
            return answers.popleft() if len(answers) > 1 else answers[0]


def _transport(library: Any, carry: Any, close: Any) -> Any:
    """A transport of a library made of two functions."""
    made = type("Carried", (library.BaseTransport,), {})()
    made.handle_request, made.close = carry, close
    return made


def _asked(request: Any) -> dict[str, Any]:
    """A request as it is kept: no host, no header; of an upload not the file, which lies in
    `upload/`."""
    parts = urlsplit(str(request.url))
    body: Any = None
    # Of what is uploaded as it is read from a file, nothing is left to be read again.
    if "json" in request.headers.get("content-type", ""):
        body = json.loads(request.read())
    found = {"method": request.method, "path": parts.path, "query": parts.query, "body": body}
    return found | ({"sample": sample} if (sample := _SAMPLE.get()) else {})


def _row(request: Any, response: Any, content: bytes, seconds: float, key: str) -> dict[str, Any]:
    headers = {
        name: hidden(value, key)
        for name, value in response.headers.items()
        if name.lower() in KEPT_HEADERS or name.lower().startswith("x-ratelimit-")
    }
    row = {**_asked(request), "status": response.status_code, "headers": headers}
    try:
        row["content"] = hidden(content.decode(), key)
    except UnicodeDecodeError:
        # Latin-1 knows every byte: the same is struck out as of a text.
        plain = hidden(content.decode("latin-1"), key).encode("latin-1")
        row["base64"] = base64.b64encode(plain).decode()
    return {**row, "seconds": round(seconds, 6)}


def _content(row: Mapping[str, Any]) -> bytes:
    if "base64" in row:
        return base64.b64decode(row["base64"])
    return str(row["content"]).encode()


def _question(row: Mapping[str, Any]) -> str:
    asked = [row["path"], row["body"], *([row["sample"]] if "sample" in row else [])]
    return json.dumps(asked, sort_keys=True)


def _place(row: Mapping[str, Any]) -> str:
    return f"{row['method']} {row['path']}"
