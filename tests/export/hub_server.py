"""A hub on loopback: takes what `huggingface_hub` sends when a folder is uploaded, and keeps it."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hub(ThreadingHTTPServer):
    """`files` by path as they came; `made` is what `create` was told; `refuses`: a status."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.files: dict[str, bytes] = {}
        self.made: dict[str, Any] = {}
        self.keys: set[str] = set()
        self.refuses: int | None = None
        self.private = True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: Any) -> None:
        return None

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.keys.add(self.headers.get("Authorization", ""))
        if self.server.refuses is not None:
            return self._answer({"error": "this token may not write"}, self.server.refuses)
        path = self.path.partition("?")[0]
        if path.endswith("/repos/create"):
            self.server.made = json.loads(body)
            name = self.server.made["name"]
            return self._answer({"url": f"{self.server.url}/me/{name}", "name": f"me/{name}"})
        if path.endswith("/validate-yaml"):
            return self._answer({"errors": [], "warnings": []})
        if "/preupload/" in path:
            asked = json.loads(body)["files"]
            return self._answer({"files": [
                {"path": each["path"], "uploadMode": "regular", "shouldIgnore": False}
                for each in asked
            ]})  # fmt: skip
        assert "/commit/" in path, path
        for row in map(json.loads, body.splitlines()):
            if row["key"] == "file":
                content = base64.b64decode(row["value"]["content"])
                self.server.files[row["value"]["path"]] = content
            if row["key"] == "deletedFile":
                del self.server.files[row["value"]["path"]]
        oid = "0123456789abcdef0123456789abcdef01234567"
        repo = path.split("/models/")[1].split("/commit/")[0]
        url = f"{self.server.url}/{repo}/commit/{oid}"
        return self._answer({"success": True, "commitOid": oid, "commitUrl": url})

    def do_GET(self) -> None:
        files = [{"rfilename": path} for path in self.server.files]
        if "/tree/" in self.path:
            found = ({"type": "file", "path": path, "size": len(content), "oid": "0" * 40}
                     for path, content in self.server.files.items())  # fmt: skip
            self._answer(list(found))
            return
        name = self.path.partition("?")[0].split("/api/models/")[1]
        self._answer({"id": "/".join(name.split("/")[:2]), "private": self.server.private,
                      "sha": "0" * 40, "siblings": files, "tags": []})  # fmt: skip

    def _answer(self, value: Any, status: int = 200) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def hub() -> Iterator[Hub]:
    """A hub that runs meanwhile."""
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
