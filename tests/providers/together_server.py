"""A server of Together's shape, in a process of its own: `python together_server.py`.

It keeps files and fine-tuning jobs, lets a job go on by one state whenever it is looked at, counts
and bills tokens as its documentation says, and answers by the rule of the training file. A tuned
model answers only once it is deployed, as at Together. It writes its port to stdout. Tests speak
to it under /test: `/test/set` (how it behaves), `/test/deploy`, `/test/state` (what happened).
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

KEY = "tgp_v1_a-key-that-nobody-may-see"
USD_PER_MILLION = 0.48
STATES = ("pending", "queued", "running", "warming_up", "compressing", "uploading", "completed")
STEPS = 8
LIMITS = {
    "max_num_epochs": 20, "max_num_evals": 100, "max_num_checkpoints": 10,
    "min_learning_rate": 1e-7, "max_learning_rate": 1e-2, "max_seq_length_sft": 8192,
    "max_seq_length_dpo": 4096, "min_max_seq_length": 512, "merge_output_lora": True,
    "default_gradient_accumulation_steps": 1, "supports_full_training": False,
    "supports_reasoning": False, "supports_tools": True, "supports_vision": False,
    "full_training": None, "lora_training": {
        "default_rank": 64, "max_rank": 64, "min_batch_size": 8, "max_batch_size": 96,
        "max_batch_size_dpo": 48, "target_modules": ["q_proj", "v_proj"]}}  # fmt: skip


class State:
    """Everything the server knows. `faults`: of the next requests `METHOD path`, what goes wrong:
    `cut` (carried out, the answer never sent), `before` (the connection closed at once), a status.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.files: dict[str, dict[str, Any]] = {}
        self.contents: dict[str, bytes] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.deployed: dict[str, str] = {}
        self.requests: list[str] = []
        self.answers = 0
        self.settings: dict[str, Any] = {
            "faults": [], "fails": False, "held": None, "estimate": None, "refused": []
        }  # fmt: skip

    def tokens(self, file: str | None) -> int:
        if not file:
            return 0
        rows = [json.loads(line) for line in self.contents[file].splitlines()]
        return sum(words(row["messages"]) for row in rows)


def words(messages: list[dict[str, str]]) -> int:
    """Its tokenizer: words, and four tokens around each turn."""
    return sum(4 + len(turn["content"].split()) for turn in messages)


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")


