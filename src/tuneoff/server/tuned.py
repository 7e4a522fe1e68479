"""The models that jobs here produced: tuned models, and checkpoints of their last epochs.

Each is a model of its own with its own name: it is requested, listed and deleted alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tuneoff.files import remove_folder
from tuneoff.rundir import ContenderDir
from tuneoff.server import shapes
from tuneoff.server.base import Served
from tuneoff.server.errors import ApiError, not_found
from tuneoff.server.job import base_argument
from tuneoff.server.settings import ServerSettings
from tuneoff.server.store import Store
from tuneoff.tokenization.chat_template import day_of_job


@dataclass(frozen=True, slots=True)
class Tuned:
    """A tuned model or a checkpoint."""

    name: str
    created_at: int
    base: str
    job_id: str
    step: int | None
    """The step of a checkpoint; None for a tuned model."""


def all_tuned(store: Store) -> list[Tuned]:
    """Return all tuned models, the oldest first."""
    return [Tuned(**row) for row in store.rows("SELECT * FROM tuned ORDER BY created_at, name")]


def newest(store: Store, limit: int) -> list[Tuned]:
    """Return at most `limit` tuned models, the newest first."""
    sql = "SELECT * FROM tuned ORDER BY created_at DESC, name DESC LIMIT ?"
    return [Tuned(**row) for row in store.rows(sql, limit)]


def find(store: Store, name: str) -> Tuned | None:
    """Return the tuned model of this name; None if there is none."""
    rows = store.rows("SELECT * FROM tuned WHERE name = ?", name)
    return Tuned(**rows[0]) if rows else None


def known(store: Store, name: str) -> Tuned:
    """Return the tuned model of this name.

    Raises:
        ApiError: there is none.
    """
    tuned = find(store, name)
    if tuned is None:
        raise not_found("model", name, "model")
    return tuned


def served(store: Store, settings: ServerSettings, tuned: Tuned) -> Served | None:
    """Return how to serve a tuned model; None if this server was started without its base."""
    if tuned.base not in settings.bases:
        return None
    (job,) = store.rows("SELECT created_at, facts FROM jobs WHERE id = ?", tuned.job_id)
    today = day_of_job(json.loads(job["facts"]), job["created_at"])
    base = settings.bases[tuned.base]
    return Served(tuned.name, base, _adapter(store, tuned), today=today)


def unserved(store: Store, settings: ServerSettings, tuned: Tuned) -> ApiError:
    """Return the error for a tuned model whose base is not served."""
    (row,) = store.rows("SELECT facts FROM jobs WHERE id = ?", tuned.job_id)
    return ApiError(
        404,
        f"The model {tuned.name!r} was tuned on {tuned.base}, which this server was not started "
        f"with (it serves {', '.join(settings.bases) or 'no base'}); start it with --base "
        f"{base_argument(json.loads(row['facts']))} as well.",
        "model",
        "model_not_found",
    )


def delete(store: Store, tuned: Tuned) -> None:
    """Delete a tuned model with its weights, and nothing else."""
    with store.transaction() as connection:
        connection.execute("DELETE FROM models WHERE id = ?", (tuned.name,))
        connection.execute("DELETE FROM checkpoints WHERE model = ?", (tuned.name,))
    remove_folder(_adapter(store, tuned))


def _adapter(store: Store, tuned: Tuned) -> Path:
    """Return the folder of a tuned model's adapter."""
    directory = ContenderDir(store.job_path(tuned.job_id))
    return directory.adapter if tuned.step is None else directory.epoch(tuned.step)


def shown(tuned: Tuned, settings: ServerSettings) -> shapes.Model:
    """Return a model as the API shows it, with two more fields: its base, and whether that is
    served."""
    return {
        "id": tuned.name,
        "object": "model",
        "created": tuned.created_at,
        "owned_by": settings.organization,
        "base": tuned.base,
        "served": tuned.base in settings.bases,
    }
