"""Answers batches one after another, beside live requests.

Each answer is appended to a file in the batch's folder as soon as it is there, so a server that was
killed continues with the missing ones. When all requests are answered, or the batch is cancelled or
expires, the folder's two files become files that clients can read.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import shutil
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import State

from tuneoff.server.errors import ApiError, build_invalid_value, build_server_error
from tuneoff.server.request_schemas import ChatCreate
from tuneoff.server.routes import chat
from tuneoff.server.routes.batches import ENDPOINT, UNFINISHED
from tuneoff.server.store import BATCH, BATCH_LOCK, BATCH_OUTPUT, JobLocks, Store, generate_id
from tuneoff.storage.files import append_lines, read_lines, remove_folder

# Requests in flight at a time: enough to fill the engine. Live requests wait for no more than
# these.
MAX_IN_FLIGHT = 16
POLL_SECONDS, REPORT_SECONDS, BUSY_SECONDS, RETRY_SECONDS = 0.2, 0.5, 1.0, 30.0
MAX_REQUESTS, MAX_ERRORS, MAX_LINE_BYTES = 50_000, 20, 8 * 1024**2
OUTPUT, ERRORS = "output.jsonl", "errors.jsonl"


@dataclass
class _BatchClient:
    """A client for the routes that answer: it never disconnects."""

    app: FastAPI
    state: State = field(default_factory=State)

    async def is_disconnected(self) -> bool:
        return False


@dataclass
class _BatchProgress:
    """How far a batch is: the answered ids and the counts that clients see."""

    done: set[str] = field(default_factory=set)
    completed: int = 0
    failed: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    def add(self, row: dict[str, Any]) -> None:
        """Count one answered request."""
        self.done.add(row["custom_id"])
        if row["response"]["status_code"] != 200:
            self.failed += 1
        else:
            self.completed += 1
            usage = row["response"]["body"]["usage"]
            self.tokens_in += usage["prompt_tokens"]
            self.tokens_out += usage["completion_tokens"]

    def full(self, facts: dict[str, Any]) -> bool:
        """Return whether every request is answered."""
        return len(self.done) >= int(facts["counts"]["total"])

    def facts(self, total: int) -> dict[str, Any]:
        """Return the counts and the usage as they are stored."""
        usage = {
            "input_tokens": self.tokens_in,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": self.tokens_out,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self.tokens_in + self.tokens_out,
        }
        counts = {"total": total, "completed": self.completed, "failed": self.failed}
        return {"counts": counts, "usage": usage}


async def answer_batches(app: FastAPI) -> None:
    """Answer batches until cancelled."""
    store: Store = app.state.store
    claims: JobLocks = app.state.claims
    log = logging.getLogger(__name__)
    while True:
        row = None
        try:
            row = await run_in_threadpool(store.oldest_batch, UNFINISHED)
            # Another server on the same data directory may be answering it.
            if row is not None and claims.acquire(BATCH_LOCK):
                await _answer_batch(app, store, row)
                continue
        except Exception as error:  # one failing batch must not block the others
            log.exception("batch %s", row["id"] if row else "(none)")
            is_storage_error = isinstance(error, (OSError, sqlite3.OperationalError))
            if is_storage_error and not isinstance(error, FileNotFoundError):
                # For instance a full disk: the answers so far stay, and the batch continues later.
                await asyncio.sleep(RETRY_SECONDS)
            elif row is not None:
                error_facts = {"code": "server_error", "param": None, "line": None,
                         "message": "The server failed; its log says more."}  # fmt: skip
                try:
                    await run_in_threadpool(_fail_batch, store, row["id"], [error_facts])
                except Exception:
                    log.exception("nor could that be written down")
        await asyncio.sleep(POLL_SECONDS)


async def _answer_batch(app: FastAPI, store: Store, batch: dict[str, Any]) -> None:
    """Validate a batch, answer its requests, and store its result files."""
    facts, id, folder = json.loads(batch["facts"]), batch["id"], store.batch_path(batch["id"])
    requests = store.file_path(facts["input_file_id"], BATCH)
    if batch["status"] == "validating":
        errors, total = await run_in_threadpool(_find_errors, requests)
        if errors:
            await run_in_threadpool(_fail_batch, store, id, errors)
            return
        now = int(time.time())
        counts = {"total": total, "completed": 0, "failed": 0}
        start_batch = partial(store.change_batch, id, "in_progress", only_from=("validating",))
        await run_in_threadpool(start_batch, in_progress_at=now, counts=counts)
    progress, end = await run_in_threadpool(_resume_progress, folder), "cancelled"
    if batch["status"] != "cancelling":  # its requests were perhaps never validated
        end = await _answer_requests(app, store, batch, requests, progress)
    await run_in_threadpool(_finish_batch, store, id, folder, progress, end)


async def _answer_requests(
    app: FastAPI, store: Store, batch: dict[str, Any], requests: Path, progress: _BatchProgress
) -> str:
    """Answer the missing requests, a few at a time; return the batch's final status."""
    folder, tasks, end, last_report = (
        store.batch_path(batch["id"]),
        set[asyncio.Task[None]](),
        None,
        0.0,
    )

    async def one(request: dict[str, Any]) -> None:
        """Answer one request and append the answer to its file."""
        row = await _answer_request(app, request)
        name = OUTPUT if row["response"]["status_code"] == 200 else ERRORS
        append_lines(folder / name, [row])
        progress.add(row)

    try:
        for request in _read_requests(requests):
            if request["custom_id"] in progress.done:
                continue
            if time.monotonic() - last_report > REPORT_SECONDS:
                end = await run_in_threadpool(_report_progress, store, batch["id"], progress)
                last_report = time.monotonic()
            if end is not None:
                break
            tasks.add(asyncio.create_task(one(request)))
            if len(tasks) >= MAX_IN_FLIGHT:
                tasks = await _wait_for_any(tasks)
        while tasks:
            tasks = await _wait_for_any(tasks)
    finally:
        for task in tasks:
            task.cancel()
    return (
        end
        or await run_in_threadpool(_report_progress, store, batch["id"], progress)
        or "completed"
    )


