"""The hosted API's routes over a fake trainer's state: files, jobs, models and chat."""

from __future__ import annotations

import base64
import email.parser
import email.policy
import hashlib
import json
import time
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import fake_batches
from fake_state import DEFAULT_EPOCHS, PIECES, RESULTS, Refusal, State, tokens

# Validation losses by steps.
CHECKPOINTS = {4: 1.1, 8: 0.9, 10: 1.2}


class Api:
    """Answers requests as the hosted API would; `answer` raises `Refusal`."""

    def __init__(self, state: State) -> None:
        self.state = state

    def answer(self, method: str, target: str, type: str, body: bytes) -> Any:
        """What a request is answered with: an object, or a file's bytes.

        Raises:
            Refusal: the answer is an error.
        """
        behaviour = self.state.behaviour
        query = dict(parse_qsl(urlsplit(target).query))
        parts = urlsplit(target).path.strip("/").split("/")
        match (method, *parts):
            case ("POST", "v1", "files"):
                return self._upload(type, body)
            case ("GET", "v1", "files"):
                with self.state.lock:
                    return self._page(self._files(query), query)
            case ("GET", "v1", "files", id) if behaviour.file_route:
                return self._look_at_file(id)
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
            case ("GET", "v1", "models"):
                return self._models()
            case ("POST", "v1", "batches"):
                return fake_batches.create(self.state, json.loads(body), self.completion)
            case ("GET", "v1", "batches"):
                with self.state.lock:
                    batches = self._visible(self.state.batches)
                    return self._page([fake_batches.shown(each) for each in batches], query)
            case ("GET", "v1", "batches", id):
                return fake_batches.look(self.state, id, self._keep)
        raise Refusal(404, f"there is no {method} {target}")

    def _models(self) -> Any:
        behaviour, rows = self.state.behaviour, []
        with self.state.lock:
            jobs = [job for job in self.state.jobs if job["fine_tuned_model"]]
            gone = behaviour.unlisted_models
        for job in jobs:
            name = job["fine_tuned_model"]
            names = [name] * (name not in gone)
            if behaviour.lists_checkpoints:
                names += [f"{name}:ckpt-step-{step}" for step in CHECKPOINTS]
            told = {"shutdown_date": behaviour.shutdown.get(job["model"])}
            told = told if job["model"] in behaviour.shutdown else {}
            rows += [{"id": n, "object": "model", "created": 0, "owned_by": "org"} | told
                     for n in names]  # fmt: skip
        return {"object": "list", "data": rows}

    def _refuse_gone(self, id: str) -> None:
        if id in self.state.behaviour.gone_files:
            raise Refusal(404, f"No such File object: {id}", param="id")

    # files

    def _upload(self, type: str, body: bytes) -> Any:
        head = f"Content-Type: {type}\r\n\r\n".encode()
        form = email.parser.BytesParser(policy=email.policy.default).parsebytes(head + body)
        content, name, purpose = b"", "", ""
        for part in form.iter_parts():
            payload = part.get_payload(decode=True) or b""
            if part.get_filename():
                content, name = payload, part.get_filename() or ""
            elif part.get_param("name", header="content-disposition") == "purpose":
                purpose = payload.decode().strip()
        return shown_file(self._keep(name, content, purpose))

    def _files(self, query: dict[str, str]) -> list[dict[str, Any]]:
        found = []
        for file in self._visible(self.state.files):
            file["_asked_for"] += 1
            listed = file["_asked_for"] > self.state.behaviour.unlisted
            if listed and query.get("purpose") in (None, file["purpose"]):
                found.append(shown_file(file))
        return found

    def _keep(self, name: str, content: bytes, purpose: str) -> dict[str, Any]:
        with self.state.lock:
            stored = {
                "id": f"file-{len(self.state.files):04}", "filename": name, "content": content,
                "purpose": purpose, "created_at": int(time.time()), "_at": time.time(),
                "_asked_for": 0, "_looks": 0, "_status": self.state.behaviour.file_states[0],
            }  # fmt: skip
            self.state.files.append(stored)
            return stored

    def _look_at_file(self, id: str) -> Any:
        self._refuse_gone(id)
        with self.state.lock:
            file = next((f for f in self.state.files if f["id"] == id), None)
            if file is None:
                raise Refusal(404, f"no file {id}")
            states = self.state.behaviour.file_states
            file["_status"] = states[min(file["_looks"], len(states) - 1)]
            file["_looks"] += 1
            return shown_file(file)

    def _content(self, id: str) -> bytes:
        self._refuse_gone(id)
        with self.state.lock:
            found = next((f for f in self.state.files if f["id"] == id), None)
        if found is None:
            raise Refusal(404, f"no file {id}")
        with self.state.lock:
            short = self.state.behaviour.short_files > 0
            self.state.behaviour.short_files -= short
        return bytes(found["content"][: -1 if short else None])

    def _visible(self, things: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The newest first; a listing may lag behind."""
        until = time.time() - self.state.behaviour.lag_seconds
        return [each for each in reversed(things) if each["_at"] <= until]

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
            if file["_status"] not in (None, "processed", "uploaded"):
                raise Refusal(400, f"file {file['id']} is {file['_status']}", "invalid_file")
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
                "_at": time.time(), "_looks": 0, "_asked": asked,
                "_examples": file["content"].decode().splitlines(),
            }  # fmt: skip
            if self.state.behaviour.shows_suffix:
                job["user_provided_suffix"] = asked.get("suffix")
            if self.state.behaviour.metadata != "ignored":
                job["metadata"] = asked.get("metadata")
            self.state.jobs.append(job)
            return shown(job)

    def _jobs(self, query: dict[str, str]) -> Any:
        if self.state.behaviour.hides_jobs:
            raise Refusal(403, "You have insufficient permissions for this operation.")
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
            if job["finished_at"] is None:
                job["_looks"] += 1
                job["status"] = states[min(job["_looks"], len(states) - 1)]
                self._ended(job)
            return shown(job)

    def _ended(self, job: dict[str, Any]) -> None:
        end = self.state.behaviour.ends.get(job["status"], job["status"])
        if end == "failed":
            job["error"] = {
                "code": "invalid_training_file", "param": None,
                "message": self.state.behaviour.job_error or "the loss is not a number",
            }  # fmt: skip
        if end in ("failed", "succeeded", "cancelled"):
            job["finished_at"] = int(time.time())
        if end != "succeeded":
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
            if job["finished_at"] is not None:
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
            if self.state.behaviour.event:
                messages.append(self.state.behaviour.event)
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
            rows = [
                {
                    "id": f"ftckpt-{step}", "object": "fine_tuning.job.checkpoint",
                    "created_at": job["created_at"], "fine_tuning_job_id": id,
                    "fine_tuned_model_checkpoint": f"{job['fine_tuned_model']}:ckpt-step-{step}",
                    "step_number": step,
                    "metrics": {"step": step, "train_loss": 2 / step, "full_valid_loss": loss},
                }
                for step, loss in CHECKPOINTS.items()
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
            return self.completion(asked)
        finally:
            with self.state.lock:
                self.state.at_once -= 1

    def completion(self, asked: dict[str, Any], batch: bool = False) -> Any:
        """One answer, which is billed."""
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
        if behaviour.varies:
            with self.state.lock:
                turn = self.state.asked.get(question, 0)
            is_right = turn % 2 == len(question) % 2
            answer = f"A {question}" if is_right else f"other answer {turn}"
        prompt = round(tokens(asked["messages"]) * behaviour.bills)
        limit = asked.get("max_tokens") or asked.get("max_completion_tokens") or 1000
        output = min(len(PIECES.findall(answer)) + behaviour.reasoning, limit)
        cached, written = (prompt // 2, prompt // 4) if behaviour.cached else (0, 0)
        with self.state.lock:
            kind = "batch_" if batch else ""
            for name, count in (
                ("input", prompt), ("output", output), ("cached", cached), ("written", written),
                ("completions", 1),
            ):  # fmt: skip
                self.state.billed[kind + name] += count
            self.state.asked[question] = self.state.asked.get(question, 0) + 1
        usage = {
            "prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output,
            "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
            "completion_tokens_details": {"reasoning_tokens": behaviour.reasoning},
        }  # fmt: skip
        reason = "content_filter" if "FILTERED-ANSWER" in question else "stop"
        return {
            "id": "chatcmpl-1", "object": "chat.completion", "created": int(time.time()),
            "model": asked["model"], "usage": usage if behaviour.usage else None,
            "choices": [{"index": 0, "finish_reason": reason, "logprobs": None,
                         "message": {"role": "assistant", "content": answer, "refusal": None}}],
        }  # fmt: skip


def shown_file(stored: dict[str, Any]) -> dict[str, Any]:
    found = {
        "id": stored["id"], "object": "file", "bytes": len(stored["content"]),
        "created_at": stored["created_at"], "filename": stored["filename"],
        "purpose": stored["purpose"], "status": stored["_status"],
        "status_details": "line 3 is no JSON" if stored["_status"] == "error" else None,
    }  # fmt: skip
    return {key: value for key, value in found.items() if key != "status" or value is not None}


def shown(job: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in job.items() if not key.startswith("_")}
