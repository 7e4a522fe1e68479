"""Deletes what jobs and killed processes leave on disk.

- cancelled: the job cannot continue, so its resume state is deleted. Its epochs' checkpoints are
  models that may be in use, and stay until they are deleted.
- failed, paused: everything stays, because the job can be resumed. A month after a failure the
  resume state is deleted; the job would then start again.
- succeeded: the adapter and the epochs' checkpoints stay, each until it is deleted.

The checkpoints of a job's last epochs can each be requested like any model, during the job and
afterwards, until it is deleted. A checkpoint exists if it has a row; a folder without a row is
deleted. So a row is written after its folder is complete, and removed before it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import time
from pathlib import Path
from typing import Any

from tuneoff.records import LossRow
from tuneoff.server import schemas
from tuneoff.server.job import build_model_name
from tuneoff.server.store import JobLocks, Store, generate_id
from tuneoff.storage.files import remove_folder
from tuneoff.storage.run_dir import ContenderDir

PART_SUFFIX = ".part"
UNKNOWN_FILE_SECONDS = 3600
FAILED_JOB_SECONDS = 30 * 24 * 3600
INACTIVE_STATES = ("cancelled", "failed", "paused", "succeeded")


def clean_job(store: Store, claims: JobLocks, job_id: str) -> None:
    """Delete what a finished job has left, unless a process works on it."""
    row = store.row("jobs", job_id)
    if row is None or not store.job_path(job_id).is_dir() or not claims.acquire(row["number"]):
        return
    try:
        _clean_locked_job(store, job_id)
    finally:
        claims.release(row["number"])


def _clean_locked_job(store: Store, job_id: str) -> None:
    """Delete what a job has left; this process must hold its lock."""
    (job,) = store.rows("SELECT status, facts FROM jobs WHERE id = ?", job_id)
    if job["status"] not in INACTIVE_STATES:
        return
    contender_dir = ContenderDir(store.job_path(job_id))
    drop_unknown_checkpoints(store, job_id)
    kept_models = store.rows("SELECT step FROM tuned WHERE job_id = ?", job_id)
    if job["status"] == "cancelled":
        remove_folder(contender_dir.checkpoints)
        if not kept_models:
            remove_folder(contender_dir.path)
    finished_at = json.loads(job["facts"]).get("finished_at")
    if job["status"] == "failed" and finished_at and time.time() - finished_at > FAILED_JOB_SECONDS:
        remove_folder(contender_dir.checkpoints)
    if job["status"] in ("cancelled", "succeeded") and {"step": None} not in kept_models:
        remove_folder(contender_dir.adapter)


def clean_all_jobs(store: Store, claims: JobLocks) -> None:
    """Clear every job, because a kill may have prevented that."""
    jobs: list[dict[str, Any]] = store.rows(
        f"SELECT id FROM jobs WHERE status IN ({', '.join('?' * len(INACTIVE_STATES))})",
        *INACTIVE_STATES,
    )
    for job in jobs:
        clean_job(store, claims, job["id"])


def clean_files(store: Store) -> None:
    """Delete what a killed process left among the files.

    These are incomplete uploads, and files without a row: never announced, or deleted.
    """
    folder = store.data_dir / "files"
    known = {row["id"] for row in store.rows("SELECT id FROM files")}
    for file in folder.glob("*"):
        with contextlib.suppress(OSError):  # another process is using or deleting it
            if file.name.endswith(PART_SUFFIX):
                _remove_unlocked(file)
            # A file that was just written may get its row in a moment.
            elif (
                file.stem not in known and time.time() - file.stat().st_mtime > UNKNOWN_FILE_SECONDS
            ):
                file.unlink()


def _remove_unlocked(file: Path) -> None:
    """Delete a file unless another process holds its lock."""
    with file.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.unlink()


# Checkpoints kept for a job; the hosted API keeps as many.
MAX_CHECKPOINTS = 3


def add_checkpoint(store: Store, job_id: str, facts: dict[str, Any], loss: LossRow) -> None:
    """Record the checkpoint of an epoch's end, once, and drop the older ones.

    Args:
        loss: the losses at that step.
    """
    name = build_model_name(facts["model"], facts["organization_id"], facts["suffix"], job_id)
    name = f"{name}:ckpt-step-{loss.step}"
    validation = loss.validation if facts["validation_file"] else None
    metrics: schemas.CheckpointMetrics = {
        "step": loss.step,
        "train_loss": loss.train,
        "valid_loss": validation,
        "full_valid_loss": validation,
    }
    with store.transaction() as connection:
        added = connection.execute(
            "INSERT OR IGNORE INTO checkpoints (id, created_at, model, base, job_id, step, metrics)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (generate_id("ftckpt"), int(time.time()), name, facts["model"], job_id, loss.step,
             json.dumps(metrics)),
        )  # fmt: skip
        if added.rowcount:
            text = f"Checkpoint created at step {loss.step}: {name}"
            store.add_event(job_id, text, connection=connection)
        connection.execute(
            "DELETE FROM checkpoints WHERE job_id = ?1 AND number NOT IN "
            "(SELECT number FROM checkpoints WHERE job_id = ?1 ORDER BY number DESC LIMIT ?2)",
            (job_id, MAX_CHECKPOINTS),
        )
    drop_unknown_checkpoints(store, job_id)


def drop_unknown_checkpoints(store: Store, job_id: str) -> None:
    """Delete the weights of checkpoints that were replaced or deleted."""
    directory = ContenderDir(store.job_path(job_id))
    rows = store.rows("SELECT step FROM checkpoints WHERE job_id = ?", job_id)
    known = {directory.epoch(row["step"]) for row in rows}
    for folder in directory.epochs.glob("*"):
        if folder not in known:
            remove_folder(folder)


def render_checkpoint(row: dict[str, Any]) -> schemas.Checkpoint:
    """Return a stored checkpoint as the API shows it."""
    return {
        "id": row["id"],
        "object": "fine_tuning.job.checkpoint",
        "created_at": row["created_at"],
        "fine_tuned_model_checkpoint": row["model"],
        "fine_tuning_job_id": row["job_id"],
        "step_number": row["step"],
        "metrics": json.loads(row["metrics"]),
    }
