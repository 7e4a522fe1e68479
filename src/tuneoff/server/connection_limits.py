"""HTTP connections with deadlines against slow clients.

uvicorn closes idle connections, but waits without limit for a request to arrive and for an answer
to be read. Here a request's head must arrive in time, its body must arrive at a minimum rate (as in
Apache's mod_reqtimeout), and the answer must be read.
"""

from __future__ import annotations

import asyncio
import json
import resource
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from tuneoff.server.errors import INVALID

HEAD_SECONDS = 20.0
BODY_SECONDS = 20.0
MIN_BYTES_PER_SECOND = 500
# The answer was sent while the body still arrived: time for the client to read it.
LINGER_SECONDS = 5.0
STALL_SECONDS = 60.0
POLL_SECONDS = 1.0
MAX_CONNECTIONS = 1_000
_NOT_HTTP = {"message": "This is no HTTP request.", "type": INVALID, "param": None, "code": None}


def compute_max_connections() -> int:
    """Return how many connections the limit on open files allows, raising that limit if possible.

    Half of the open files are left for everything else.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MAX_CONNECTIONS
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return min(MAX_CONNECTIONS, soft // 2)


class DeadlineConnection(H11Protocol):
    """uvicorn's HTTP/1.1 connection, checked once a second."""

    most = MAX_CONNECTIONS

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start watching a connection; close it if there are too many."""
        super().connection_made(transport)
        self._since = self.loop.time()  # start of the current wait
        self._received = 0
        if len(self.connections) > self.most:
            transport.abort()
            return
        self._looking = self.loop.call_later(POLL_SECONDS, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop watching the connection."""
        if hasattr(self, "_looking"):
            self._looking.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes of one or several requests."""
        previous_cycle = self.cycle
        self._received += len(data)
        super().data_received(data)
        if self.cycle is not previous_cycle:  # the head is complete; now the body is expected
            self._since, self._received = self.loop.time(), 0

    def on_response_complete(self) -> None:
        """Start waiting for the next request, or for the rest of this one's body."""
        self._since, self._received = self.loop.time(), 0
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Note that the client does not read."""
        self._since = self.loop.time()
        super().pause_writing()

    def send_400_response(self, msg: str) -> None:
        """Answer something that is not HTTP, in the format of all errors."""
        body = json.dumps({"error": _NOT_HTTP}).encode()
        head: list[Any] = [
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
            ("connection", "close"),
        ]
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            for event in (h11.Response(status_code=400, headers=head), h11.Data(data=body),
                          h11.EndOfMessage()):  # fmt: skip
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _look(self) -> None:
        """Close the connection if a deadline passed; otherwise check again later."""
        if self._is_overdue():
            self.transport.abort()
        else:
            self._looking = self.loop.call_later(POLL_SECONDS, self._look)

    def _is_overdue(self) -> bool:
        """Return whether the client missed a deadline."""
        waited = self.loop.time() - self._since
        if self.flow.write_paused or self.transport.is_closing():
            return waited > STALL_SECONDS
        if self.conn.their_state is h11.IDLE:
            return waited > HEAD_SECONDS
        if self.conn.their_state is not h11.SEND_BODY:
            return False  # the request is complete; the rest is the server's part
        if self.flow.read_paused:  # the server itself does not keep up
            self._since += POLL_SECONDS
            return False
        if self.cycle.response_complete:
            return waited > LINGER_SECONDS
        return waited > BODY_SECONDS + self._received / MIN_BYTES_PER_SECOND
