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
    data = [_base(name) for name in _ready(settings)]
    data += [_tuned(row, settings.organization) for row in tuned]
    return {"object": "list", "data": data}


@router.get("/{id:path}")
def retrieve(request: Request, id: str) -> dict[str, Any]:
    """One model."""
    settings: ServerSettings = request.app.state.settings
    if id in _ready(settings):
        return _base(id)
    return _tuned(_known(request, id), settings.organization)


@router.delete("/{id:path}")
def delete(request: Request, id: str) -> dict[str, Any]:
    """Deletes a tuned model with its weights."""
    if id in _ready(request.app.state.settings):
        raise ApiError(
            403, f"{id} was not tuned by a job here; only such models can be deleted.", "model",
            "forbidden",
        )  # fmt: skip
    store: Store = request.app.state.store
    row = _known(request, id)
    with store.transaction() as connection:
        connection.execute("DELETE FROM models WHERE id = ?", (row["id"],))
    for name in ("adapter", "model"):
        shutil.rmtree(store.job_path(row["job_id"]) / name, ignore_errors=True)
    return {"id": row["id"], "object": "model", "deleted": True}


def _ready(settings: ServerSettings) -> list[str]:
    """The names of bases and of what is served from a run."""
    return [*settings.bases, *(each.name for each in settings.served)]


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
