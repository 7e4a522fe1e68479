"""What a failed job could go on from goes when it is given up, or was for a month."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tuneoff.server import cleanup, errors
from tuneoff.server.routes import jobs
from tuneoff.server.store import JobLocks, Store
from tuneoff.storage.run_dir import ContenderDir

DAY_SECONDS = 24 * 3600


def failed(store: Store, id: str, days_ago: int) -> ContenderDir:
    facts = {
        "model": "random", "organization_id": "local", "training_file": "file-gone",
        "validation_file": None, "suffix": None, "seed": 1, "metadata": None,
        "resolved": {"n_epochs": 1, "batch_size": 8, "learning_rate_multiplier": 1.0},
        "finished_at": int(time.time()) - days_ago * DAY_SECONDS,
    }  # fmt: skip
    with store.transaction() as connection:
        connection.execute(
            "INSERT INTO jobs (id, created_at, status, facts) VALUES (?, 1, 'failed', ?)",
            (id, json.dumps(facts)),
        )
    directory = ContenderDir(store.job_path(id))
    (directory.checkpoints / "checkpoint-1").mkdir(parents=True)
    return directory


@pytest.fixture
def app(tmp_path: Path) -> Any:
    """The routes of jobs over a store, without processes that train."""
    made = FastAPI()
    errors.install_error_handlers(made)
    made.include_router(jobs.router)
    made.state.store, made.state.claims = Store(tmp_path / "data"), JobLocks(tmp_path / "data")
    yield made
    made.state.claims.close()


def test_what_nobody_resumed_for_a_month(app: Any) -> None:
    old, new = (failed(app.state.store, f"ftjob-{days}", days) for days in (31, 29))
    cleanup.clean_all_jobs(app.state.store, app.state.claims)
    assert (old.checkpoints.exists(), new.checkpoints.exists()) == (False, True)
    # It can still be resumed, and begins anew.
    with TestClient(app) as client:
        answer = client.post("/v1/fine_tuning/jobs/ftjob-31/resume")
    assert (answer.status_code, answer.json()["status"]) == (200, "queued")


def test_a_failed_job_is_given_up(app: Any) -> None:
    directory = failed(app.state.store, "ftjob-1", 0)
    with TestClient(app) as client:
        answer = client.post("/v1/fine_tuning/jobs/ftjob-1/cancel")
        assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
        assert not directory.path.exists()
        again = client.post("/v1/fine_tuning/jobs/ftjob-1/resume")
        assert again.status_code == 400
        assert again.json()["error"]["code"] == "invalid_job_state"


def test_metrics_are_counted_as_they_were_told(app: Any) -> None:
    """A worker that goes on tells the losses that its killed one had not told yet."""
    store: Store = app.state.store
    failed(store, "ftjob-1", 0)
    store.add_event("ftjob-1", "a word")
    store.add_event("ftjob-1", "Step 1", data={"step": 1})
    store.add_event("ftjob-2", "Step 1", data={"step": 1})
    assert store.count_metrics("ftjob-1") == 1
