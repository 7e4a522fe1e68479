"""A fine-tuning job: what a client may ask for, what it means here, how it is shown."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from tuneoff.billing import default_epochs
from tuneoff.contender_settings import LocalSettings, LoraSettings, TrainSettings
from tuneoff.server import shapes
from tuneoff.server.asked import Text, refused

ACTIVE = ("queued", "running", "paused")
Auto = Literal["auto"]
NO_INTEGRATIONS = (
    "integrations (wandb) are not supported; the job's events and its result file have the losses"
)
_SUFFIX = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class Hyperparameters(_Asked):
    """As the hosted API has them."""

    n_epochs: Auto | Annotated[int, Field(ge=1, le=50)] | None = "auto"
    batch_size: Auto | Annotated[int, Field(ge=1, le=256)] | None = "auto"
    learning_rate_multiplier: Auto | Annotated[float, Field(gt=0, le=1000)] | None = "auto"

    @field_validator("*")
    @classmethod
    def _chosen(cls, value: Any) -> Any:
        return "auto" if value is None else value


class Supervised(_Asked):
    """Supervised fine-tuning's own part."""

    hyperparameters: Hyperparameters | None = None


class Method(_Asked):
    """How to tune: supervised is what there is."""

    type: Literal["supervised"]
    supervised: Supervised | None = None
    dpo: None = None
    reinforcement: None = None


class JobCreate(_Asked):
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
    integrations: Annotated[list[Any], Field(max_length=0), refused(NO_INTEGRATIONS)] | None = None

    def asked(self) -> Hyperparameters:
        """The newer place, else the older top-level one, else nothing but `auto`."""
        supervised = self.method.supervised if self.method else None
        newer = supervised.hyperparameters if supervised else None
        return newer or self.hyperparameters or Hyperparameters()


def resolved(asked: Hyperparameters, examples: int) -> dict[str, int | float]:
    """Return numbers for every `auto`: 3 epochs, more of fewer examples while at most 100 are seen,
    fewer of so many that over 25,000 would be (1 to 25); batches of 0.2% of the examples, 8 to 64.
    """
    batch = min(64, max(8, math.ceil(0.002 * examples)))
    epochs, multiplier = asked.n_epochs, asked.learning_rate_multiplier
    return {
        "n_epochs": epochs if isinstance(epochs, int) else default_epochs(examples),
        "batch_size": asked.batch_size if isinstance(asked.batch_size, int) else batch,
        "learning_rate_multiplier": multiplier if isinstance(multiplier, float) else 1.0,
    }


def settings_of(job_id: str, base: str, facts: dict[str, Any], rate: float) -> LocalSettings:
    """The contender that a job is: LoRA on all linear layers. Without dropout, whose random numbers
    for each layer are a third of a step's time on a CPU (`benchmarks/engine_parts.py`).

    Args:
        rate: the learning rate that a multiplier of 1 means.
    """
    numbers = facts["resolved"]
    train = TrainSettings(
        epochs=numbers["n_epochs"],
        batch_size=numbers["batch_size"],
        learning_rate=min(0.999, rate * numbers["learning_rate_multiplier"]),
    )
    lora = LoraSettings(dropout=0.0)
    return LocalSettings(
        name=job_id, id="local", base=base, lora=lora, train=train, seed=facts["seed"]
    )


def shown(row: dict[str, Any]) -> shapes.Job:
    """A stored job as the SDK reads it."""
    facts = json.loads(row["facts"])
    numbers = facts["resolved"]
    if "started_at" not in facts:  # as the hosted API has it: what was asked, until it begins
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


def base_argument(facts: dict[str, Any]) -> str:
    """What `--base` is given so that a job's base is there: a folder, or the name itself."""
    loaded = Path(facts.get("base", ""))
    return str(loaded) if loaded.name == facts["model"] else str(facts["model"])


def model_name(base: str, organization: str, suffix: str | None, job_id: str) -> str:
    """`ft:BASE:ORG:SUFFIX:ID`, as the hosted API names what it tuned."""
    return f"ft:{base}:{organization}:{suffix or ''}:{job_id.partition('-')[2][:12]}"
