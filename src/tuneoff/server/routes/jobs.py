"""The routes `/v1/fine_tuning/jobs`: create, list and control jobs.

`server/training_worker.py` trains; the two communicate only through the store.
"""

from __future__ import annotations

import json
import secrets
import time
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from tuneoff.server import cleanup, schemas
from tuneoff.server.errors import ApiError, build_not_found
from tuneoff.server.job import ACTIVE_STATES, JobCreate, render_job, resolve_hyperparameters
from tuneoff.server.json_body import JsonRoute
from tuneoff.server.row_lengths import find_long_row
from tuneoff.server.settings import ServerConfig
from tuneoff.server.store import Store, generate_id
from tuneoff.tasks.training_rows import MIN_EXAMPLES

router = APIRouter(
    prefix="/v1/fine_tuning/jobs", responses=schemas.describe_errors(404), route_class=JsonRoute
)
Limit = Annotated[int, Query(ge=1, le=1_000)]
MAX_FILTERS = 16
# FastAPI cannot declare such a parameter; this schema is from the hosted API's own document.
_METADATA_PARAMETER: dict[str, Any] = {
    "name": "metadata",
    "in": "query",
    "style": "deepObject",
    "explode": True,
    "schema": {
        "type": "object",
        "maxProperties": MAX_FILTERS,
        "propertyNames": {"minLength": 1},
        "additionalProperties": {"type": "string"},
    },
}


@router.post("")
def create(request: Request, body: JobCreate) -> schemas.Job:
    """Create a job. It is on disk before the response is sent."""
    store: Store = request.app.state.store
    settings: ServerConfig = request.app.state.settings
    if body.model not in settings.bases:
        allowed = ", ".join(settings.bases)
        raise ApiError(
            400, f"The model {body.model[:100]!r} cannot be tuned here (allowed: {allowed}).",
            "model", "model_not_available",
        )  # fmt: skip
    for name in _find_files(store, body):
        file, kind = getattr(body, name), name.removesuffix("_file")
        problem = find_long_row(store.file_path(file), settings.bases[body.model], kind, body.model)
        if problem is not None:
            raise ApiError(400, problem, name, f"invalid_{name}")
    id = generate_id("ftjob")
    # The files cannot be deleted while this transaction is open.
    with store.transaction() as connection:
        facts = _collect_facts(body, settings, _find_files(store, body))
        (queued,) = connection.execute(
            "SELECT count(*) FROM jobs WHERE status = 'queued'"
        ).fetchone()
        if queued >= settings.max_waiting_jobs:
            raise ApiError(
                429, f"{queued} jobs are waiting already; try again later.", None,
                "rate_limit_exceeded", "requests",
            )  # fmt: skip
        connection.execute(
            "INSERT INTO jobs (id, created_at, status, facts) VALUES (?, ?, 'queued', ?)",
            (id, int(time.time()), json.dumps(facts)),
        )
        for message in (
            f"Created fine-tuning job: {id}",
            f"Validated training file: {body.training_file}",
            "Files validated, moving job to queued state",
        ):
            store.add_event(id, message, connection=connection)
    return retrieve(request, id)


def _find_files(store: Store, body: JobCreate) -> dict[str, dict[str, Any]]:
    """Return the rows of a job's files by parameter name.

    Raises:
        ApiError: a file is unknown, or has too few examples.
    """
    file_ids = {"training_file": body.training_file, "validation_file": body.validation_file}
    files = {
        name: _get_training_file(store, name, id) for name, id in file_ids.items() if id is not None
    }
    examples = files["training_file"]["examples"]
    if examples < MIN_EXAMPLES:
        raise ApiError(
            400, f"The training file has {examples} examples; at least {MIN_EXAMPLES} are needed.",
            "training_file", "invalid_training_file",
        )  # fmt: skip
    return files