async def _wait_for_any(waiting: set[asyncio.Task[None]]) -> set[asyncio.Task[None]]:
    """Wait until at least one task is done; return the others."""
    done, left = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
    return left


def _report_progress(store: Store, id: str, progress: _BatchProgress) -> str | None:
    """Store a batch's progress for clients; return its final status if it must end now."""
    row = store.row("batches", id)
    if row is None or row["status"] == "cancelling":
        return "cancelled"
    facts = json.loads(row["facts"])
    store.change_batch(id, **progress.facts(facts["counts"]["total"]))
    return "expired" if time.time() > facts["expires_at"] and not progress.full(facts) else None


async def _answer_request(app: FastAPI, request: dict[str, Any]) -> dict[str, Any]:
    """Return a request's line in the result file, with the answer that it would get live."""
    status, body = await _complete_chat(app, request["body"])
    while status == 429:  # live requests fill the server
        await asyncio.sleep(BUSY_SECONDS)
        status, body = await _complete_chat(app, request["body"])
    return {
        "id": f"batch_req_{secrets.token_hex(12)}",
        "custom_id": request["custom_id"],
        "response": {"status_code": status, "request_id": secrets.token_hex(12), "body": body},
        "error": None,
    }


async def _complete_chat(app: FastAPI, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Answer one request; return the HTTP status and the body."""
    client: Any = _BatchClient(app)
    try:
        parsed = ChatCreate.model_validate({**body, "stream": None})
        return 200, await chat.chat(client, parsed)
    except ValidationError as error:
        return 400, {"error": build_invalid_value(error.errors(), 1).body}
    except ApiError as error:
        return error.status, {"error": error.body}
    except Exception as error:  # one failing request must not affect the others
        logging.getLogger(__name__).exception("a request of a batch failed")
        return 500, {"error": build_server_error(error).body}


def _read_requests(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the requests of a batch's file."""
    with path.open("rb") as stream:
        for line in stream:
            if line.strip():
                yield json.loads(line)


def _find_errors(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Validate a file of requests; return its errors by line and the number of requests."""
    errors, seen, number = list[dict[str, Any]](), set[str](), 0
    with path.open("rb") as stream:
        while line := stream.readline(MAX_LINE_BYTES + 1):
            number += 1
            message = _find_line_error(line, seen) if number <= MAX_REQUESTS else (
                f"A batch has at most {MAX_REQUESTS} requests."
            )  # fmt: skip
            if message is not None:
                errors.append({"code": "invalid_request", "message": message, "param": None,
                               "line": number})  # fmt: skip
            if len(errors) == MAX_ERRORS or len(line) > MAX_LINE_BYTES:
                break
            if number > MAX_REQUESTS:
                break
    if number == 0:
        errors.append({"code": "empty_file", "message": "The file is empty.", "param": None,
                       "line": None})  # fmt: skip
    return errors, number


def _find_line_error(line: bytes, seen: set[str]) -> str | None:
    """Return what is wrong with a line; None if it is a valid request."""
    if len(line) > MAX_LINE_BYTES:
        return f"This line is longer than {MAX_LINE_BYTES} bytes."
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        return "This line is no JSON."
    if not isinstance(request, dict):
        return "This line is no JSON object."
    id = request.get("custom_id")
    if not isinstance(id, str) or not id or id in seen:
        return f"custom_id must be a text of its own, got {str(id)[:100]!r}."
    seen.add(id)
    if request.get("method") != "POST" or request.get("url") != ENDPOINT:
        return f"method must be POST and url {ENDPOINT}."
    return None if isinstance(request.get("body"), dict) else "body must be an object."


def _resume_progress(folder: Path) -> _BatchProgress:
    """Return the progress that an earlier process made."""
    progress = _BatchProgress()
    folder.mkdir(parents=True, exist_ok=True)
    for name in (OUTPUT, ERRORS):
        if (folder / name).exists():
            append_lines(folder / name, ())  # this cuts off a line that a kill left incomplete
        for row in read_lines(folder / name):
            progress.add(row)
    return progress


def _count_requests(store: Store, id: str) -> int:
    """Return the number of requests of a validated batch; 0 if it was not validated."""
    row = store.row("batches", id)
    return int(json.loads(row["facts"]).get("counts", {}).get("total", 0)) if row else 0


def _fail_batch(store: Store, id: str, errors: list[dict[str, Any]]) -> None:
    """Mark a batch as failed, with its errors."""
    now = int(time.time())
    store.change_batch(id, "failed", only_from=UNFINISHED, errors=errors, failed_at=now)


def _finish_batch(store: Store, id: str, folder: Path, progress: _BatchProgress, end: str) -> None:
    """Turn the answers into files that clients can read, and end the batch.

    The files are copied first, so a kill in between loses nothing.
    """
    facts: dict[str, Any] = {
        **progress.facts(_count_requests(store, id)),
        f"{end}_at": int(time.time()),
    }
    files = list[tuple[str, str, int]]()
    for name, key in ((OUTPUT, "output_file_id"), (ERRORS, "error_file_id")):
        if (folder / name).exists():
            facts[key] = file = generate_id("file")
            path = store.file_path(file, BATCH_OUTPUT)
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, path)
            with path.open("rb+") as stream:
                os.fsync(stream.fileno())
            files.append((file, f"{id}_{name}", path.stat().st_size))
    with store.transaction() as connection:
        for file, name, size in files:
            store.add_file(file, name, BATCH_OUTPUT, size, None, connection)
        store.change_batch(id, end, only_from=UNFINISHED, connection=connection, **facts)
    remove_folder(folder)
