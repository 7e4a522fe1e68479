"""A server of the hosted API's shape that trains nothing: a process of its own, so that clients
can be killed while it lives on, and it counts by itself what it would bill.

`python fake_trainer.py PORT_FILE` serves on a free port of loopback and writes it to PORT_FILE.
`POST /_control` changes how it behaves (the fields of `Behaviour`), `GET /_control` tells what it
saw. Tokens are words and signs, so they are not those that the client counts.
"""

from __future__ import annotations

import base64
import email.parser
import email.policy
import hashlib
import json
import os
import random
import re
import signal
import sys
import threading
import time
from dataclasses import asdict, dataclass, field, fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

PIECES = re.compile(r"\w+|[^\w\s]")
DEFAULT_EPOCHS = 3
# Status and headers of requests that are not carried out; None: what the client hears is broken.
FAULTS: dict[str, tuple[int, dict[str, str]] | None] = {
    "429": (429, {}),
    "429 with Retry-After": (429, {"Retry-After": "0.05"}),
    "500": (500, {}),
    "503": (503, {}),
    "not forwarded": None,  # the connection is cut, and nothing was carried out
    "forwarded": None,  # it was carried out, and the connection is cut before an answer
    "mid-body": None,  # it was carried out, and half of the answer comes
    "malformed": None,  # it was carried out, and what comes is no JSON
}
RESULTS = "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy,full_valid_loss\n"


@dataclass
class Behaviour:
    """What the server does. `states` are a job's, one a look at it; `kill` is
    {"pid", "method", "path", "nth", "when"}: a client is killed when its nth request of this kind
    has come ("before"), was carried out ("handled") or was answered ("answered").

    `faults` are {"method", "path", "kinds", "rate" or "times", "seed"}: a share of the requests of
    this kind, or the first few, go wrong as `kinds` say, each in its turn (`FAULTS`).
    """

    states: list[str] = field(
        default_factory=lambda: ["validating_files", "queued", "running", "succeeded"]
    )
    job_error: str | None = None
    kill: dict[str, Any] | None = None
    latency: float = 0.0
    create_seconds: float = 0.0
    lag_seconds: float = 0.0
    metadata: str = "kept"  # kept, ignored (shown without, filter unknown), refused (as filter)
    shows_suffix: bool = True
    pages: bool = True
    duplicate_events: bool = False
    results: str = "plain"  # plain, base64, garbage, none
    checkpoints: bool = True
    newer_model: bool = False
    loading: int = 0
    usage: bool = True
    bills: float = 1.0
    cached: bool = False
    echo: int = 0  # so many answers are errors that say the key
    refuse_create: int = 0
    refuse_key: bool = False
    faults: list[dict[str, Any]] = field(default_factory=list)


