"""A process that trains: `python -m tuneoff.server.worker DATA_DIR BASES ORGANIZATION PARENT
WORKERS`.

It takes a job that was running when its worker ended, else the oldest that waits; `claims.py`
sees to it that nobody else has it. A job goes on from its last checkpoint. What a client wants of
a job is its status in the store: when that is no longer `running`, the training stops within a
step. It ends when its parent does.
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
from tuneoff.files import write_text
from tuneoff.models.head import ignore_tie_warnings
from tuneoff.prompts import CHAT_PASS_THROUGH
from tuneoff.records import TrainingRecord
from tuneoff.rundir import ContenderDir
from tuneoff.server import epochs, leftovers
from tuneoff.server.claims import Claims
from tuneoff.server.job import base_argument, model_name, settings_of
from tuneoff.server.row_lengths import find_long_row
from tuneoff.server.store import RESULTS, Store, new_id
from tuneoff.tasks.chat import stored_examples
from tuneoff.tokenization.chat_template import day_of_job

# Ends of the training process, by whatever, without anything learned in between.
MOST_ATTEMPTS = 20
CHECK_SECONDS = 0.5
CLEAR_SECONDS = 3600


class _Stopped(Exception):
    """The job is wanted no longer, or the parent is gone."""


def main() -> None:
    """Works until there is no parent any more."""
    _quieten()
    data_dir, bases, organization = Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]
    store = Store(data_dir)
    parent, most = int(sys.argv[4]), int(sys.argv[5])  # the parent may be gone already
    claims = Claims(data_dir)
    cleared = -math.inf
    while os.getppid() == parent:
        if time.monotonic() - cleared > CLEAR_SECONDS:
            leftovers.clear_all(store, claims)
            cleared = time.monotonic()
        job = store.claim_job(claims.take, most)
        if job is None:
            time.sleep(CHECK_SECONDS)
            continue
        try:
            _carry_out(store, job, bases, organization, parent)
        finally:
            claims.free(job["number"])
        # Only now: who ends a job meanwhile could not clear it while it was claimed.
        leftovers.clear(store, claims, job["id"])


def _quieten() -> None:
    """The libraries underneath warn each other of things that nobody here can change."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    ignore_tie_warnings()
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def _carry_out(
    store: Store, job: dict[str, Any], bases: dict[str, str], organization: str, parent: int
) -> None:
    id, facts = job["id"], json.loads(job["facts"])
    try:
        if job["attempts"] > MOST_ATTEMPTS:
            raise RuntimeError(f"the training process ended {MOST_ATTEMPTS} times")
        if facts["model"] not in bases:
            raise RuntimeError(
                f"the base {facts['model']} is not served any more; start the server with --base "
                f"{base_argument(facts)}, and resume the job"
            )
        record = _train(store, job, facts, bases[facts["model"]], parent)
    except _Stopped:
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
    _finish(store, id, facts, record, organization)


def _train(
    store: Store, job: dict[str, Any], facts: dict[str, Any], base: str, parent: int
) -> TrainingRecord:
    from tuneoff.training.arguments import DEFAULT_LEARNING_RATE
    from tuneoff.training.tune import tune

    id, attempt = job["id"], job["attempts"]
    directory = ContenderDir(store.job_path(id))
    for name in ("training", "validation"):
        if (file := facts[f"{name}_file"]) is not None:
            wrong = find_long_row(store.file_path(file), base, name, facts["model"], None)
            if wrong is not None:
                raise DataError(wrong)
    train = list(stored_examples(store.file_path(facts["training_file"])))
    given = facts["validation_file"]
    validation = list(stored_examples(store.file_path(given))) if given else []
    began = time.monotonic()
    # Not as many as there are: a kill may have come before the last ones were told.
    told, looked, first_step = store.metrics_told(id), 0.0, -1

    def on_step(done: int, total: int, note: str) -> None:
        nonlocal told, looked, first_step
        first_step = done - 1 if first_step < 0 else first_step
        now = time.monotonic()
        if now - looked < CHECK_SECONDS and done < total:
            return
        looked = now
        row = store.row("jobs", id)
        if row is None or row["status"] != "running" or os.getppid() != parent:
            raise _Stopped
        for loss in directory.loss()[told:]:
            told += 1
            text = f"Step {loss.step}/{total}: training loss={loss.train or 0:.4f}"
            data = {"step": loss.step, "total_steps": total, "train_loss": loss.train}
            if given and loss.validation is not None:
                text += f", validation loss={loss.validation:.4f}"
                data["full_valid_loss"] = loss.validation
            store.add_event(id, text, data=data)
            store.count_attempts_anew(id)
        left = (now - began) / (done - first_step) * (total - done)
        store.change_job(
            id, only_from=("running",), estimated_finish=int(time.time() + left), step=done,
            total_steps=total,
        )  # fmt: skip

    def on_epoch(step: int) -> None:
        epochs.add(store, id, facts, next(row for row in directory.loss() if row.step == step))

    words = "started" if attempt == 1 else f"goes on (attempt {attempt})"
    store.add_event(id, f"Fine-tuning job {words}")
    settings = settings_of(id, base, facts, DEFAULT_LEARNING_RATE["lora"])
    return tune(
        settings,
        base,
        train,
        validation,
        replace(CHAT_PASS_THROUGH, today=day_of_job(facts, job["created_at"])),
        directory,
        on_step,
        lambda line: store.add_event(id, line),
        on_epoch,
    )


def _finish(
    store: Store, id: str, facts: dict[str, Any], record: TrainingRecord, organization: str
) -> None:
    """Writes the metrics down, makes the model known and ends the job, all at once."""
    text = _metrics(ContenderDir(store.job_path(id)), bool(facts["validation_file"]))
    file_id, model = new_id("file"), model_name(
        facts["model"], organization, facts["suffix"], id
    )  # fmt: skip
    write_text(store.file_path(file_id, RESULTS), text)
    now = int(time.time())
    with store.transaction() as connection:
        status, stored = connection.execute(
            "SELECT status, facts FROM jobs WHERE id = ?", (id,)
        ).fetchone()
        if status != "running":  # cancelled at the last moment
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
        done = {
            **json.loads(stored),
            "fine_tuned_model": model,
            "finished_at": now,
            "estimated_finish": None,
            # What a hosted job would be billed for: every epoch's tokens, whichever step is kept.
            "trained_tokens": record.tokens_templated,
            "result_files": [file_id],
        }
        connection.execute(
            "UPDATE jobs SET status = 'succeeded', facts = ? WHERE id = ?", (json.dumps(done), id)
        )
        kept = record.steps if record.best_step is None else record.best_step
        for message in (
            f"New fine-tuned model created: {model}",
            f"It is the model of step {kept}, "
            + ("the last" if record.best_step is None else "with the lowest validation loss"),
            "The job has successfully completed",
        ):
            store.add_event(id, message, connection=connection)


def _metrics(directory: ContenderDir, validated: bool) -> str:
    """`loss.jsonl` as the hosted API's result file."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("step", "train_loss", "valid_loss"))
    for row in directory.loss():
        writer.writerow((row.step, row.train, row.validation if validated else ""))
    return stream.getvalue()


if __name__ == "__main__":
    main()