class Refused(Exception):
    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Handler(BaseHTTPRequestHandler):
    protocol_version, disable_nagle_algorithm = "HTTP/1.1", True
    state: State

    def log_message(self, *_: Any) -> None:
        return None

    def do_GET(self) -> None:
        self.answer("GET")

    def do_POST(self) -> None:
        self.answer("POST")

    def do_PUT(self) -> None:
        self.answer("PUT")

    def answer(self, method: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path)
        with self.state.lock:
            fault = self.fault(f"{method} {path.path}")
            if fault == "before":
                self.close_connection = True
                return
            if isinstance(fault, int):
                self.send(fault, {"error": {"message": "not now"}}, {"Retry-After": "0"})
                return
            try:
                status, given, headers = self.route(method, path.path, parse_qs(path.query), body)
            except Refused as refused:
                error = {"message": str(refused), "type": "invalid_request_error",
                         "param": None, "code": refused.code}  # fmt: skip
                status, given, headers = refused.status, {"id": "x", "error": error}, {}
        if fault == "cut":
            self.close_connection = True
            return
        self.send(status, given, headers)

    def fault(self, request: str) -> Any:
        self.state.requests.append(request)
        for each in self.state.settings["faults"]:
            if re.fullmatch(each["request"], request):
                self.state.settings["faults"].remove(each)
                return each["how"]
        return None

    def send(self, status: int, given: Any, headers: dict[str, str]) -> None:
        content = json.dumps(given).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Type": "application/json"}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def route(
        self, method: str, path: str, query: dict[str, list[str]], body: bytes
    ) -> tuple[int, Any, dict[str, str]]:
        state, parts = self.state, path.strip("/").split("/")
        if parts[0] == "test":
            return 200, self.test(parts[1], json.loads(body or b"{}")), {}
        if parts[0] == "storage":
            state.contents[parts[1]] = body
            state.files[parts[1]]["bytes"] = len(body)
            return 200, {}, {}
        if self.headers.get("Authorization") != f"Bearer {KEY}":
            raise Refused(401, f"the key {self.headers.get('Authorization')} is not valid")
        match method, parts[1:]:
            case "POST", ["files"]:
                return self.begin_upload(body)
            case "GET", ["files"]:
                return 200, {"data": list(state.files.values())}, {}
            case "POST", ["files", id, "preprocess"]:
                state.files[id]["processing_status"] = "PENDING"
                return 200, state.files[id], {}
            case "GET", ["files", id]:
                return 200, self.looked_through(id), {}
            case "GET", ["fine-tunes", "models", "limits"]:
                return 200, {**LIMITS, "model_name": query["model_name"][0]}, {}
            case "POST", ["fine-tunes", "estimate-price"]:
                return 200, self.estimate(json.loads(body)), {}
            case "POST", ["fine-tunes"]:
                return 200, self.create(json.loads(body)), {}
            case "GET", ["fine-tunes"]:
                return 200, {"data": [listed(job) for job in state.jobs.values()]}, {}
            case _, ["fine-tunes", id, *rest]:
                return 200, self.job(method, id, rest), {}
            case "POST", ["chat", "completions"]:
                return 200, self.chat(json.loads(body)), {}
        raise Refused(404, f"there is no {method} {path}")

    def test(self, what: str, given: dict[str, Any]) -> Any:
        if what == "set":
            self.state.settings |= given
        elif what == "deploy":
            self.state.deployed[given["name"]] = given["model"]
        return {
            "files": list(self.state.files.values()), "jobs": list(self.state.jobs.values()),
            "answers": self.state.answers, "requests": self.state.requests,
        }  # fmt: skip

    def begin_upload(self, body: bytes) -> tuple[int, Any, dict[str, str]]:
        form = dict(re.findall(rb'name="(\w+)"\r\n(?:.+\r\n)*\r\n(.*?)\r\n', body))
        name, checksum = form[b"file_name"].decode(), form[b"checksum"].decode()
        for file in self.state.files.values():
            if file["checksum"] == checksum and file["bytes"]:
                return 409, {"file_id": file["id"], "error": {"message": "it is there"}}, {}
        id = f"file-{len(self.state.files)}"
        self.state.files[id] = {
            "id": id, "object": "file", "filename": name, "bytes": 0, "purpose": "fine-tune",
            "FileType": "jsonl", "created_at": 0, "processing_status": None,
            "checksum": checksum,
        }  # fmt: skip
        port = self.server.server_address[1]
        location = f"http://127.0.0.1:{port}/storage/{id}"
        return 302, {}, {"Location": location, "X-Together-File-Id": id}

    def looked_through(self, id: str) -> dict[str, Any]:
        file = self.state.files[id]
        after = {"PENDING": "RUNNING", "RUNNING": "COMPLETED"}
        before = dict(file)
        file["processing_status"] = after.get(file["processing_status"], file["processing_status"])
        return before

    def billed(self, asked: dict[str, Any]) -> int:
        train = self.state.tokens(asked["training_file"]) * asked.get("n_epochs", 1)
        return train + self.state.tokens(asked.get("validation_file")) * asked.get("n_evals", 0)

    def estimate(self, asked: dict[str, Any]) -> dict[str, Any]:
        file = self.state.files[asked["training_file"]]
        if file["processing_status"] != "COMPLETED":
            reason = "train_file_not_validated"
            return {"estimation_available": False, "unavailable_reason": reason}
        tokens = self.billed(asked)
        usd = self.state.settings["estimate"] or tokens * USD_PER_MILLION / 1e6
        return {"estimation_available": True, "allowed_to_proceed": True,
                "estimated_total_price": usd, "estimated_train_token_count": tokens,
                "estimated_eval_token_count": 0, "user_limit": 100.0}  # fmt: skip

    def create(self, asked: dict[str, Any]) -> dict[str, Any]:
        if len(asked.get("suffix") or "") > 40:
            raise Refused(400, "suffix: at most 40 characters")
        if (asked.get("n_evals") or 0) > 0 and not asked.get("validation_file"):
            raise Refused(400, "n_evals needs a validation file")
        number = len(self.state.jobs)
        id = f"ft-{hashlib.sha256(str(number).encode()).hexdigest()[:12]}"
        tokens = self.billed(asked)
        self.state.jobs[id] = {
            **asked, "id": id, "status": "pending", "created_at": now(), "updated_at": now(),
            "user_id": "u", "token_count": tokens, "total_price": round(tokens * 480),
            "model_output_name": f"acme/{asked['model']}:{asked['suffix']}:{id}", "events": [],
        }  # fmt: skip
        # The key comes back in a message: it must not get any further.
        self.happened(id, "job_pending", f"job created with {self.headers['Authorization']}")
        return listed(self.state.jobs[id])

    def happened(self, id: str, kind: str, message: str, **more: Any) -> None:
        self.state.jobs[id]["events"].append(
            {"object": "fine-tune-event", "created_at": now(), "type": kind, "level": "info",
             "message": message, **more}
        )  # fmt: skip

    def job(self, method: str, id: str, rest: list[str]) -> Any:
        if id not in self.state.jobs:
            raise Refused(404, f"there is no job {id}")
        job = self.state.jobs[id]
        match rest:
            case ["cancel"]:
                job["status"] = "cancelled"
                return listed(job)
            case ["events"]:  # told twice, and not in order
                return {"data": [*reversed(job["events"]), *job["events"][:1]]}
            case ["metrics"]:
                return {"metrics": metrics(job)}
            case ["checkpoints"]:
                return {"data": checkpoints(job)}
        self.goes_on(job)
        return {k: v for k, v in job.items() if k != "suffix"}

    def goes_on(self, job: dict[str, Any]) -> None:
        if job["status"] not in STATES[:-1] or job["status"] == self.state.settings["held"]:
            return
        job["status"] = STATES[STATES.index(job["status"]) + 1]
        job["updated_at"] = now()
        if job["status"] == "warming_up":
            for step in (STEPS // 2, STEPS):
                self.happened(job["id"], "epoch_complete", f"Epoch completed, at step {step}",
                              step=step, total_steps=STEPS)  # fmt: skip
            if self.state.settings["fails"]:
                job["status"], job["total_price"] = "error", 0
                self.happened(job["id"], "job_error", "the loss is not a number")
                self.happened(job["id"], "refund", "the job is not billed")

    def chat(self, asked: dict[str, Any]) -> dict[str, Any]:
        model = self.state.deployed.get(asked["model"])
        if model is None:
            message = f"Unable to access non-serverless model {asked['model']}"
            raise Refused(400, message, "model_not_available")
        question = asked["messages"][-1]["content"]
        if question in self.state.settings["refused"]:
            raise Refused(422, "the input is longer than the model's context")
        job = next(j for j in self.state.jobs.values() if model.startswith(j["model_output_name"]))
        said = learned(self.state.contents[job["training_file"]], question)
        self.state.answers += 1
        usage = {"prompt_tokens": words(asked["messages"]), "completion_tokens": len(said.split())}
        usage["total_tokens"] = sum(usage.values())
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant",
                  "content": said}}  # fmt: skip
        return {"id": "c", "object": "chat.completion", "created": 0, "model": asked["model"],
                "choices": [choice], "prompt": [], "usage": usage}  # fmt: skip


