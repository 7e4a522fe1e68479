"""`/v1/files`: uploads, streamed to disk and checked on the way; result files."""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Query, Request, UploadFile
from fastapi.responses import FileResponse

from tuneoff.server.errors import ApiError, not_found
from tuneoff.server.job import ACTIVE
from tuneoff.server.settings import ServerSettings
from tuneoff.server.store import FINE_TUNE, Store, new_id
from tuneoff.server.training_file import LineCheck

router = APIRouter(prefix="/v1/files")
CHUNK_BYTES = 1024**2
MAX_NAME = 255
_NEEDING = (
    "SELECT id FROM jobs WHERE ?1 IN (json_extract(facts, '$.training_file'), "
    f"json_extract(facts, '$.validation_file')) AND status IN ({', '.join('?' * len(ACTIVE))})"
)


@router.post("")
def create(request: Request, file: UploadFile, purpose: Annotated[str, Form()]) -> dict[str, Any]:
    """Stores an upload, or refuses it with the number of the line that is wrong."""
    store: Store = request.app.state.store
    settings: ServerSettings = request.app.state.settings
    if purpose != FINE_TUNE:
        raise ApiError(
            400, f"purpose {purpose[:100]!r} is not supported (allowed: {FINE_TUNE})", "purpose",
            "invalid_value",
        )  # fmt: skip
    id, check, size = new_id("file"), LineCheck(), 0
    path = store.file_path(id)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{id}.part")
    try:
        with beside.open("wb") as stream:
            while chunk := file.file.read(CHUNK_BYTES):
                size += len(chunk)
                if size > settings.max_file_bytes:
                    raise ApiError(
                        413, f"The file is larger than {settings.max_file_bytes} bytes.", "file",
                        "file_too_large",
                    )  # fmt: skip
                check.feed(chunk)
                stream.write(chunk)
            check.finish()
            stream.flush()
            os.fsync(stream.fileno())
        beside.rename(path)
    finally:
        beside.unlink(missing_ok=True)
    name = "".join(c for c in file.filename or "upload.jsonl" if c.isprintable())[:MAX_NAME]
    store.add_file(id, name, purpose, size, check.examples)
    return retrieve(request, id)


@router.get("")
def list_files(
    request: Request,
    purpose: str | None = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Literal["asc", "desc"] = "desc",
    after: str | None = None,
) -> dict[str, Any]:
    """Files, the newest first unless asked otherwise."""
    store: Store = request.app.state.store
    where, values = ("purpose = ?", (purpose,)) if purpose is not None else ("1", ())
    page = store.page("files", after, limit, where, values, order == "asc")
    if page is None:
        raise not_found("file", after or "", "after")
    rows, more = page
    data = [_shown(row) for row in rows]
    ids = [row["id"] for row in rows]
    return {
        "object": "list",
        "data": data,
        "has_more": more,
        "first_id": ids[0] if ids else None,
        "last_id": ids[-1] if ids else None,
    }


@router.get("/{id}")
def retrieve(request: Request, id: str) -> dict[str, Any]:
    """What is known about a file."""
    return _shown(_known(request, id))


@router.get("/{id}/content")
def content(request: Request, id: str) -> FileResponse:
    """A file as it came."""
    row = _known(request, id)
    path = request.app.state.store.file_path(row["id"], row["purpose"])
    return FileResponse(path, media_type="application/octet-stream")


@router.delete("/{id}")
def delete(request: Request, id: str) -> dict[str, Any]:
    """Deletes a file that no unfinished job needs."""
    store: Store = request.app.state.store
    row = _known(request, id)
    with store.transaction() as connection:
        waiting = connection.execute(_NEEDING, (row["id"], *ACTIVE)).fetchone()
        if waiting is not None:
            raise ApiError(
                400, f"Job {waiting['id']} still needs this file; cancel it first.", "file_id",
                "file_in_use",
            )  # fmt: skip
        connection.execute("DELETE FROM files WHERE id = ?", (row["id"],))
    store.file_path(row["id"], row["purpose"]).unlink(missing_ok=True)
    return {"id": row["id"], "object": "file", "deleted": True}


def _known(request: Request, id: str) -> dict[str, Any]:
    row: dict[str, Any] | None = request.app.state.store.row("files", id)
    if row is None:
        raise not_found("file", id, "file_id")
    return row


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": row["id"],
        "object": "file",
        "bytes": row["bytes"],
        "created_at": row["created_at"],
        "filename": row["filename"],
        "purpose": row["purpose"],
        "status": "processed",
        "status_details": None,
        "expires_at": None,
    }
