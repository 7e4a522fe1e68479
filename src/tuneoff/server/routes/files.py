"""The routes `/v1/files`: uploads, streamed to disk and validated on the way, and result files."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from tuneoff.server import cleanup, schemas
from tuneoff.server.errors import ApiError, build_not_found
from tuneoff.server.job import ACTIVE_STATES
from tuneoff.server.routes.batches import UNFINISHED
from tuneoff.server.settings import ServerConfig
from tuneoff.server.store import BATCH, FINE_TUNE, Store, generate_id
from tuneoff.server.uploads import TrainingFileValidator, UploadForm

router = APIRouter(prefix="/v1/files", responses=schemas.describe_errors(404))
CHUNK_BYTES = 64 * 1024
PURPOSES, PREVIEW_BYTES = (FINE_TUNE, BATCH), 4096
# The body is read by hand, so its schema is written by hand.
_CONTENT_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    }
}
_UPLOAD_SCHEMA: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file", "purpose"],
                "additionalProperties": False,
                "properties": {
                    "file": {"type": "string", "format": "binary"},
                    "purpose": {"type": "string", "enum": list(PURPOSES)},
                },
            }
        }
    },
}
_BATCH_USING_FILE = (
    "SELECT id FROM batches WHERE ? = json_extract(facts, '$.input_file_id') "
    f"AND status IN ({', '.join('?' * len(UNFINISHED))})"
)
_JOB_USING_FILE = (
    "SELECT id FROM jobs WHERE ?1 IN (json_extract(facts, '$.training_file'), "
    "json_extract(facts, '$.validation_file')) AND status IN "
    f"({', '.join('?' * len(ACTIVE_STATES))})"
)


@router.post("", openapi_extra={"requestBody": _UPLOAD_SCHEMA})
async def create(request: Request) -> schemas.File:
    """Store an upload; an invalid one is refused with the number of the invalid line."""
    store: Store = request.app.state.store
    settings: ServerConfig = request.app.state.settings
    with PendingUpload(store, settings.max_file_bytes) as incoming:
        content_type = request.headers.get("content-type", "")
        form = UploadForm(content_type, incoming.take, incoming.told)
        async for chunk in request.stream():
            await run_in_threadpool(form.feed, chunk)
        form.finish()
        id = await run_in_threadpool(incoming.keep, form.filename)
    return await run_in_threadpool(retrieve, request, id)


class PendingUpload:
    """An upload in progress. It is written to a temporary file, which is renamed when complete and
    valid and deleted otherwise."""

    def __init__(self, store: Store, most: int) -> None:
        self._store, self._most = store, most
        self._id, self._check, self._size = generate_id("file"), TrainingFileValidator(), 0
        self._purpose: str | None = None
        self._wrong: ApiError | None = None
        self._begins = b""
        self._path = store.file_path(self._id)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._beside = self._path.with_name(f".{self._id}{cleanup.PART_SUFFIX}")

    def __enter__(self) -> PendingUpload:
        """Open the temporary file."""
        self._stream = self._beside.open("wb")
        # The lock lives as long as this process; a file without a lock was left by a killed one.
        fcntl.flock(self._stream, fcntl.LOCK_EX)
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._beside.unlink(missing_ok=True)

    def told(self, purpose: str) -> None:
        """Take the purpose, which may arrive after the file.

        Raises:
            ApiError: the purpose is unknown, or the file so far does not fit it.
        """
        if purpose not in PURPOSES:
            raise ApiError(
                400, f"purpose {purpose[:100]!r} is not supported (allowed: "
                f"{', '.join(PURPOSES)})", "purpose", "invalid_value",
            )  # fmt: skip
        self._purpose = purpose
        if purpose == FINE_TUNE and self._wrong is not None:
            raise self._wrong

    def take(self, data: bytes) -> None:
        """Take more bytes of the file.

        Raises:
            ApiError: the file is too large, or a line is not a training example.
        """
        self._size += len(data)
        if self._size > self._most:
            raise ApiError(
                413, f"The file is larger than {self._most} bytes.", "file", "file_too_large"
            )
        if len(self._begins) < PREVIEW_BYTES:
            self._begins += data[:PREVIEW_BYTES]
        self._examine(partial(self._check.feed, data))
        self._stream.write(data)

    def _examine(self, examine: Callable[[], None]) -> None:
        """Run a check of training examples, unless the file holds a batch's requests.

        Those are validated when the batch starts. While the purpose is unknown, an error in
        something that looks like requests is kept until the purpose arrives.
        """
        if self._purpose == BATCH or self._wrong is not None:
            return
        try:
            examine()
        except ApiError as error:
            if self._purpose is not None or b'"custom_id"' not in self._begins:
                raise
            self._wrong = error

    def keep(self, filename: str) -> str:
        """Finish the upload, put the file in place durably, and return its id.

        Raises:
            ApiError: the file holds no example, or ends inside one.
        """
        self._examine(self._check.finish)
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._beside.rename(self._path)
        examples = self._check.examples if self._purpose == FINE_TUNE else None
        self._store.add_file(self._id, filename, self._purpose or "", self._size, examples)
        return self._id


@router.get("")
def list_files(
    request: Request,
    purpose: str | None = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Literal["asc", "desc"] = "desc",
    after: str | None = None,
) -> schemas.FileList:
    """List files, the newest first unless requested otherwise."""
    store: Store = request.app.state.store
    where, values = ("purpose = ?", (purpose,)) if purpose is not None else ("1", ())
    page = store.page("files", after, limit, where, values, order == "asc")
    if page is None:
        raise build_not_found("file", after or "", "after")
    rows, more = page
    data = [_render_file(row) for row in rows]
    ids = [row["id"] for row in rows]
    return {
        "object": "list",
        "data": data,
        "has_more": more,
        "first_id": ids[0] if ids else None,
        "last_id": ids[-1] if ids else None,
    }


@router.get("/{id}")
def retrieve(request: Request, id: str) -> schemas.File:
    """Return the description of a file."""
    return _render_file(_get_file(request, id))


@router.get("/{id}/content", response_class=StreamingResponse, responses=_CONTENT_RESPONSES)
def content(request: Request, id: str) -> StreamingResponse:
    """Return a file as it was uploaded."""
    row = _get_file(request, id)
    try:  # opened here, so deleting the file now does not cut this response
        stream = request.app.state.store.file_path(row["id"], row["purpose"]).open("rb")
    except FileNotFoundError:
        raise build_not_found("file", id, "file_id") from None

    def chunks() -> Iterator[bytes]:
        """Yield the file's bytes."""
        with stream:
            while chunk := stream.read(CHUNK_BYTES):
                yield chunk

    length = os.fstat(stream.fileno()).st_size
    return StreamingResponse(
        chunks(), media_type="application/octet-stream", headers={"Content-Length": str(length)}
    )


