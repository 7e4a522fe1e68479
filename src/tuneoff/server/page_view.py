"""The data of the web page, read from the store: the newest jobs, files and models, with details of
opened jobs.

A loss curve becomes numbers for `pages/curve.html.j2`. Heights are pixels and widths are percent,
so the drawing is as wide as the screen and its letters keep their size.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tuneoff.records import LossRow
from tuneoff.report import format as f
from tuneoff.server.job import ACTIVE_STATES
from tuneoff.server.routes import tuned
from tuneoff.server.settings import ServerConfig
from tuneoff.server.store import FINE_TUNE, Store
from tuneoff.storage.run_dir import ContenderDir

HEIGHT, TOP, BOTTOM = 200, 10, 192
TICKS = 5
# Points of a line; more would look the same.
MAX_POINTS = 200
# Losses whose ratio is above this are drawn on a logarithmic axis, as in the report.
LOG_AXIS_RATIO = 12


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis: its position (percent or pixels) and its label."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Dot:
    """A value: its position (percent, pixels) and its tooltip."""

    x: float
    y: float
    says: str


@dataclass(frozen=True, slots=True)
class Line:
    """One loss over the steps; `last` is its newest value."""

    name: str
    dots: tuple[Dot, ...]
    last: str

    @property
    def points(self) -> str:
        """Return the line's points in a box of 1000 by `HEIGHT`."""
        return " ".join(f"{10 * dot.x:.1f},{dot.y:.1f}" for dot in self.dots)


@dataclass(frozen=True, slots=True)
class LossCurve:
    """Axes and lines of a loss curve."""

    x: tuple[Tick, ...]
    y: tuple[Tick, ...]
    lines: tuple[Line, ...]
    height: int = HEIGHT

    @property
    def words(self) -> str:
        """Describe the curve for screen readers."""
        ends = "; ".join(f"{line.name} loss {line.last}" for line in self.lines)
        return f"Loss by step. Newest values: {ends}."


def build_loss_curve(
    rows: Sequence[LossRow], total_steps: int | None, validated: bool
) -> LossCurve | None:
    """Return the loss curve of a training so far; None while there is nothing to draw.

    Args:
        total_steps: where the axis of steps ends.
        validated: whether the validation losses are of a validation file.
    """
    series = {"training": [(row.step, row.train) for row in rows]}
    if validated:
        series["validation"] = [(row.step, row.validation) for row in rows]
    finite = {
        name: [(step, loss) for step, loss in values if loss is not None and math.isfinite(loss)]
        for name, values in series.items()
    }
    losses = [loss for values in finite.values() for _, loss in values]
    if not losses:
        return None
    end = max(total_steps or 0, rows[-1].step, 1)
    low, high = min(losses), max(losses)
    is_log = low > 0 and high / low > LOG_AXIS_RATIO
    y_ticks = _choose_log_ticks(low, high) if is_log else _choose_ticks(low, high)

    def height(loss: float) -> float:
        """Return the vertical position of a loss in pixels."""
        scale = math.log if is_log else float
        share = (scale(loss) - scale(y_ticks[0])) / (scale(y_ticks[-1]) - scale(y_ticks[0]))
        return round(BOTTOM - share * (BOTTOM - TOP), 1)

    lines = [
        Line(
            name,
            tuple(
                Dot(
                    round(100 * step / end, 2), height(loss), f"step {step}: {name} loss {loss:.4g}"
                )
                for step, loss in thin_points(values)
            ),
            f"{values[-1][1]:.3g}",
        )
        for name, values in finite.items()
        if values
    ]
    steps = [step for step in _choose_ticks(0, end) if step <= end and step == int(step)]
    return LossCurve(
        tuple(Tick(round(100 * step / end, 2), f.count(step)) for step in steps),
        tuple(Tick(height(mark), f"{mark:.6g}") for mark in y_ticks),
        tuple(lines),
    )


