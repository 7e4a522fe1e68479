"""The data of the web page, read from the store: the newest jobs, files and models, with details of
opened jobs."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tuneoff.report import format as f
from tuneoff.rundir import ContenderDir
from tuneoff.server import tuned
from tuneoff.server.job import ACTIVE
from tuneoff.server.loss_curve import loss_curve
from tuneoff.server.settings import ServerSettings
from tuneoff.server.store import FINE_TUNE, Store

# Entries offered in a selection; the API accepts any.
MOST_OPTIONS = 200
MOST_OPENED = 10
EVENTS = 8
_BUTTONS = {
    "queued": ("pause", "cancel"),
    "running": ("pause", "cancel"),
    "paused": ("resume", "cancel"),
    "failed": ("resume", "cancel"),
}

View = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """How many jobs, files and models a reader wants, and the jobs opened or closed by hand."""

    jobs: int
    files: int
    models: int
    opened: Sequence[str] = ()
    shut: Sequence[str] = ()


def page_view(store: Store, settings: ServerSettings, wanted: Wanted) -> View:
    """Return the values of `pages/content.html.j2`."""
    counted = store.rows("SELECT status, count(*) AS times FROM jobs GROUP BY status")
    files, more_files = _listed(store, "files", wanted.files)
    models = tuned.newest(store, max(MOST_OPTIONS, wanted.models + 1))
    options, _ = _listed(store, "files", MOST_OPTIONS, "purpose = ?", (FINE_TUNE,))
    counts = {row["status"]: row["times"] for row in counted}
    return {
        **_jobs(store, wanted, time.time()),
        "told": [f"{f.count(counts[s])} {s}" for s in ACTIVE if s in counts],
        "active": sum(counts.get(status, 0) for status in ("queued", "running")) > 0,
        "files": [_file(row) for row in files],
        "more_files": more_files,
        "models": [_model(each, settings) for each in models[: wanted.models]],
        "more_models": len(models) > wanted.models,
        "bases": list(settings.bases),
        "served": [each.name for each in settings.served],
        "to_try": _to_try(models[:MOST_OPTIONS], settings),
        "training_files": [
            {"id": row["id"], "name": f"{row['filename']} ({_examples(row)})"} for row in options
        ],
        "keys": bool(settings.api_keys),
    }


def _listed(
    store: Store, table: str, limit: int, where: str = "1", values: tuple[Any, ...] = ()
) -> tuple[list[dict[str, Any]], bool]:
    """Return the newest rows of a table, and whether there are more."""
    page = store.page(table, None, limit, where, values)
    assert page is not None  # there is no `after` that could be unknown
    return page


def _jobs(store: Store, wanted: Wanted, now: float) -> View:
    """Return the running jobs, then the newest others; the first is open unless closed by hand."""
    running = store.rows("SELECT * FROM jobs WHERE status = 'running' ORDER BY number DESC")
    others, more = _listed(store, "jobs", wanted.jobs, "status != 'running'")
    rows = [*running, *others]
    opened = {row["id"] for row in rows[:1]} | set(wanted.opened[:MOST_OPENED])
    opened -= set(wanted.shut)
    return {
        "jobs": [_job(row, now) | _body(store, row, now, row["id"] in opened) for row in rows],
        "more_jobs": more,
    }


def _job(row: dict[str, Any], now: float) -> View:
    """Return the summary line of a job."""
    facts, state = json.loads(row["facts"]), row["status"]
    step, steps = facts.get("step"), facts.get("total_steps")
    error = facts.get("error")
    return {
        "id": row["id"],
        "state": state,
        "name": facts["suffix"] or row["id"],
        "base": facts["model"],
        "model": facts.get("fine_tuned_model"),
        "step": step,
        "steps": steps,
        "progress": _progress(state, step, steps, facts, now),
        "error": f.shorten(error["message"], 500) if error else None,
        "buttons": _BUTTONS.get(state, ()),
        **_when(row["created_at"], now),
    }


def _progress(
    state: str, step: int | None, steps: int | None, facts: dict[str, Any], now: float
) -> str:
    """Describe how far a job is."""
    if state == "queued":
        return "waiting" if step is None else f"waiting, at step {f.count(step)}"
    if state == "succeeded":
        return f"{f.count(steps)} steps, {f.count(facts.get('trained_tokens'))} tokens"
    if step is None:
        return "starting" if state == "running" else ""
    words = f"step {f.count(step)} of {f.count(steps)}"
    finish = facts.get("estimated_finish")
    if state == "running" and finish is not None:
        words += f", about {f.seconds(max(1, round(finish - now)))} left"
    return words


def _body(store: Store, row: dict[str, Any], now: float, opened: bool) -> View:
    """Return the details of an opened job."""
    if not opened:
        return {"opened": False}
    facts = json.loads(row["facts"])
    numbers, validation_file = facts["resolved"], facts["validation_file"]
    messages = store.rows(
        "SELECT * FROM events WHERE job_id = ? AND type = 'message' ORDER BY number DESC LIMIT ?",
        row["id"], EVENTS,
    )  # fmt: skip
    details = [
        ("Base", facts["model"]),
        ("Training file", _file_name(store, facts["training_file"])),
        ("Validation file", _file_name(store, validation_file) if validation_file else "none"),
        ("Epochs", f.count(numbers["n_epochs"])),
        ("Batch size", f.count(numbers["batch_size"])),
        ("Learning rate", f"{numbers['learning_rate_multiplier']:g} × the default"),
        ("Seed", str(facts["seed"])),
        ("Created", _utc(row["created_at"])),
    ]
    if facts.get("trained_tokens") is not None:
        details.append(("Trained tokens", f.count(facts["trained_tokens"])))
    if facts.get("finished_at") is not None:
        details.append(("Finished", _utc(facts["finished_at"])))
    return {
        "opened": True,
        "curve": loss_curve(
            ContenderDir(store.job_path(row["id"])).loss(),
            facts.get("total_steps"),
            bool(validation_file),
        ),
        "facts": details,
        "result_files": facts.get("result_files", []),
        "unfinished": row["status"] in ACTIVE,
        "events": [
            {
                "level": message["level"],
                "message": f.shorten(message["message"], 500),
                **_when(message["created_at"], now),
            }
            for message in messages
        ],
    }


def _file(row: dict[str, Any]) -> View:
    """Return the line of a file."""
    return {
        "id": row["id"],
        "name": row["filename"],
        "purpose": row["purpose"],
        "size": file_size(row["bytes"]),
        "examples": f.count(row["examples"]),
        **_when(row["created_at"], time.time()),
    }


def _model(model: tuned.Tuned, settings: ServerSettings) -> View:
    """Return the line of a model."""
    return {
        "id": model.name,
        "base": model.base,
        "step": model.step,
        "usable": model.base in settings.bases,
        **_when(model.created_at, time.time()),
    }


def _to_try(models: Sequence[tuned.Tuned], settings: ServerSettings) -> list[tuple[str, list[str]]]:
    """Return the names of models that can answer, grouped by kind."""
    usable = [model for model in models if model.base in settings.bases]
    groups = [
        ("Tuned", [model.name for model in usable if model.step is None]),
        ("From the run", [each.name for each in settings.served]),
        ("Bases", list(settings.bases)),
        ("Checkpoints", [model.name for model in usable if model.step is not None]),
    ]
    return [(label, names) for label, names in groups if names]


def _examples(row: dict[str, Any]) -> str:
    """Return a file's number of examples in words."""
    count = row["examples"]
    return f"{f.count(count)} example{'' if count == 1 else 's'}"


def _file_name(store: Store, id: str) -> str:
    """Return a file's name and number of examples."""
    row = store.row("files", id)
    return f"{row['filename']} ({_examples(row)})" if row else f"{id} (deleted)"


def _when(moment: int, now: float) -> View:
    """Return a moment as its age and as UTC."""
    return {"ago": ago(now - moment), "at": _utc(moment)}


def _utc(moment: int) -> str:
    """Format a moment in UTC."""
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M:%S} UTC"


def ago(seconds: float) -> str:
    """Format an age: `just now`, `3 min ago`, `2 h ago`, `5 days ago`."""
    if seconds < 60:
        return "just now"
    for size, name in ((86_400, "day"), (3600, "h"), (60, "min")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {name}{'s' if name == 'day' and count > 1 else ''} ago"
    raise AssertionError


def file_size(size: int) -> str:
    """Format a number of bytes: `812 B`, `3.4 KiB`, `12 MiB`."""
    value = float(size)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.3g} {unit}" if value < 999.5 else f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.3g} GiB"
