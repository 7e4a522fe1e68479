"""What a kill leaves half done, and what a job leaves on disk when it is over; what of it goes.

- cancelled: it cannot go on, so what it would go on from goes; the checkpoints of its epochs are
  models that somebody may use, and stay until they are deleted;
- failed, paused: everything stays, for it can be resumed; of one that failed a month ago, what it
  would go on from goes, and it would begin anew;
- succeeded: the adapter and the epochs' checkpoints stay, each until it is deleted.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import time
from pathlib import Path
from typing import Any

from tuneoff.files import remove_folder
from tuneoff.rundir import ContenderDir
from tuneoff.server import epochs
from tuneoff.server.claims import Claims
from tuneoff.server.store import Store

PART = ".part"
UNKNOWN_SECONDS = 3600
FAILED_SECONDS = 30 * 24 * 3600
OVER = ("cancelled", "failed", "paused", "succeeded")


def clear(store: Store, claims: Claims, job_id: str) -> None:
    """Removes what a job has left, if it is over and nobody works on it any more."""
    row = store.row("jobs", job_id)
    if row is None or not store.job_path(job_id).is_dir() or not claims.take(row["number"]):
        return
    try:
        _clear(store, job_id)
    finally:
        claims.free(row["number"])


def _clear(store: Store, job_id: str) -> None:
    """The same of a job that this process has claimed."""
    (job,) = store.rows("SELECT status, facts FROM jobs WHERE id = ?", job_id)
    if job["status"] not in OVER:
        return
    directory = ContenderDir(store.job_path(job_id))
    epochs.drop_unknown(store, job_id)
    tuned = store.rows("SELECT step FROM tuned WHERE job_id = ?", job_id)
    if job["status"] == "cancelled":
        remove_folder(directory.checkpoints)
        if not tuned:
            remove_folder(directory.path)
    ended = json.loads(job["facts"]).get("finished_at")
    if job["status"] == "failed" and ended and time.time() - ended > FAILED_SECONDS:
        remove_folder(directory.checkpoints)
    if job["status"] in ("cancelled", "succeeded") and {"step": None} not in tuned:
        remove_folder(directory.adapter)


def clear_all(store: Store, claims: Claims) -> None:
    """Does so for every job: a kill may have come in between."""
    jobs: list[dict[str, Any]] = store.rows(
        f"SELECT id FROM jobs WHERE status IN ({', '.join('?' * len(OVER))})", *OVER
    )
    for job in jobs:
        clear(store, claims, job["id"])


def clear_files(store: Store) -> None:
    """Removes what a killed process left in the folder of files: uploads that will never be
    whole, and files that nobody was told of, or that were deleted."""
    folder = store.data_dir / "files"
    known = {row["id"] for row in store.rows("SELECT id FROM files")}
    for file in folder.glob("*"):
        with contextlib.suppress(OSError):  # somebody else is at it
            if file.name.endswith(PART):
                _remove_unheld(file)
            # One that was written just now may become known in a moment.
            elif file.stem not in known and time.time() - file.stat().st_mtime > UNKNOWN_SECONDS:
                file.unlink()


def _remove_unheld(file: Path) -> None:
    with file.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.unlink()
