"""Deletes what jobs and killed processes leave on disk.

- cancelled: the job cannot continue, so its resume state is deleted. Its epochs' checkpoints are
  models that may be in use, and stay until they are deleted.
- failed, paused: everything stays, because the job can be resumed. A month after a failure the
  resume state is deleted; the job would then start again.
- succeeded: the adapter and the epochs' checkpoints stay, each until it is deleted.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import time
from pathlib import Path
from typing import Any

from tuneoff.server import epochs
from tuneoff.server.claims import JobLocks
from tuneoff.server.store import Store
from tuneoff.storage.files import remove_folder
from tuneoff.storage.run_dir import ContenderDir

PART_SUFFIX = ".part"
UNKNOWN_FILE_SECONDS = 3600
FAILED_JOB_SECONDS = 30 * 24 * 3600
INACTIVE_STATES = ("cancelled", "failed", "paused", "succeeded")


def clean_job(store: Store, claims: JobLocks, job_id: str) -> None:
    """Delete what a finished job has left, unless a process works on it."""
    row = store.row("jobs", job_id)
    if row is None or not store.job_path(job_id).is_dir() or not claims.take(row["number"]):
        return
    try:
        _clean_locked_job(store, job_id)
    finally:
        claims.free(row["number"])


def _clean_locked_job(store: Store, job_id: str) -> None:
    """Delete what a job has left; this process must hold its lock."""
    (job,) = store.rows("SELECT status, facts FROM jobs WHERE id = ?", job_id)
    if job["status"] not in INACTIVE_STATES:
        return
    contender_dir = ContenderDir(store.job_path(job_id))
    epochs.drop_unknown_checkpoints(store, job_id)
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
