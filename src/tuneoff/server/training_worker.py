"""A training process: `python -m tuneoff.server.training_worker DATA_DIR BASES ORGANIZATION PARENT
WORKERS`.

It claims a job that was running when its worker ended, or else the oldest queued one. A lock
(`server/store.py`) ensures that no other process has the job. A job continues from its last
checkpoint. Clients control a job through its status in the store: when that is no longer `running`,
the training stops within a step. The process ends when its parent does.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import os
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from tuneoff.errors import DataError
from tuneoff.models.head import ignore_tie_warnings
from tuneoff.prompts import CHAT_PASS_THROUGH
from tuneoff.records import TrainingRecord
from tuneoff.server import cleanup
from tuneoff.server.job import build_contender_config, build_model_name, format_base_argument
from tuneoff.server.row_lengths import find_long_row
from tuneoff.server.store import RESULTS, JobLocks, Store, generate_id
from tuneoff.storage.files import write_text
from tuneoff.storage.run_dir import ContenderDir
from tuneoff.tasks.chat import read_stored_examples
from tuneoff.tokenization.chat_template import find_job_date

# How often the training process may end, for any reason, without progress in between.
MAX_ATTEMPTS = 20
CHECK_SECONDS = 0.5
CLEANUP_SECONDS = 3600


class _JobStopped(Exception):
    """The job is no longer wanted, or the parent process is gone."""


def main() -> None:
    """Train jobs until the parent process ends."""
    _silence_warnings()
    data_dir, bases, organization = Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]
    store = Store(data_dir)
    parent, max_workers = int(sys.argv[4]), int(sys.argv[5])  # the parent may have ended already
    claims = JobLocks(data_dir)
    cleared = -math.inf
    while os.getppid() == parent:
        if time.monotonic() - cleared > CLEANUP_SECONDS:
            cleanup.clean_all_jobs(store, claims)
            cleared = time.monotonic()
        job = store.claim_job(claims.acquire, max_workers)
        if job is None:
            time.sleep(CHECK_SECONDS)
            continue
        try:
            _run_job(store, job, bases, organization, parent)
        finally:
            claims.release(job["number"])
        # Clear only now: a client that cancels a job cannot clear it while it is claimed.
        cleanup.clean_job(store, claims, job["id"])


def _silence_warnings() -> None:
    """Silence library warnings that users cannot act on."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    ignore_tie_warnings()
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def _run_job(
    store: Store, job: dict[str, Any], bases: dict[str, str], organization: str, parent: int
) -> None:
    """Train a job, and store its result or its error."""
    id, facts = job["id"], json.loads(job["facts"])
    try:
        if job["attempts"] > MAX_ATTEMPTS:
            raise RuntimeError(f"the training process ended {MAX_ATTEMPTS} times")
        if facts["model"] not in bases:
            raise RuntimeError(
                f"the base {facts['model']} is not served any more; start the server with --base "
                f"{format_base_argument(facts)}, and resume the job"
            )
        record = _train_job(store, job, facts, bases[facts["model"]], parent)
    except _JobStopped:
        return
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        store.change_job(
            id,
            "failed",
            only_from=("running",),
            event=f"The job failed: {first}",
            level="error",
            error={"code": "training_failed", "message": first, "param": None},
            finished_at=int(time.time()),
        )
        return
    _finish_job(store, id, facts, record, organization)


