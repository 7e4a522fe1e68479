"""The fake trainer's batches: files of chat requests, answered and billed when they are looked at
for the last time."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from fake_state import Refusal, State

Completion = Callable[..., Any]


def create(state: State, asked: dict[str, Any], completion: Completion) -> Any:
    """Notes a batch of an uploaded file."""
    time.sleep(state.behaviour.create_seconds)
    with state.lock:
        file = next((f for f in state.files if f["id"] == asked["input_file_id"]), None)
        if file is None:
            raise Refusal(400, f"no file {asked['input_file_id']}", "invalid_file")
        if file["_status"] not in (None, "processed", "uploaded"):
            raise Refusal(400, f"file {file['id']} is {file['_status']}", "invalid_file")
        lines = [json.loads(line) for line in file["content"].decode().splitlines()]
        batch = {
            "id": f"batch-{len(state.batches):04}", "object": "batch", "errors": None,
            "endpoint": asked["endpoint"], "input_file_id": file["id"],
            "completion_window": asked["completion_window"], "created_at": int(time.time()),
            "status": state.behaviour.batch_states[0], "metadata": asked.get("metadata"),
            "output_file_id": None, "error_file_id": None,
            "request_counts": {"total": len(lines), "completed": 0, "failed": 0},
            "_at": time.time(), "_looks": 0, "_lines": lines, "_completion": completion,
        }  # fmt: skip
        state.batches.append(batch)
        return shown(batch)


def look(state: State, id: str, keep: Callable[[str, bytes, str], dict[str, Any]]) -> Any:
    """A batch, one state further than at the look before."""
    with state.lock:
        batch = next((each for each in state.batches if each["id"] == id), None)
        if batch is None:
            raise Refusal(404, f"no batch {id}")
        states = state.behaviour.batch_states
        if not batch.get("_ended"):
            batch["_looks"] += 1
            batch["status"] = states[min(batch["_looks"], len(states) - 1)]
            end = state.behaviour.batch_ends.get(batch["status"], batch["status"])
            if end in ("completed", "failed", "expired", "cancelled"):
                batch["_ended"] = True
                batch[f"{end}_at"] = int(time.time())
            if end == "completed":
                _answer(batch, keep)
        return shown(batch)


def _answer(batch: dict[str, Any], keep: Callable[[str, bytes, str], dict[str, Any]]) -> None:
    """Every request's answer or refusal, in files that come in another order than was asked."""
    answered, refused = [], []
    for number, line in enumerate(reversed(batch["_lines"])):
        row = {"id": f"request-{number}", "custom_id": line["custom_id"], "error": None}
        try:
            body = batch["_completion"](line["body"], batch=True)
        except Refusal as refusal:
            response = {"status_code": refusal.status, "body": {"error": refusal.error}}
            refused.append({**row, "response": response})
        else:
            answered.append({**row, "response": {"status_code": 200, "body": body}})
    for name, rows in (("output", answered), ("error", refused)):
        if rows:
            text = "".join(json.dumps(row) + "\n" for row in rows)
            stored = keep(f"{batch['id']}_{name}.jsonl", text.encode(), "batch_output")
            batch[f"{name}_file_id"] = stored["id"]
    counts = batch["request_counts"]
    counts["completed"], counts["failed"] = len(answered), len(refused)


def shown(batch: dict[str, Any]) -> dict[str, Any]:
    """A batch as the API shows it."""
    return {key: value for key, value in batch.items() if not key.startswith("_")}
