"""A server of the hosted API's shape that trains nothing: a process of its own, so that clients
can be killed while it lives on, and it counts by itself what it would bill.

`python fake_trainer.py PORT_FILE` serves on a free port of loopback and writes it to PORT_FILE.
`POST /_control` changes how it behaves (the fields of `Behaviour`), `GET /_control` tells what it
saw. Tokens are words and signs, so they are not those that the client counts. Here is what goes
wrong on the way; what the API does is in `fake_routes.py`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fake_routes import Api
from fake_state import FAULTS, Refusal, State


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    state: State
    api: Api

    def log_message(self, *_: Any) -> None:
        return None

    def do_GET(self) -> None:
        self._serve("GET")

    def do_POST(self) -> None:
        self._serve("POST")

    def _serve(self, method: str) -> None:
        path = urlsplit(self.path).path
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if path == "/_control":
            if method == "POST":
                self.state.control(json.loads(body))
            self._send(200, json.dumps(self.state.seen_so_far()).encode())
            return
        when = self._kill_at(method, path)
        if when in ("before", "during"):
            self._kill()
        if when == "before":
            return
        with self.state.lock:
            self.state.log.append([method, self.path])
        fault = self.state.fault(method, path)
        if fault is not None and self._not_carried_out(fault):
            return
        try:
            self._refuse(path)
            type = self.headers.get("Content-Type", "")
            status, found = 200, self.api.answer(method, self.path, type, body)
            if path.endswith("/content") and self.state.behaviour.leaky_files:
                found = b"\xff" + self._key().encode() + b" and " + self._key()[-8:].encode()
        except Refusal as refusal:
            status, found = refusal.status, {"error": refusal.error}
        if when == "handled":
            self._kill()
            return
        content = found if isinstance(found, bytes) else json.dumps(found).encode()
        self._answered(fault, status, content)
        if when == "answered":
            self.wfile.flush()
            self._kill()

    def _kill_at(self, method: str, path: str) -> str | None:
        with self.state.lock:
            kill = self.state.behaviour.kill
            if kill is None or kill["method"] != method or not re.fullmatch(kill["path"], path):
                return None
            key = (method, kill["path"])
            self.state.seen[key] = self.state.seen.get(key, 0) + 1
            return str(kill["when"]) if self.state.seen[key] == kill["nth"] else None

    def _kill(self) -> None:
        kill = self.state.behaviour.kill
        assert kill is not None
        self.close_connection = True
        with contextlib.suppress(ProcessLookupError):
            os.kill(kill["pid"], signal.SIGKILL)

    def _not_carried_out(self, fault: str) -> bool:
        """Whether the request ends here."""
        answer = FAULTS[fault]
        if answer is not None:
            self._send(answer[0], b'{"error": {"message": "it was told to"}}', answer[1])
        elif fault == "not forwarded":
            self.close_connection = True
        else:
            return False
        return True

    def _answered(self, fault: str | None, status: int, content: bytes) -> None:
        if fault == "malformed":
            self._send(status, b"{" + content)
        elif fault == "mid-body":
            self._send(status, content, sent=len(content) // 2)
            self.close_connection = True
        elif fault == "forwarded":
            self.close_connection = True
        else:
            self._send(status, content)

    def _send(
        self,
        status: int,
        content: bytes,
        headers: dict[str, str] | None = None,
        sent: int | None = None,
    ) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content[:sent])
        except OSError:  # the client is gone
            self.close_connection = True

    def _key(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def _refuse(self, path: str) -> None:
        """Errors that have nothing to do with what was asked, and say the key."""
        key = self._key()
        with self.state.lock:
            behaviour = self.state.behaviour
            if behaviour.refuse_key:
                raise Refusal(401, f"Incorrect API key provided: {key}.", "invalid_api_key")
            if behaviour.echo > 0:
                behaviour.echo -= 1
                kinds = (
                    Refusal(500, f"internal error; headers were Authorization: Bearer {key}"),
                    Refusal(429, f"slow down, {key[:7]}***{key[-4:]}", "rate_limit_exceeded"),
                    Refusal(503, f"key ending in {key[-8:]} is waiting"),
                )
                raise kinds[behaviour.echo % len(kinds)]


class Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that was killed; nothing to say."""


def main() -> None:
    Handler.state = State()
    Handler.api = Api(Handler.state)
    server = Server(("127.0.0.1", 0), Handler)
    file = Path(sys.argv[1])
    beside = file.with_suffix(".part")
    beside.write_text(str(server.server_address[1]))
    beside.replace(file)
    server.serve_forever()


if __name__ == "__main__":
    main()
