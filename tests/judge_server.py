"""A server on this machine that stands for a judge: a real socket, and a rule for what it says."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Server(ThreadingHTTPServer):
    """Answers chat completions by a rule from the prompt to the reply."""

    daemon_threads = True
    rule: Callable[[str, str, str], str]
    prompts: list[str]
    bodies: list[dict[str, Any]]
    most: int | None = None


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = "\n".join(turn["content"] for turn in body["messages"])
        self.server.prompts.append(prompt)
        self.server.bodies.append(body)
        a = b = ""  # a grader's question has no two answers
        if "Answer A:\n" in prompt:
            a, b = prompt.split("Answer A:\n")[1].split("\n\nAnswer B:\n")
        self.server.most = body.get("max_tokens")
        reply = self.server.rule(prompt, a, b)
        status = {"refuse": 400, "busy": 503}.get(reply, 200)
        answer: dict[str, Any] = {
            "id": "1", "object": "chat.completion", "created": 0, "model": body["model"],
            "choices": [{"index": 0, "finish_reason": "stop",
                         "message": {"role": "assistant", "content": reply}}],
            "usage": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10},
        }  # fmt: skip
        if status != 200:
            answer = {"error": {"message": "no such model", "type": "invalid", "code": None}}
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def running_server() -> Iterator[Server]:
    """Run a judge's server while inside."""
    with Server(("127.0.0.1", 0), Handler) as running:
        running.prompts, running.bodies = [], []
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def by_content(prompt: str, a: str, b: str) -> str:
    if a == b:
        return "A tie."
    return "**A**" if a == "good" else "Answer b.\nIt is better."
