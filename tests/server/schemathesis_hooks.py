"""Lets schemathesis get past 404: half of its well-formed requests name things that exist, and
none asks for a long answer."""

from __future__ import annotations

import os
from typing import Any

import schemathesis
from hypothesis import strategies as st
from schemathesis.generation import GenerationMode

FILE, JOB, MODEL, BATCH = (
    os.environ[f"TUNEOFF_TEST_{name}"] for name in ("FILE", "JOB", "MODEL", "BATCH")
)
KNOWN = {
    "/v1/files/{id}": FILE, "/v1/fine_tuning/jobs/{id}": JOB, "/v1/models/{id}": MODEL,
    "/v1/batches/{id}": BATCH,
}  # fmt: skip
GOOD = b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
calls = 0
schemathesis.openapi.format("binary", st.sampled_from([GOOD * 10, GOOD, b"", b"\xff\0"]))


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    global calls
    if case.meta is None or case.meta.generation.mode is not GenerationMode.POSITIVE:
        return
    calls += 1
    path, body = case.operation.path, case.body
    if calls % 2 and case.path_parameters and case.method != "DELETE":
        case.path_parameters["id"] = next(
            id for start, id in KNOWN.items() if path.startswith(start)
        )
    if not isinstance(body, dict) or "model" not in body:
        return
    if "messages" in body or "prompt" in body:
        body["max_tokens"] = 3
        body.pop("max_completion_tokens", None)
    if calls % 2:
        body["model"] = MODEL
        if "training_file" in body:
            body.update(training_file=FILE, validation_file=None)
