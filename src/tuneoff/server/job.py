"""A fine-tuning job: the request body, the contender that it becomes, and its API form."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from tuneoff.config.contenders import LocalConfig, LoraConfig, TrainConfig
from tuneoff.server import schemas
from tuneoff.server.request_schemas import Text, reject_with
from tuneoff.tokenization.openai import compute_default_epochs

ACTIVE_STATES = ("queued", "running", "paused")
Auto = Literal["auto"]
NO_INTEGRATIONS = (
    "integrations (wandb) are not supported; the job's events and its result file have the losses"
)
_SUFFIX = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class _RequestBody(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class Hyperparameters(_RequestBody):
    """Hyperparameters as in the hosted API."""

    n_epochs: Auto | Annotated[int, Field(ge=1, le=50)] | None = "auto"
    batch_size: Auto | Annotated[int, Field(ge=1, le=256)] | None = "auto"
    learning_rate_multiplier: Auto | Annotated[float, Field(gt=0, le=1000)] | None = "auto"

    @field_validator("*")
    @classmethod
    def _chosen(cls, value: Any) -> Any:
        """Turn null into `auto`."""
        return "auto" if value is None else value


class Supervised(_RequestBody):
    """The `supervised` part of a method."""

    hyperparameters: Hyperparameters | None = None


class Method(_RequestBody):
    """The `method` of a job; only supervised fine-tuning is supported."""

    type: Literal["supervised"]
    supervised: Supervised | None = None
    dpo: None = None
    reinforcement: None = None


class JobCreate(_RequestBody):
    """The body of a request for a job."""

    model: Text
    training_file: Text
    validation_file: Text | None = None
    hyperparameters: Hyperparameters | None = None
    method: Method | None = None
    suffix: Annotated[str, Field(max_length=64, pattern=_SUFFIX)] | Literal[""] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    metadata: (
        dict[
            Annotated[Text, Field(min_length=1, max_length=64)],
            Annotated[Text, Field(max_length=512)],
        ]
        | None
    ) = Field(default=None, max_length=16)
    integrations: Annotated[list[Any], Field(max_length=0), reject_with(NO_INTEGRATIONS)] | None = (
        None
    )

    def asked(self) -> Hyperparameters:
        """Return the requested hyperparameters: from `method`, else from the older field, else all
        `auto`."""
        supervised = self.method.supervised if self.method else None
        newer = supervised.hyperparameters if supervised else None
        return newer or self.hyperparameters or Hyperparameters()


def resolve_hyperparameters(asked: Hyperparameters, examples: int) -> dict[str, int | float]:
    """Return a number for each `auto` hyperparameter.

    Epochs: 3; more for few examples, while at most 100 are seen; fewer for many, where over 25,000
    would be seen (1 to 25). Batch size: 0.2% of the examples, 8 to 64.
    """
    batch = min(64, max(8, math.ceil(0.002 * examples)))
    epochs, multiplier = asked.n_epochs, asked.learning_rate_multiplier
    return {
        "n_epochs": epochs if isinstance(epochs, int) else compute_default_epochs(examples),
        "batch_size": asked.batch_size if isinstance(asked.batch_size, int) else batch,
        "learning_rate_multiplier": multiplier if isinstance(multiplier, float) else 1.0,
    }


def build_contender_config(
    job_id: str, base: str, facts: dict[str, Any], rate: float
) -> LocalConfig:
    """Return the contender for a job: LoRA on all linear layers, without dropout.

    On a CPU, dropout's random numbers take a third of a step's time (`benchmarks/engine_parts.py`).

    Args:
        rate: the learning rate at a multiplier of 1.
    """
    numbers = facts["resolved"]
    train = TrainConfig(
        epochs=numbers["n_epochs"],
        batch_size=numbers["batch_size"],
        learning_rate=min(0.999, rate * numbers["learning_rate_multiplier"]),
    )
    lora = LoraConfig(dropout=0.0)
    return LocalConfig(
        name=job_id, id="local", base=base, lora=lora, train=train, seed=facts["seed"]
    )


def render_job(row: dict[str, Any]) -> schemas.Job:
    """Return a stored job as the API shows it."""
    facts = json.loads(row["facts"])
    numbers = facts["resolved"]
    if "started_at" not in facts:  # as in the hosted API: the requested values until the job starts
        numbers = facts.get("asked", numbers)
    return {
        "id": row["id"],
        "object": "fine_tuning.job",
        "created_at": row["created_at"],
        "status": row["status"],
        "model": facts["model"],
        "organization_id": facts["organization_id"],
        "training_file": facts["training_file"],
        "validation_file": facts["validation_file"],
        "hyperparameters": numbers,
        "method": {"type": "supervised", "supervised": {"hyperparameters": numbers}},
        "seed": facts["seed"],
        "metadata": facts["metadata"],
        "integrations": [],
        "error": facts.get("error"),
        "fine_tuned_model": facts.get("fine_tuned_model"),
        "finished_at": facts.get("finished_at"),
        "estimated_finish": (facts.get("estimated_finish") if row["status"] == "running" else None),
        "trained_tokens": facts.get("trained_tokens"),
        "result_files": facts.get("result_files", []),
    }


def format_base_argument(facts: dict[str, Any]) -> str:
    """Return the value of `--base` that serves a job's base: a folder or a name."""
    loaded = Path(facts.get("base", ""))
    return str(loaded) if loaded.name == facts["model"] else str(facts["model"])


def build_model_name(base: str, organization: str, suffix: str | None, job_id: str) -> str:
    """Return `ft:BASE:ORG:SUFFIX:ID`, the hosted API's form of a tuned model's name."""
    return f"ft:{base}:{organization}:{suffix or ''}:{job_id.partition('-')[2][:12]}"
