"""A connection with deadlines: who sends a request too slowly, or does not read the answer, is
let go.

uvicorn closes idle connections, but waits for a request for as long as it takes to come, and
for an answer as long as it takes to be read. Here a request's head must be there in time, its
body must come at a least rate (as Apache's mod_reqtimeout has it), and an answer must be taken.
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
LEAST_BYTES_PER_SECOND = 500
# The answer was sent while the body still came: long enough for a client to read it.
LINGER_SECONDS = 5.0
STALL_SECONDS = 60.0
LOOK_SECONDS = 1.0
MOST_CONNECTIONS = 1_000
_NOT_HTTP = {"message": "This is no HTTP request.", "type": INVALID, "param": None, "code": None}


def connections_that_fit() -> int:
    """How many there may be, with as many open files as this process may have: half are for
    everything else."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MOST_CONNECTIONS
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return min(MOST_CONNECTIONS, soft // 2)


class Connection(H11Protocol):
    """uvicorn's HTTP/1.1, looked after once a second."""

    most = MOST_CONNECTIONS

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Somebody has come; if too many are here already, they are sent away."""
        super().connection_made(transport)
        self._since = self.loop.time()  # of what is waited for now
        self._received = 0
        if len(self.connections) > self.most:
            transport.abort()
            return
        self._looking = self.loop.call_later(LOOK_SECONDS, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """They are gone."""
        if hasattr(self, "_looking"):
            self._looking.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes of a request, or of several."""
        before = self.cycle
        self._received += len(data)
        super().data_received(data)
        if self.cycle is not before:  # a head is complete: now the body is waited for
            self._since, self._received = self.loop.time(), 0

    def on_response_complete(self) -> None:
        """The next request is waited for, or the rest of this one's body."""
        self._since, self._received = self.loop.time(), 0
        super().on_response_complete()

    def pause_writing(self) -> None:
        """The client does not read."""
        self._since = self.loop.time()
        super().pause_writing()

    def send_400_response(self, msg: str) -> None:
        """What came is not HTTP: told in the shape of all errors."""
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
        if self._overdue():
            self.transport.abort()
        else:
            self._looking = self.loop.call_later(LOOK_SECONDS, self._look)

    def _overdue(self) -> bool:
        waited = self.loop.time() - self._since
        if self.flow.write_paused or self.transport.is_closing():
            return waited > STALL_SECONDS
        if self.conn.their_state is h11.IDLE:
            return waited > HEAD_SECONDS
        if self.conn.their_state is not h11.SEND_BODY:
            return False  # the request is complete; what happens now is the server's affair
        if self.flow.read_paused:  # it is the server that does not keep up
            self._since += LOOK_SECONDS
            return False
        if self.cycle.response_complete:
            return waited > LINGER_SECONDS
        return waited > BODY_SECONDS + self._received / LEAST_BYTES_PER_SECOND
