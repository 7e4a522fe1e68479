"""The models that jobs here produced: tuned models, and checkpoints of their last epochs.

Each is a model of its own with its own name: it is requested, listed and deleted alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tuneoff.inference.loaded_model import ServedModel
from tuneoff.server import schemas
from tuneoff.server.errors import ApiError, build_not_found
from tuneoff.server.job import format_base_argument
from tuneoff.server.settings import ServerConfig
from tuneoff.server.store import Store
from tuneoff.storage.files import remove_folder
from tuneoff.storage.run_dir import ContenderDir
from tuneoff.tokenization.chat_template import find_job_date


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A tuned model or a checkpoint."""

    name: str
    created_at: int
    base: str
    job_id: str
    step: int | None
    """The step of a checkpoint; None for a tuned model."""


def list_tuned(store: Store) -> list[StoredModel]:
    """Return all tuned models, the oldest first."""
    return [
        StoredModel(**row) for row in store.rows("SELECT * FROM tuned ORDER BY created_at, name")
    ]


def list_newest_tuned(store: Store, limit: int) -> list[StoredModel]:
    """Return at most `limit` tuned models, the newest first."""
    sql = "SELECT * FROM tuned ORDER BY created_at DESC, name DESC LIMIT ?"
    return [StoredModel(**row) for row in store.rows(sql, limit)]


def find_tuned(store: Store, name: str) -> StoredModel | None:
    """Return the tuned model of this name; None if there is none."""
    rows = store.rows("SELECT * FROM tuned WHERE name = ?", name)
    return StoredModel(**rows[0]) if rows else None


def get_tuned(store: Store, name: str) -> StoredModel:
    """Return the tuned model of this name.

    Raises:
        ApiError: there is none.
    """
    tuned = find_tuned(store, name)
    if tuned is None:
        raise build_not_found("model", name, "model")
    return tuned


def build_served_model(
    store: Store, settings: ServerConfig, tuned: StoredModel
) -> ServedModel | None:
    """Return how to serve a tuned model; None if this server was started without its base."""
    if tuned.base not in settings.bases:
        return None
    (job,) = store.rows("SELECT created_at, facts FROM jobs WHERE id = ?", tuned.job_id)
    today = find_job_date(json.loads(job["facts"]), job["created_at"])
    base = settings.bases[tuned.base]
    return ServedModel(tuned.name, base, _get_adapter_dir(store, tuned), today=today)


def explain_unserved(store: Store, settings: ServerConfig, tuned: StoredModel) -> ApiError:
    """Return the error for a tuned model whose base is not served."""
    (row,) = store.rows("SELECT facts FROM jobs WHERE id = ?", tuned.job_id)
    return ApiError(
        404,
        f"The model {tuned.name!r} was tuned on {tuned.base}, which this server was not started "
        f"with (it serves {', '.join(settings.bases) or 'no base'}); start it with --base "
        f"{format_base_argument(json.loads(row['facts']))} as well.",
        "model",
        "model_not_found",
    )


def delete_tuned(store: Store, tuned: StoredModel) -> None:
    """Delete a tuned model with its weights, and nothing else."""
    with store.transaction() as connection:
        connection.execute("DELETE FROM models WHERE id = ?", (tuned.name,))
        connection.execute("DELETE FROM checkpoints WHERE model = ?", (tuned.name,))
    remove_folder(_get_adapter_dir(store, tuned))


def _get_adapter_dir(store: Store, tuned: StoredModel) -> Path:
    """Return the folder of a tuned model's adapter."""
    directory = ContenderDir(store.job_path(tuned.job_id))
    return directory.adapter if tuned.step is None else directory.epoch(tuned.step)


def render_model(tuned: StoredModel, settings: ServerConfig) -> schemas.Model:
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
