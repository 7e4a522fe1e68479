"""The bake-off file: what a user writes, checked before anything is done.

Frozen pydantic models with `extra="forbid"`. Every field has a default that a
practitioner would choose; the shortest useful file is a task and a contender.
`contender_settings.py` has the contenders; `bakeoff_file.py` reads a file from YAML.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from tuneoff.contender_settings import ContenderBase, ContenderSettings
from tuneoff.errors import unknown
from tuneoff.settings import BaseUrl, Columns, Limit, PriceSettings, Settings


class JudgeSettings(Settings):
    """A metric `judge` for free text: a model of a provider says by a rubric whether an answer
    is as good as the reference (`scoring/judge.py`)."""

    id: Literal["judge"]
    provider: Literal["openai"] = "openai"
    model: str
    base_url: BaseUrl | None = None
    rubric: str = Field(min_length=1)
    price: PriceSettings | None = None
    concurrency: int = Field(default=8, ge=1, le=1000)


class GraderSettings(Settings):
    """A grader of OpenAI's in a JSON or YAML file (`scoring/graders.py`). The other keys are for
    one that asks a model: `model` is asked instead of the file's own, which may have ended."""

    id: Literal["grader"]
    file: str = Field(min_length=1)
    provider: Literal["openai"] = "openai"
    model: str | None = Field(default=None, min_length=1)
    base_url: BaseUrl | None = None
    price: PriceSettings | None = None
    concurrency: int = Field(default=8, ge=1, le=1000)


def _kind_of_metric(metric: Any) -> str:
    if isinstance(metric, GraderSettings):
        return "grader"
    if isinstance(metric, Mapping):
        return "grader" if metric.get("id") == "grader" else "judge"
    return "judge" if isinstance(metric, JudgeSettings) else "id"


# Told apart before they are looked at, so that only one of them has something to say.
Metric = Annotated[
    Annotated[str, Tag("id")]
    | Annotated[JudgeSettings, Tag("judge")]
    | Annotated[GraderSettings, Tag("grader")],
    Discriminator(_kind_of_metric),
]


class TaskSettings(Settings):
    """Where the examples come from, how they become a prompt, and how answers are judged.

    `id` names a module of `tuneoff.tasks`, an installed module, or a Python file.
    `source` names one of the task's sources; `chat` reads `train`, `validation` and
    `test` files instead (relative to the bake-off file). `drop_overlap` leaves rows out of train,
    then of validation, whose inputs are in a later split, too; the test set stays as it is.

    `metrics` are the ones to show, the first of which decides: ids, the path of a Python file
    with `score(example, prediction)` or of a grader (JSON or YAML), or a judge. Tests of a
    difference hold examples of the same `cluster`, a key of `meta`, together (left out: what the
    task knows of). `mode` and `derived_databases` are for SQL: whose verdicts, and how many
    databases are derived from each to complete its suite; so are `seconds` and `memory_gb`, which
    a query may take.
    """

    id: str
    source: str | None = None
    splits: Literal["default", "seed"] = "default"
    prompt: Literal["full", "short"] = "full"
    context: Literal["create", "schema"] = "create"
    limit: Limit = Limit()
    seed: int = 0
    metrics: tuple[Metric, ...] | None = Field(default=None, min_length=1)
    cluster: str | None = None
    mode: Literal["strict", "official"] = "strict"
    derived_databases: int = Field(default=0, ge=0, le=1000)
    seconds: float = Field(default=5.0, ge=0.01, le=3600)
    memory_gb: float = Field(default=1.0, ge=0.2, le=1024)
    max_new_tokens: int | None = Field(default=None, ge=1)
    train: str | None = None
    validation: str | None = None
    test: str | None = None
    columns: Columns | None = None
    drop_overlap: bool = False
    databases: str | None = None


class Requirements(Settings):
    """What the recommendation must respect. `margin_points`: a difference that is smaller would not
    matter, in points of the primary metric."""

    margin_points: float = Field(default=3.0, gt=0, lt=100)
    data_stays_here: bool = False
    managed: bool = False
    max_latency_seconds: float | None = Field(default=None, gt=0)


class ServingSettings(Settings):
    """What answering will look like once a contender is chosen; costs a month rest on it.

    `utilization`: the share of its measured throughput that a reserved machine is used to, on
    average; traffic has peaks and nights, so half is already much. `requests_per_month`: how many
    there will be; left out, costs per request are those of a machine used to that share.
    `tune_again_months`: how often a provider's model that has an end date is tuned anew, on its
    successor.
    """

    utilization: float = Field(default=0.5, gt=0, le=1)
    requests_per_month: int | None = Field(default=None, ge=1, le=10**12)
    tune_again_months: int = Field(default=12, ge=1, le=120)


class BakeOff(Settings):
    """One bake-off file. Relative paths in it are relative to `folder`, where it lies. `measure`
    says whether every contender is timed on test prompts one at a time. `migrating_from` names the
    contender that is being left: others are held against it, and it is never the choice."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)
    task: TaskSettings
    contenders: tuple[ContenderSettings, ...] = Field(min_length=1)
    requirements: Requirements = Requirements()
    serving: ServingSettings = ServingSettings()
    measure: bool = True
    migrating_from: str | None = None
    budget_usd: float | None = Field(default=None, ge=0)
    as_of: datetime.date | None = None
    prices: str | None = None
    data_dir: str | None = None
    folder: Path = Field(default=Path("."), exclude=True)

    @field_validator("contenders")
    @classmethod
    def _names_differ(cls, contenders: tuple[ContenderBase, ...]) -> tuple[ContenderBase, ...]:
        seen: set[str] = set()
        for contender in contenders:
            if contender.name.lower() in seen:
                raise ValueError(
                    f"the name {contender.name!r} is used twice; each contender needs its own"
                )
            seen.add(contender.name.lower())
        return contenders

    @model_validator(mode="after")
    def _knows_what_is_left(self) -> BakeOff:
        names = [contender.name for contender in self.contenders]
        if self.migrating_from is not None and self.migrating_from not in names:
            raise ValueError(
                f"migrating_from: {unknown('contender', self.migrating_from, names)}; name one of "
                "the file's contenders"
            )
        return self

    def path(self, written: str) -> Path:
        """A path from the file, made absolute."""
        return (self.folder / Path(written).expanduser()).resolve()
