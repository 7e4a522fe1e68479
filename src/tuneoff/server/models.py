"""`/v1/models`: the bases that may be tuned, and what was made of them."""

from __future__ import annotations

import shutil
from typing import Any

from fastapi import APIRouter, Request

from tuneoff.server.errors import ApiError, not_found
from tuneoff.server.settings import ServerSettings
from tuneoff.server.store import Store

router = APIRouter(prefix="/v1/models")


@router.get("")
def list_models(request: Request) -> dict[str, Any]:
    """Every model."""
    store: Store = request.app.state.store
    settings: ServerSettings = request.app.state.settings
    tuned = store.rows("SELECT * FROM models ORDER BY number")
    data = [_base(name) for name in settings.bases]
    data += [_tuned(row, settings.organization) for row in tuned]
    return {"object": "list", "data": data}


@router.get("/{id:path}")
def retrieve(request: Request, id: str) -> dict[str, Any]:
    """One model."""
    settings: ServerSettings = request.app.state.settings
    if id in settings.bases:
        return _base(id)
    return _tuned(_known(request, id), settings.organization)


@router.delete("/{id:path}")
def delete(request: Request, id: str) -> dict[str, Any]:
    """Deletes a tuned model with its weights."""
    if id in request.app.state.settings.bases:
        raise ApiError(
            403, f"{id} is a base; only tuned models can be deleted.", "model", "forbidden"
        )
    store: Store = request.app.state.store
    row = _known(request, id)
    with store.transaction() as connection:
        connection.execute("DELETE FROM models WHERE id = ?", (row["id"],))
    for name in ("adapter", "model"):
        shutil.rmtree(store.job_path(row["job_id"]) / name, ignore_errors=True)
    return {"id": row["id"], "object": "model", "deleted": True}


def _known(request: Request, id: str) -> dict[str, Any]:
    row: dict[str, Any] | None = request.app.state.store.row("models", id)
    if row is None:
        raise not_found("model", id, "model")
    return row


def _base(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "tuneoff"}


def _tuned(row: dict[str, Any], organization: str) -> dict[str, Any]:
    return {
        "id": row["id"],
        "object": "model",
        "created": row["created_at"],
        "owned_by": organization,
    }
