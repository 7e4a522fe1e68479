"""The routes `/v1/batches`: files of chat requests that are answered in the background.

`server/batch_worker.py` answers them; the two communicate only through the store.
"""

from __future__ import annotations

import json
import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from tuneoff.server import schemas
from tuneoff.server.errors import ApiError, build_not_found
from tuneoff.server.json_body import JsonRoute
from tuneoff.server.request_schemas import Text
from tuneoff.server.store import BATCH, Store, generate_id

router = APIRouter(
    prefix="/v1/batches", responses=schemas.describe_errors(404), route_class=JsonRoute
)
UNFINISHED = ("validating", "in_progress", "finalizing", "cancelling")
ENDPOINT = "/v1/chat/completions"
DAY_SECONDS = 24 * 3600
TIMESTAMPS = (
    "in_progress_at", "finalizing_at", "completed_at", "failed_at", "expired_at", "cancelling_at",
    "cancelled_at",
)  # fmt: skip


class BatchCreate(BaseModel):
    """The body of a request for a batch."""

    model_config = ConfigDict(extra="forbid")

    input_file_id: Text
    endpoint: Literal["/v1/chat/completions"]
    completion_window: Literal["24h"]
    metadata: (
        dict[Annotated[Text, Field(max_length=64)], Annotated[Text, Field(max_length=512)]] | None
    ) = Field(default=None, max_length=16)
    output_expires_after: None = None


@router.post("")
def create(request: Request, body: BatchCreate) -> schemas.Batch:
    """Create a batch. It is on disk before the response is sent."""
    store: Store = request.app.state.store
    id, now = generate_id("batch"), int(time.time())
    facts = {"input_file_id": body.input_file_id, "metadata": body.metadata,
             "expires_at": now + DAY_SECONDS}  # fmt: skip
    # The file cannot be deleted while this transaction is open.
    with store.transaction() as connection:
        file = store.row("files", body.input_file_id)
        if file is None or file["purpose"] != BATCH:
            raise ApiError(
                400, f"input_file_id {body.input_file_id[:100]!r} is no uploaded file with the "
                f"purpose {BATCH}.", "input_file_id", "invalid_input_file",
            )  # fmt: skip
        connection.execute(
            "INSERT INTO batches (id, created_at, status, facts) VALUES (?, ?, 'validating', ?)",
            (id, now, json.dumps(facts)),
        )
    return retrieve(request, id)


@router.get("")
def list_batches(
    request: Request,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> schemas.BatchList:
    """List batches, the newest first."""
    page = request.app.state.store.page("batches", after, limit)
    if page is None:
        raise build_not_found("batch", after or "", "after")
    rows, more = page
    return {
        "object": "list",
        "data": [render_batch(row) for row in rows],
        "has_more": more,
        "first_id": rows[0]["id"] if rows else None,
        "last_id": rows[-1]["id"] if rows else None,
    }


@router.get("/{id}")
def retrieve(request: Request, id: str) -> schemas.Batch:
    """Return a batch."""
    return render_batch(_get_batch(request, id))


@router.post("/{id}/cancel")
def cancel(request: Request, id: str) -> schemas.Batch:
    """Cancel a batch; the answers so far are kept."""
    row, store = _get_batch(request, id), request.app.state.store
    changed = store.change_batch(
        row["id"], "cancelling", only_from=("validating", "in_progress"),
        cancelling_at=int(time.time()),
    )  # fmt: skip
    if not changed:
        current = retrieve(request, id)["status"]
        raise ApiError(
            400, f"Batch {row['id']} is {current}; it can be cancelled while it is validating or "
            "in_progress.", None, "invalid_batch_state",
        )  # fmt: skip
    return retrieve(request, id)


def render_batch(row: dict[str, Any]) -> schemas.Batch:
    """Return a stored batch as the API shows it."""
    facts = json.loads(row["facts"])
    counts = facts.get("counts", {})
    shown: Any = {
        "id": row["id"],
        "object": "batch",
        "endpoint": ENDPOINT,
        "model": None,
        "errors": {"object": "list", "data": facts["errors"]} if facts.get("errors") else None,
        "input_file_id": facts["input_file_id"],
        "completion_window": "24h",
        "status": row["status"],
        "output_file_id": facts.get("output_file_id"),
        "error_file_id": facts.get("error_file_id"),
        "created_at": row["created_at"],
        "expires_at": facts["expires_at"],
        **{name: facts.get(name) for name in TIMESTAMPS},
        "request_counts": {n: counts.get(n, 0) for n in ("total", "completed", "failed")},
        "usage": facts.get("usage"),
        "metadata": facts["metadata"],
    }
    batch: schemas.Batch = shown
    return batch


def _get_batch(request: Request, id: str) -> dict[str, Any]:
    """Return the row of a batch.

    Raises:
        ApiError: there is none.
    """
    row: dict[str, Any] | None = request.app.state.store.row("batches", id)
    if row is None:
        raise build_not_found("batch", id, "batch_id")
    return row