def thin_points(values: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return at most `MAX_POINTS` evenly spaced values, and the last one."""
    every = math.ceil(len(values) / MAX_POINTS)
    kept = list(values[::every])
    return kept if kept[-1:] == list(values[-1:]) else [*kept, values[-1]]


def _choose_ticks(low: float, high: float) -> list[float]:
    """Return about `TICKS` round numbers that cover `low` to `high`."""
    span = high - low or abs(high) or 1.0
    rough = span / TICKS
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= rough)
    first, last = math.floor(low / step), max(math.ceil(high / step), math.floor(low / step) + 1)
    return [float(f"{number * step:.12g}") for number in range(first, last + 1)]


def _choose_log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times powers of ten; only the powers where that would be many."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    fine = [float(f"{m}e{p}") for p in range(first, last + 1) for m in (1, 2, 5)]
    inner = [mark for mark in fine if low < mark < high]
    below = max(mark for mark in fine if mark <= low)
    above = min((mark for mark in fine if mark >= high), default=10.0 ** (last + 1))
    if len(inner) > TICKS + 1:
        return [10.0**power for power in range(first, last + 1)]
    return [below, *inner, above]


# Entries offered in a selection; the API accepts any.
MAX_OPTIONS = 200
MAX_OPENED = 10
MAX_EVENTS = 8
_BUTTONS = {
    "queued": ("pause", "cancel"),
    "running": ("pause", "cancel"),
    "paused": ("resume", "cancel"),
    "failed": ("resume", "cancel"),
}

View = dict[str, Any]


@dataclass(frozen=True, slots=True)
class PageRequest:
    """How many jobs, files and models a reader wants, and the jobs opened or closed by hand."""

    jobs: int
    files: int
    models: int
    opened: Sequence[str] = ()
    shut: Sequence[str] = ()


def build_page_view(store: Store, settings: ServerConfig, wanted: PageRequest) -> View:
    """Return the values of `pages/content.html.j2`."""
    counted = store.rows("SELECT status, count(*) AS times FROM jobs GROUP BY status")
    files, more_files = _list_rows(store, "files", wanted.files)
    models = tuned.list_newest_tuned(store, max(MAX_OPTIONS, wanted.models + 1))
    options, _ = _list_rows(store, "files", MAX_OPTIONS, "purpose = ?", (FINE_TUNE,))
    counts = {row["status"]: row["times"] for row in counted}
    return {
        **_build_jobs(store, wanted, time.time()),
        "told": [f"{f.count(counts[s])} {s}" for s in ACTIVE_STATES if s in counts],
        "active": sum(counts.get(status, 0) for status in ("queued", "running")) > 0,
        "files": [_build_file(row) for row in files],
        "more_files": more_files,
        "models": [_build_model(each, settings) for each in models[: wanted.models]],
        "more_models": len(models) > wanted.models,
        "bases": list(settings.bases),
        "served": [each.name for each in settings.run_models],
        "to_try": _group_models(models[:MAX_OPTIONS], settings),
        "training_files": [
            {"id": row["id"], "name": f"{row['filename']} ({_format_examples(row)})"}
            for row in options
        ],
        "keys": bool(settings.api_keys),
    }


def _list_rows(
    store: Store, table: str, limit: int, where: str = "1", values: tuple[Any, ...] = ()
) -> tuple[list[dict[str, Any]], bool]:
    """Return the newest rows of a table, and whether there are more."""
    page = store.page(table, None, limit, where, values)
    assert page is not None  # there is no `after` that could be unknown
    return page


def _build_jobs(store: Store, wanted: PageRequest, now: float) -> View:
    """Return the running jobs, then the newest others; the first is open unless closed by hand."""
    running = store.rows("SELECT * FROM jobs WHERE status = 'running' ORDER BY number DESC")
    others, more = _list_rows(store, "jobs", wanted.jobs, "status != 'running'")
    rows = [*running, *others]
    opened = {row["id"] for row in rows[:1]} | set(wanted.opened[:MAX_OPENED])
    opened -= set(wanted.shut)
    return {
        "jobs": [
            _build_job(row, now) | _build_details(store, row, now, row["id"] in opened)
            for row in rows
        ],
        "more_jobs": more,
    }


def _build_job(row: dict[str, Any], now: float) -> View:
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
        "progress": _describe_progress(state, step, steps, facts, now),
        "error": f.shorten(error["message"], 500) if error else None,
        "buttons": _BUTTONS.get(state, ()),
        **_format_moment(row["created_at"], now),
    }


def _describe_progress(
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


def _build_details(store: Store, row: dict[str, Any], now: float, opened: bool) -> View:
    """Return the details of an opened job."""
    if not opened:
        return {"opened": False}
    facts = json.loads(row["facts"])
    numbers, validation_file = facts["resolved"], facts["validation_file"]
    messages = store.rows(
        "SELECT * FROM events WHERE job_id = ? AND type = 'message' ORDER BY number DESC LIMIT ?",
        row["id"], MAX_EVENTS,
    )  # fmt: skip
    details = [
        ("Base", facts["model"]),
        ("Training file", _describe_file(store, facts["training_file"])),
        ("Validation file", _describe_file(store, validation_file) if validation_file else "none"),
        ("Epochs", f.count(numbers["n_epochs"])),
        ("Batch size", f.count(numbers["batch_size"])),
        ("Learning rate", f"{numbers['learning_rate_multiplier']:g} × the default"),
        ("Seed", str(facts["seed"])),
        ("Created", _format_utc(row["created_at"])),
    ]
    if facts.get("trained_tokens") is not None:
        details.append(("Trained tokens", f.count(facts["trained_tokens"])))
    if facts.get("finished_at") is not None:
        details.append(("Finished", _format_utc(facts["finished_at"])))
    return {
        "opened": True,
        "curve": build_loss_curve(
            ContenderDir(store.job_path(row["id"])).loss(),
            facts.get("total_steps"),
            bool(validation_file),
        ),
        "facts": details,
        "result_files": facts.get("result_files", []),
        "unfinished": row["status"] in ACTIVE_STATES,
        "events": [
            {
                "level": message["level"],
                "message": f.shorten(message["message"], 500),
                **_format_moment(message["created_at"], now),
            }
            for message in messages
        ],
    }


def _build_file(row: dict[str, Any]) -> View:
    """Return the line of a file."""
    return {
        "id": row["id"],
        "name": row["filename"],
        "purpose": row["purpose"],
        "size": format_file_size(row["bytes"]),
        "examples": f.count(row["examples"]),
        **_format_moment(row["created_at"], time.time()),
    }


def _build_model(model: tuned.StoredModel, settings: ServerConfig) -> View:
    """Return the line of a model."""
    return {
        "id": model.name,
        "base": model.base,
        "step": model.step,
        "usable": model.base in settings.bases,
        **_format_moment(model.created_at, time.time()),
    }


def _group_models(
    models: Sequence[tuned.StoredModel], settings: ServerConfig
) -> list[tuple[str, list[str]]]:
    """Return the names of models that can answer, grouped by kind."""
    usable = [model for model in models if model.base in settings.bases]
    groups = [
        ("Tuned", [model.name for model in usable if model.step is None]),
        ("From the run", [each.name for each in settings.run_models]),
        ("Bases", list(settings.bases)),
        ("Checkpoints", [model.name for model in usable if model.step is not None]),
    ]
    return [(label, names) for label, names in groups if names]


def _format_examples(row: dict[str, Any]) -> str:
    """Return a file's number of examples in words."""
    count = row["examples"]
    return f"{f.count(count)} example{'' if count == 1 else 's'}"


def _describe_file(store: Store, id: str) -> str:
    """Return a file's name and number of examples."""
    row = store.row("files", id)
    return f"{row['filename']} ({_format_examples(row)})" if row else f"{id} (deleted)"


def _format_moment(moment: int, now: float) -> View:
    """Return a moment as its age and as UTC."""
    return {"ago": format_age(now - moment), "at": _format_utc(moment)}


def _format_utc(moment: int) -> str:
    """Format a moment in UTC."""
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M:%S} UTC"


def format_age(seconds: float) -> str:
    """Format an age: `just now`, `3 min ago`, `2 h ago`, `5 days ago`."""
    if seconds < 60:
        return "just now"
    for size, name in ((86_400, "day"), (3600, "h"), (60, "min")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {name}{'s' if name == 'day' and count > 1 else ''} ago"
    raise AssertionError


def format_file_size(size: int) -> str:
    """Format a number of bytes: `812 B`, `3.4 KiB`, `12 MiB`."""
    value = float(size)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.3g} {unit}" if value < 999.5 else f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.3g} GiB"