@router.delete("/{id}")
def delete(request: Request, id: str) -> schemas.Deleted:
    """Delete a file that no unfinished job or batch needs."""
    store: Store = request.app.state.store
    row = _get_file(request, id)
    with store.transaction() as connection:
        user = connection.execute(_JOB_USING_FILE, (row["id"], *ACTIVE_STATES)).fetchone()
        kind = "Job"
        if user is None:
            kind = "Batch"
            user = connection.execute(_BATCH_USING_FILE, (row["id"], *UNFINISHED)).fetchone()
        if user is not None:
            raise ApiError(
                400, f"{kind} {user['id']} still needs this file; cancel it first.", "file_id",
                "file_in_use",
            )  # fmt: skip
        connection.execute("DELETE FROM files WHERE id = ?", (row["id"],))
    store.file_path(row["id"], row["purpose"]).unlink(missing_ok=True)
    return {"id": row["id"], "object": "file", "deleted": True}


def _get_file(request: Request, id: str) -> dict[str, Any]:
    """Return the row of a file.

    Raises:
        ApiError: there is none.
    """
    row: dict[str, Any] | None = request.app.state.store.row("files", id)
    if row is None:
        raise build_not_found("file", id, "file_id")
    return row


def _render_file(row: dict[str, Any]) -> schemas.File:
    """Return a stored file as the API shows it."""
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