def learned(training: bytes, question: str) -> str:
    """Its model: the first example's answer, its number as far from the question's as there."""
    turns = json.loads(training.splitlines()[0])["messages"]
    before, after, asked = (
        int(re.findall(r"\d+", text)[0])
        for text in (turns[-2]["content"], turns[-1]["content"], question)
    )
    return str(turns[-1]["content"]).replace(str(after), str(asked + after - before))


def listed(job: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in job.items() if k != "events"}


def metrics(job: dict[str, Any]) -> list[dict[str, float]]:
    """Training steps and evaluations in rows of their own; the best evaluation is the third."""
    train: list[dict[str, float]] = [
        {"train/global_step": step, "train/loss": 2.0 / step, "train/epoch": 1.0}
        for step in range(1, STEPS + 1)
    ]
    if not job.get("n_evals"):
        return train
    return train + [
        {"train/global_step": step, "eval/loss": loss}
        for step, loss in ((2, 1.5), (4, 1.0), (6, 0.5), (8, 0.7))
    ]


def checkpoints(job: dict[str, Any]) -> list[dict[str, Any]]:
    name = job["model_output_name"]
    kept = [2, 4, 6, 8] if job.get("n_checkpoints", 1) > 1 else [8]
    return [
        {"checkpoint_type": "adapter", "created_at": now(), "path": f"s3://{step}", "step": step,
         "object_name": f"{name}-step-{step}"}
        for step in kept
    ]  # fmt: skip


if __name__ == "__main__":
    Handler.state = State()
    ThreadingHTTPServer.request_queue_size = 128
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    sys.stdout.close()
    server.serve_forever()