def _train_job(
    store: Store, job: dict[str, Any], facts: dict[str, Any], base: str, parent: int
) -> TrainingRecord:
    """Train a job's model and return the record of the training.

    Raises:
        DataError: a row of a file is too long.
        _Stopped: the job is no longer wanted.
    """
    from tuneoff.training.arguments import DEFAULT_LEARNING_RATE
    from tuneoff.training.fine_tune import tune

    id, attempt = job["id"], job["attempts"]
    directory = ContenderDir(store.job_path(id))
    for name in ("training", "validation"):
        if (file := facts[f"{name}_file"]) is not None:
            problem = find_long_row(store.file_path(file), base, name, facts["model"], None)
            if problem is not None:
                raise DataError(problem)
    train = list(read_stored_examples(store.file_path(facts["training_file"])))
    validation_file = facts["validation_file"]
    validation = (
        list(read_stored_examples(store.file_path(validation_file))) if validation_file else []
    )
    start = time.monotonic()
    # Count the stored events: a kill may have come before the last losses were reported.
    reported, last_check, first_step = store.count_metrics(id), 0.0, -1

    def on_step(done: int, total: int, note: str) -> None:
        """Stop if the job is no longer wanted; otherwise report losses and progress."""
        nonlocal reported, last_check, first_step
        first_step = done - 1 if first_step < 0 else first_step
        now = time.monotonic()
        if now - last_check < CHECK_SECONDS and done < total:
            return
        last_check = now
        row = store.row("jobs", id)
        if row is None or row["status"] != "running" or os.getppid() != parent:
            raise _JobStopped
        for loss in directory.loss()[reported:]:
            reported += 1
            text = f"Step {loss.step}/{total}: training loss={loss.train or 0:.4f}"
            data = {"step": loss.step, "total_steps": total, "train_loss": loss.train}
            if validation_file and loss.validation is not None:
                text += f", validation loss={loss.validation:.4f}"
                data["full_valid_loss"] = loss.validation
            store.add_event(id, text, data=data)
            store.reset_attempts(id)
        left = (now - start) / (done - first_step) * (total - done)
        store.change_job(
            id, only_from=("running",), estimated_finish=int(time.time() + left), step=done,
            total_steps=total,
        )  # fmt: skip

    def on_epoch(step: int) -> None:
        """Record the checkpoint of an epoch."""
        cleanup.add_checkpoint(
            store, id, facts, next(row for row in directory.loss() if row.step == step)
        )

    words = "started" if attempt == 1 else f"goes on (attempt {attempt})"
    store.add_event(id, f"Fine-tuning job {words}")
    settings = build_contender_config(id, base, facts, DEFAULT_LEARNING_RATE["lora"])
    return tune(
        settings,
        base,
        train,
        validation,
        replace(CHAT_PASS_THROUGH, today=find_job_date(facts, job["created_at"])),
        directory,
        on_step,
        lambda line: store.add_event(id, line),
        on_epoch,
    )


def _finish_job(
    store: Store, id: str, facts: dict[str, Any], record: TrainingRecord, organization: str
) -> None:
    """Store the metrics, publish the model and end the job, in one transaction."""
    text = _format_metrics(ContenderDir(store.job_path(id)), bool(facts["validation_file"]))
    file_id, model = generate_id("file"), build_model_name(
        facts["model"], organization, facts["suffix"], id
    )  # fmt: skip
    write_text(store.file_path(file_id, RESULTS), text)
    now = int(time.time())
    with store.transaction() as connection:
        status, stored = connection.execute(
            "SELECT status, facts FROM jobs WHERE id = ?", (id,)
        ).fetchone()
        if status != "running":  # cancelled in the last moment
            store.file_path(file_id, RESULTS).unlink(missing_ok=True)
            return
        connection.execute(
            "INSERT INTO files (id, created_at, filename, purpose, bytes) "
            "VALUES (?, ?, 'step_metrics.csv', ?, ?)",
            (file_id, now, RESULTS, len(text.encode())),
        )
        connection.execute(
            "INSERT INTO models (id, created_at, base, job_id) VALUES (?, ?, ?, ?)",
            (model, now, facts["model"], id),
        )
        final_facts = {
            **json.loads(stored),
            "fine_tuned_model": model,
            "finished_at": now,
            "estimated_finish": None,
            # What a hosted job would be billed for: the tokens of every epoch, whichever step is
            # kept.
            "trained_tokens": record.tokens_templated,
            "result_files": [file_id],
        }
        connection.execute(
            "UPDATE jobs SET status = 'succeeded', facts = ? WHERE id = ?",
            (json.dumps(final_facts), id),
        )
        kept = record.steps if record.best_step is None else record.best_step
        for message in (
            f"New fine-tuned model created: {model}",
            f"It is the model of step {kept}, "
            + ("the last" if record.best_step is None else "with the lowest validation loss"),
            "The job has successfully completed",
        ):
            store.add_event(id, message, connection=connection)


def _format_metrics(directory: ContenderDir, validated: bool) -> str:
    """Return `loss.jsonl` in the format of the hosted API's result file."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("step", "train_loss", "valid_loss"))
    for row in directory.loss():
        writer.writerow((row.step, row.train, row.validation if validated else ""))
    return stream.getvalue()


if __name__ == "__main__":
    main()