class Refusal(Exception):
    def __init__(
        self, status: int, message: str, code: str | None = None, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error = {
            "message": message, "type": "invalid_request_error", "param": param, "code": code,
        }  # fmt: skip


class State:
    """Everything the server knows; one lock around it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.behaviour = Behaviour()
        self.files: list[dict[str, Any]] = []
        self.jobs: list[dict[str, Any]] = []
        self.billed = {"training": 0, "input": 0, "output": 0, "cached": 0, "completions": 0}
        self.asked: dict[str, int] = {}
        self.answered: list[str] = []
        self.log: list[list[str]] = []
        self.seen: dict[tuple[str, str], int] = {}
        self.most_at_once = self.at_once = 0
        self.chat_bodies: list[dict[str, Any]] = []
        self.faulty: dict[str, int] = {}
        self.schedules: list[tuple[random.Random, list[int]]] = []

    def fault(self, method: str, path: str) -> str | None:
        """How this request goes wrong, if it does."""
        with self.lock:
            for told, (chance, done) in zip(self.behaviour.faults, self.schedules, strict=True):
                if told["method"] != method or not re.fullmatch(told["path"], path):
                    continue
                hit = done[0] < told["times"] if "times" in told else chance.random() < told["rate"]
                if hit:
                    kind = str(told["kinds"][done[0] % len(told["kinds"])])
                    done[0] += 1
                    self.faulty[kind] = self.faulty.get(kind, 0) + 1
                    return kind
            return None

    def control(self, changes: dict[str, Any]) -> None:
        with self.lock:
            known = {each.name for each in fields(Behaviour)}
            assert set(changes) <= known, changes
            for name, value in changes.items():
                setattr(self.behaviour, name, value)
            if "kill" in changes:
                self.seen.clear()
            if "faults" in changes:
                told = self.behaviour.faults
                self.schedules = [(random.Random(each.get("seed", 0)), [0]) for each in told]

    def seen_so_far(self) -> dict[str, Any]:
        with self.lock:
            uploads: dict[str, int] = {}
            for each in self.files:
                uploads[each["filename"]] = uploads.get(each["filename"], 0) + 1
            return {
                "behaviour": asdict(self.behaviour),
                "uploads": uploads,
                "files": [{k: v for k, v in f.items() if k != "content"} for f in self.files],
                "jobs": [
                    {k: v for k, v in job.items() if not k.startswith("_")}
                    | {"asked": job["_asked"]}
                    for job in self.jobs
                ],
                "billed": dict(self.billed),
                "asked": dict(self.asked),
                "log": list(self.log),
                "most_at_once": self.most_at_once,
                "chat_bodies": self.chat_bodies[:3],
                "faulty": dict(self.faulty),
            }


def tokens(messages: list[dict[str, Any]]) -> int:
    return 3 + sum(3 + len(PIECES.findall(each["content"])) for each in messages)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: State

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
        if when == "before":
            self._kill()
            return
        with self.state.lock:
            self.state.log.append([method, self.path])
        fault = self.state.fault(method, path)
        if fault is not None and self._not_carried_out(fault):
            return
        try:
            status, found = 200, self._answer(method, path, body)
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

    def _answer(self, method: str, path: str, body: bytes) -> Any:
        behaviour = self.state.behaviour
        self._refuse(path)
        query = dict(parse_qsl(urlsplit(self.path).query))
        parts = path.strip("/").split("/")
        match (method, *parts):
            case ("POST", "v1", "files"):
                return self._upload(body)
            case ("GET", "v1", "files"):
                with self.state.lock:
                    return self._page(
                        [shown_file(f) for f in self._visible(self.state.files)], query
                    )
            case ("GET", "v1", "files", id, "content"):
                return self._content(id)
            case ("POST", "v1", "fine_tuning", "jobs"):
                return self._create(json.loads(body))
            case ("GET", "v1", "fine_tuning", "jobs"):
                return self._jobs(query)
            case ("GET", "v1", "fine_tuning", "jobs", id):
                return self._look(id)
            case ("POST", "v1", "fine_tuning", "jobs", id, "cancel"):
                return self._cancel(id)
            case ("GET", "v1", "fine_tuning", "jobs", id, "events"):
                return self._events(id, query)
            case ("GET", "v1", "fine_tuning", "jobs", id, "checkpoints"):
                if not behaviour.checkpoints:
                    raise Refusal(404, "there is no such path")
                return self._checkpoints(id, query)
            case ("POST", "v1", "chat", "completions"):
                return self._chat(json.loads(body))
        raise Refusal(404, f"there is no {method} {path}")

    def _refuse(self, path: str) -> None:
        key = self.headers.get("Authorization", "").removeprefix("Bearer ")
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

    # files

    def _upload(self, body: bytes) -> Any:
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        form = email.parser.BytesParser(policy=email.policy.default).parsebytes(head + body)
        content, name = b"", ""
        for part in form.iter_parts():
            if part.get_filename():
                content, name = part.get_payload(decode=True) or b"", part.get_filename() or ""
        return shown_file(self._keep(name, content, "fine-tune"))

    def _keep(self, name: str, content: bytes, purpose: str) -> dict[str, Any]:
        with self.state.lock:
            stored = {
                "id": f"file-{len(self.state.files):04}", "filename": name, "content": content,
                "purpose": purpose, "created_at": time.time(),
            }  # fmt: skip
            self.state.files.append(stored)
            return stored

    def _content(self, id: str) -> bytes:
        with self.state.lock:
            found = next((f for f in self.state.files if f["id"] == id), None)
        if found is None:
            raise Refusal(404, f"no file {id}")
        return bytes(found["content"])

    def _visible(self, things: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The newest first; a listing may lag behind."""
        until = time.time() - self.state.behaviour.lag_seconds
        return [each for each in reversed(things) if each["created_at"] <= until]

    def _page(self, rows: list[dict[str, Any]], query: dict[str, str]) -> Any:
        limit = int(query.get("limit", 20))
        if self.state.behaviour.pages:
            ids = [row["id"] for row in rows]
            start = ids.index(query["after"]) + 1 if "after" in query else 0
            chosen = rows[start : start + limit]
            return {"object": "list", "data": chosen, "has_more": start + limit < len(rows)}
        return {"object": "list", "data": rows}

    # jobs

    def _create(self, asked: dict[str, Any]) -> Any:
        time.sleep(self.state.behaviour.create_seconds)
        with self.state.lock:
            if self.state.behaviour.refuse_create > 0:
                self.state.behaviour.refuse_create -= 1
                raise Refusal(
                    400, "the billing hard limit is reached", "billing_hard_limit_reached"
                )
            number = len(self.state.jobs)
            method = (asked.get("method") or {}).get("supervised") or {}
            numbers = method.get("hyperparameters") or asked.get("hyperparameters") or {}
            file = next((f for f in self.state.files if f["id"] == asked["training_file"]), None)
            if file is None:
                raise Refusal(400, f"no file {asked['training_file']}", "invalid_training_file")
            job = {
                "id": f"ftjob-{number:04}", "object": "fine_tuning.job", "model": asked["model"],
                "created_at": int(time.time()), "finished_at": None, "fine_tuned_model": None,
                "organization_id": "org", "result_files": [], "trained_tokens": None,
                "training_file": asked["training_file"],
                "validation_file": asked.get("validation_file"), "error": None,
                "status": self.state.behaviour.states[0], "seed": asked.get("seed", 0),
                "hyperparameters": {
                    "n_epochs": numbers.get("n_epochs", DEFAULT_EPOCHS),
                    "batch_size": numbers.get("batch_size", 4),
                    "learning_rate_multiplier": numbers.get("learning_rate_multiplier", 2.0),
                },
                "_looks": 0, "_asked": asked, "_examples": file["content"].decode().splitlines(),
            }  # fmt: skip
            if self.state.behaviour.shows_suffix:
                job["user_provided_suffix"] = asked.get("suffix")
            if self.state.behaviour.metadata != "ignored":
                job["metadata"] = asked.get("metadata")
            self.state.jobs.append(job)
            return shown(job)

    def _jobs(self, query: dict[str, str]) -> Any:
        wanted = {k[9:-1]: v for k, v in query.items() if k.startswith("metadata[")}
        if wanted and self.state.behaviour.metadata == "refused":
            raise Refusal(400, "unknown parameter: metadata", "unknown_parameter", "metadata")
        if self.state.behaviour.metadata == "ignored":
            wanted = {}
        with self.state.lock:
            rows = [
                shown(job)
                for job in self._visible(self.state.jobs)
                if all((job.get("metadata") or {}).get(k) == v for k, v in wanted.items())
            ]
            return self._page(rows, query)

    def _job(self, id: str) -> dict[str, Any]:
        job = next((job for job in self.state.jobs if job["id"] == id), None)
        if job is None:
            raise Refusal(404, f"no job {id}")
        return job

    def _look(self, id: str) -> Any:
        with self.state.lock:
            job = self._job(id)
            states = self.state.behaviour.states
            if job["status"] not in ("succeeded", "failed", "cancelled"):
                job["_looks"] += 1
                job["status"] = states[min(job["_looks"], len(states) - 1)]
                self._ended(job)
            return shown(job)

    def _ended(self, job: dict[str, Any]) -> None:
        if job["status"] == "failed":
            job["error"] = {
                "code": "invalid_training_file", "param": None,
                "message": self.state.behaviour.job_error or "the loss is not a number",
            }  # fmt: skip
        if job["status"] in ("failed", "succeeded", "cancelled"):
            job["finished_at"] = int(time.time())
        if job["status"] != "succeeded":
            return
        examples = [json.loads(line)["messages"] for line in job["_examples"]]
        job["trained_tokens"] = job["hyperparameters"]["n_epochs"] * sum(map(tokens, examples))
        self.state.billed["training"] += job["trained_tokens"]
        suffix = job["_asked"].get("suffix", "x")
        job["fine_tuned_model"] = f"ft:{job['model']}:org:{suffix}:{job['id'][-4:]}"
        if self.state.behaviour.results != "none":
            job["result_files"] = [self._keep("step_metrics.csv", self._results(), "results")["id"]]

    def _results(self) -> bytes:
        rows = []
        for step in range(1, 11):
            valid = f"{1.5 - 0.1 * step:.2f}" if step <= 6 else f"{0.9 + 0.15 * (step - 6):.2f}"
            rows.append(f"{step},{2 / step:.4f},0.5,,,{valid if step % 2 == 0 else ''}\n")
        text = (RESULTS + "".join(rows)).encode()
        kind = self.state.behaviour.results
        if kind == "garbage":
            return b"AAA=" * 5 + b"\x00\xff\nstep,\x00"
        return base64.b64encode(text) if kind == "base64" else text

    def _cancel(self, id: str) -> Any:
        with self.state.lock:
            job = self._job(id)
            if job["status"] in ("succeeded", "failed", "cancelled"):
                raise Refusal(400, f"job {id} is {job['status']}", "invalid_job_state")
            job["status"] = "cancelled"
            self._ended(job)
            return shown(job)

    def _events(self, id: str, query: dict[str, str]) -> Any:
        with self.state.lock:
            job = self._job(id)
            messages = [f"Created fine-tuning job: {id}"]
            messages += [
                f"Step {step}/10: training loss=0.5" for step in range(1, job["_looks"] * 3)
            ]
            if job["status"] == "succeeded":
                messages.append("The job has successfully completed")
            rows = [
                {
                    "id": f"ftevent-{number:03}", "object": "fine_tuning.job.event",
                    "created_at": job["created_at"], "level": "info", "message": message,
                }
                for number, message in enumerate(messages)
            ]  # fmt: skip
            if self.state.behaviour.duplicate_events:
                rows = [row for row in rows for _ in range(2)]
                return {"object": "list", "data": rows[::-1][:100], "has_more": False}
            return self._page(rows[::-1], query)

    def _checkpoints(self, id: str, query: dict[str, str]) -> Any:
        with self.state.lock:
            job = self._job(id)
            losses = {4: 1.1, 8: 0.9, 10: 1.2}
            rows = [
                {
                    "id": f"ftckpt-{step}", "object": "fine_tuning.job.checkpoint",
                    "created_at": job["created_at"], "fine_tuning_job_id": id,
                    "fine_tuned_model_checkpoint": f"{job['fine_tuned_model']}:ckpt-step-{step}",
                    "step_number": step,
                    "metrics": {"step": step, "train_loss": 2 / step, "full_valid_loss": loss},
                }
                for step, loss in losses.items()
            ]  # fmt: skip
            return self._page(rows[::-1], query)

    # answers

    def _chat(self, asked: dict[str, Any]) -> Any:
        with self.state.lock:
            self.state.at_once += 1
            self.state.most_at_once = max(self.state.most_at_once, self.state.at_once)
            self.state.chat_bodies.append(asked)
        try:
            time.sleep(self.state.behaviour.latency)
            return self._completion(asked)
        finally:
            with self.state.lock:
                self.state.at_once -= 1

    def _completion(self, asked: dict[str, Any]) -> Any:
        question = asked["messages"][-1]["content"]
        with self.state.lock:
            behaviour = self.state.behaviour
            if behaviour.loading > 0:
                behaviour.loading -= 1
                raise Refusal(
                    404, f"The model `{asked['model']}` does not exist", "model_not_found"
                )
            if behaviour.newer_model:
                for name in ("max_tokens", "temperature"):
                    if name in asked:
                        raise Refusal(400, f"Unsupported: {name}", "unsupported_parameter", name)
        if "FILTERED-PROMPT" in question:
            raise Refusal(400, "The prompt was filtered", "content_filter", "prompt")
        if "TOO-LONG" in question:
            raise Refusal(400, "Too many tokens", "context_length_exceeded", "messages")
        if "POISON" in question:
            raise Refusal(500, "The server had an error while processing your request")
        answer = f"answer {hashlib.sha256(question.encode()).hexdigest()[:12]}"
        prompt = round(tokens(asked["messages"]) * behaviour.bills)
        output = min(len(PIECES.findall(answer)), asked.get("max_tokens") or 1000)
        cached = prompt // 2 if behaviour.cached else 0
        with self.state.lock:
            for name, count in (
                ("input", prompt), ("output", output), ("cached", cached), ("completions", 1),
            ):  # fmt: skip
                self.state.billed[name] += count
            self.state.asked[question] = self.state.asked.get(question, 0) + 1
        usage = {
            "prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output,
            "prompt_tokens_details": {"cached_tokens": cached},
        }  # fmt: skip
        reason = "content_filter" if "FILTERED-ANSWER" in question else "stop"
        return {
            "id": "chatcmpl-1", "object": "chat.completion", "created": int(time.time()),
            "model": asked["model"], "usage": usage if behaviour.usage else None,
            "choices": [{"index": 0, "finish_reason": reason, "logprobs": None,
                         "message": {"role": "assistant", "content": answer, "refusal": None}}],
        }  # fmt: skip


def shown_file(stored: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": stored["id"], "object": "file", "bytes": len(stored["content"]),
        "created_at": int(stored["created_at"]), "filename": stored["filename"],
        "purpose": stored["purpose"], "status": "processed",
    }  # fmt: skip


def shown(job: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in job.items() if not key.startswith("_")}


class Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that was killed; nothing to say."""


def main() -> None:
    Handler.state = State()
    server = Server(("127.0.0.1", 0), Handler)
    file = Path(sys.argv[1])
    beside = file.with_suffix(".part")
    beside.write_text(str(server.server_address[1]))
    beside.replace(file)
    server.serve_forever()


if __name__ == "__main__":
    main()
