"""The checkpoints of a job's last epochs.

Each can be requested like any model, during the job and afterwards, until it is deleted. A
checkpoint exists if it has a row; a folder without a row is deleted. So a row is written after its
folder is complete, and removed before it.
"""

from __future__ import annotations

import json
import time
from typing import Any

from tuneoff.records import LossRow
from tuneoff.server import schemas
from tuneoff.server.job import build_model_name
from tuneoff.server.store import Store, generate_id
from tuneoff.storage.files import remove_folder
from tuneoff.storage.run_dir import ContenderDir

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