def _collect_facts(
    body: JobCreate, settings: ServerConfig, files: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Return the stored facts of a new job."""
    return {
        "model": body.model,
        "base": settings.bases[body.model],
        "organization_id": settings.organization,
        "training_file": body.training_file,
        "validation_file": body.validation_file,
        "suffix": body.suffix,
        "seed": secrets.randbelow(2**31) if body.seed is None else body.seed,
        "metadata": body.metadata,
        "asked": body.asked().model_dump(),
        "today": settings.today.isoformat(),
        "resolved": resolve_hyperparameters(body.asked(), files["training_file"]["examples"]),
    }


@router.get("", openapi_extra={"parameters": [_METADATA_PARAMETER]})
def list_jobs(request: Request, after: str | None = None, limit: Limit = 20) -> schemas.JobList:
    """List jobs, the newest first.

    `metadata[key]=value` selects jobs with this value, `metadata=null` jobs without metadata.
    """
    store: Store = request.app.state.store
    where, values = _parse_filters(request)
    page = store.page("jobs", after, limit, where, values)
    if page is None:
        raise build_not_found("fine-tuning job", after or "", "after")
    rows, more = page
    return {"object": "list", "data": [render_job(row) for row in rows], "has_more": more}


def _parse_filters(request: Request) -> tuple[str, tuple[str, ...]]:
    """Return the query's metadata filters as SQL, with their values."""
    where, values, null = [], list[str](), False
    for name, value in request.query_params.multi_items():
        if name.startswith("metadata[") and name.endswith("]"):
            where.append(
                "EXISTS (SELECT 1 FROM json_each(facts, '$.metadata') WHERE key = ? AND value = ?)"
            )
            values += [name[len("metadata[") : -1], value]
        null |= name == "metadata" and value == "null"
    if any(not key or "][" in key for key in values[::2]):
        raise ApiError(
            400, "A filter is metadata[key]=value, with one key and a text.", "metadata",
            "invalid_value",
        )  # fmt: skip
    if len(where) > MAX_FILTERS:
        raise ApiError(400, f"At most {MAX_FILTERS} filters.", "metadata", "invalid_value")
    if null and where:
        raise ApiError(
            400, "Give metadata=null or metadata[key]=value, not both.", "metadata",
            "invalid_value",
        )  # fmt: skip
    if null:
        where = ["json_extract(facts, '$.metadata') IS NULL"]
    return " AND ".join(where) or "1", tuple(values)


@router.get("/{id}")
def retrieve(request: Request, id: str) -> schemas.Job:
    """Return a job."""
    return render_job(_get_job(request, id))


@router.post("/{id}/cancel")
def cancel(request: Request, id: str) -> schemas.Job:
    """Cancel a job that is unfinished, or that failed and could be resumed.

    A running job stops within a step. Its checkpoints are kept; its resume state is deleted.
    """
    now, state = int(time.time()), request.app.state
    job = _change_job(
        request,
        id,
        (*ACTIVE_STATES, "failed"),
        "cancelled",
        "The job was cancelled",
        finished_at=now,
    )
    cleanup.clean_job(state.store, state.claims, id)
    return job


@router.post("/{id}/pause")
def pause(request: Request, id: str) -> schemas.Job:
    """Pause a job; its last checkpoint is kept."""
    return _change_job(request, id, ("queued", "running"), "paused", "The job was paused")


@router.post("/{id}/resume")
def resume(request: Request, id: str) -> schemas.Job:
    """Queue a paused or failed job again (failed by a full disk, for instance).

    It continues from its last checkpoint.
    """
    return _change_job(
        request, id, ("paused", "failed"), "queued", "The job was resumed",
        error=None, finished_at=None,
    )  # fmt: skip


@router.get("/{id}/events")
def events(
    request: Request, id: str, after: str | None = None, limit: Limit = 20
) -> schemas.EventList:
    """List the events of a job, the newest first."""
    store: Store = request.app.state.store
    page = store.page("events", after, limit, "job_id = ?", (_get_job(request, id)["id"],))
    if page is None:
        raise build_not_found("event", after or "", "after")
    rows, more = page
    data: list[schemas.Event] = [
        {
            "id": row["id"],
            "object": "fine_tuning.job.event",
            "created_at": row["created_at"],
            "level": row["level"],
            "message": row["message"],
            "type": row["type"],
            "data": json.loads(row["data"]) if row["data"] else {},
        }
        for row in rows
    ]
    return {"object": "list", "data": data, "has_more": more}


@router.get("/{id}/checkpoints")
def checkpoints(
    request: Request, id: str, after: str | None = None, limit: Limit = 10
) -> schemas.CheckpointList:
    """List the checkpoints of a job's last epochs, the newest first."""
    store: Store = request.app.state.store
    page = store.page("checkpoints", after, limit, "job_id = ?", (_get_job(request, id)["id"],))
    if page is None:
        raise build_not_found("checkpoint", after or "", "after")
    rows, more = page
    return {
        "object": "list",
        "data": [cleanup.render_checkpoint(row) for row in rows],
        "has_more": more,
        "first_id": rows[0]["id"] if rows else None,
        "last_id": rows[-1]["id"] if rows else None,
    }


def _change_job(
    request: Request, id: str, only_from: tuple[str, ...], status: str, event: str, **facts: Any
) -> schemas.Job:
    """Change a job's status and return the job.

    Raises:
        ApiError: there is none, or its status does not allow this change.
    """
    row = _get_job(request, id)
    if not request.app.state.store.change_job(
        row["id"], status, only_from=only_from, event=event, **facts
    ):
        current = retrieve(request, id)["status"]
        raise ApiError(
            400, f"Job {row['id']} is {current}; this needs one that is {' or '.join(only_from)}.",
            None, "invalid_job_state",
        )  # fmt: skip
    return retrieve(request, id)


def _get_training_file(store: Store, name: str, id: str) -> dict[str, Any]:
    """Return the row of an uploaded training file.

    Raises:
        ApiError: there is none with this purpose.
    """
    row = store.row("files", id)
    if row is None or row["examples"] is None:
        raise ApiError(
            400, f"{name} {id[:100]!r} is no uploaded file with the purpose fine-tune.", name,
            f"invalid_{name}",
        )  # fmt: skip
    return row


def _get_job(request: Request, id: str) -> dict[str, Any]:
    """Return the row of a job.

    Raises:
        ApiError: there is none.
    """
    row: dict[str, Any] | None = request.app.state.store.row("jobs", id)
    if row is None:
        raise build_not_found("fine-tuning job", id, "fine_tuning_job_id")
    return row
