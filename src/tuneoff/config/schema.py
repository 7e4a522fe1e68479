"""The bake-off file: what a user writes, checked before anything is done.

Frozen pydantic models with `extra="forbid"`, with a docstring under each field. Defaults are what a
practitioner would choose: the shortest useful file is a task and a contender.
`contenders.py` has the contenders, `load.py` reads a file from YAML.
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

from tuneoff.config.base import BaseUrl, Columns, Config, Limit, PriceConfig
from tuneoff.config.contenders import BaseContenderConfig, ContenderConfig
from tuneoff.errors import explain_unknown


class JudgeConfig(Config):
    """The metric `judge` for free text: a provider's model compares an answer with the reference
    (`scoring/llm_judge.py`)."""

    id: Literal["judge"]
    """Always `judge`."""
    provider: Literal["openai"] = "openai"
    """The provider of the judging model."""
    model: str
    """The judging model's name at the provider."""
    base_url: BaseUrl | None = None
    """The address of the API. Default: the provider's own."""
    rubric: str = Field(min_length=1)
    """What makes an answer as good as the reference, in words. The judge is shown this text."""
    price: PriceConfig | None = None
    """The judge's prices. Default: the price book's."""
    concurrency: int = Field(default=8, ge=1, le=1000)
    """Max judge requests in flight at once."""


class GraderConfig(Config):
    """A grader of OpenAI's, in a JSON or YAML file (`scoring/graders.py`).

    All keys but `id` and `file` are only for a grader that asks a model.
    """

    id: Literal["grader"]
    """Always `grader`."""
    file: str = Field(min_length=1)
    """The grader's file. A path relative to the bake-off file."""
    provider: Literal["openai"] = "openai"
    """The provider of the grading model."""
    model: str | None = Field(default=None, min_length=1)
    """The model to ask instead of the one that the file names, which may have ended. Default: the
    file's."""
    base_url: BaseUrl | None = None
    """The address of the API. Default: the provider's own."""
    price: PriceConfig | None = None
    """The grading model's prices. Default: the price book's."""
    concurrency: int = Field(default=8, ge=1, le=1000)
    """Max grader requests in flight at once."""


def _get_metric_tag(metric: Any) -> str:
    """Return the tag of the metric union that a value belongs to: id, judge or grader."""
    if isinstance(metric, GraderConfig):
        return "grader"
    if isinstance(metric, Mapping):
        return "grader" if metric.get("id") == "grader" else "judge"
    return "judge" if isinstance(metric, JudgeConfig) else "id"


# The tag is chosen before validation, so that an error comes from one model only.
Metric = Annotated[
    Annotated[str, Tag("id")]
    | Annotated[JudgeConfig, Tag("judge")]
    | Annotated[GraderConfig, Tag("grader")],
    Discriminator(_get_metric_tag),
]


class TaskConfig(Config):
    """The examples, the prompts built from them, and the metrics of their answers."""

    id: str
    """The task: a module of `tuneoff.tasks`, an installed module (`my_package.my_task`), or the
    path of a Python file."""
    source: str | None = None
    """One of the task's sources of examples, for instance `viggo`. `chat` has none and reads
    `train`, `validation` and `test` instead. Default: the task's usual source."""
    splits: Literal["default", "seed"] = "default"
    """How examples are split. `default`: no input is in two splits. `seed`: the arrangement of the
    2023 seed experiment, whose splits may overlap."""
    prompt: Literal["full", "short"] = "full"
    """`full`: the task's whole prompt. `short`: the prompt without its instruction. A contender's
    `prompt` overrides it."""
    context: Literal["create", "schema"] = "create"
    """Text to SQL: the schema in the prompt. `create`: the example's own `CREATE TABLE` statements.
    `schema`: the whole schema, read from the SQLite file."""
    limit: Limit = Limit()
    """Max examples of each split."""
    seed: int = 0
    """Random seed of sampling and splitting."""
    metrics: tuple[Metric, ...] | None = Field(default=None, min_length=1)
    """The metrics to show; the first is the primary one, which decides. Each is the id of a metric,
    the path of a Python file with `score(example, prediction)`, the path of a grader (JSON or
    YAML), or a judge. Default: the scorer's metrics."""
    cluster: str | None = None
    """A key of `meta`. The tests of a difference treat examples with the same value as one cluster.
    Default: the task's own, if it has one."""
    mode: Literal["strict", "official"] = "strict"
    """SQL: whose verdicts count. `strict`: tuneoff's rules. `official`: those of the official
    evaluator."""
    derived_databases: int = Field(default=0, ge=0, le=1000)
    """SQL: the number of databases to derive from each database, which complete its test suite."""
    seconds: float = Field(default=5.0, ge=0.01, le=3600)
    """SQL: the time limit of a query, in seconds."""
    memory_gb: float = Field(default=1.0, ge=0.2, le=1024)
    """SQL: the memory limit of a process that runs queries, in GB."""
    max_new_tokens: int | None = Field(default=None, ge=1)
    """Max tokens of an answer. Default: the task's own limit."""
    train: str | None = None
    """`chat`: the file of training examples. A path relative to the bake-off file."""
    validation: str | None = None
    """`chat`: the file of validation examples. Default: some are carved out of train."""
    test: str | None = None
    """`chat`: the file of test examples. Default: some are carved out of train."""
    columns: Columns | None = None
    """Which columns hold what, for a CSV, Parquet or prompt/completion file. Default: the usual
    names."""
    drop_overlap: bool = False
    """Remove rows from train, then from validation, whose inputs are in a later split too. The test
    set stays as it is. Without it, overlapping splits are an error."""
    databases: str | None = None
    """SQL: the folder of SQLite files, `DB_ID/*.sqlite`."""


class Requirements(Config):
    """What the recommended contender must satisfy."""

    margin_points: float = Field(default=3.0, gt=0, lt=100)
    """The equivalence margin, in points of the primary metric. A smaller difference does not
    matter."""
    data_stays_here: bool = False
    """Examples and prompts must not be sent to a provider."""
    managed: bool = False
    """A provider must run the model."""
    max_latency_seconds: float | None = Field(default=None, gt=0)
    """Max latency of an answer, in seconds: the 95th percentile where it is known, else the median.
    Default: no limit."""


class TrafficConfig(Config):
    """The expected production load. Monthly costs are computed from it."""

    utilization: float = Field(default=0.5, gt=0, le=1)
    """The share of its measured throughput that a reserved machine is used to on average, above 0
    and up to 1. Traffic has peaks and nights, so half is already much."""
    requests_per_month: int | None = Field(default=None, ge=1, le=10**12)
    """The number of requests a month. Default: not known; costs per request are then those of a
    machine used to `utilization`."""
    tune_again_months: int = Field(default=12, ge=1, le=120)
    """Every how many months a provider's model with an end date is tuned again, on its successor.
    """


class BakeOff(Config):
    """One bake-off file. Relative paths in it are relative to its `folder`."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)
    """The bake-off's name, which names its run directory. Letters, digits, `.`, `_` and `-`."""
    task: TaskConfig
    """The examples, the prompts and the metrics."""
    contenders: tuple[ContenderConfig, ...] = Field(min_length=1)
    """The models to compare, at least one. Their names differ, in more than upper and lower case.
    """
    requirements: Requirements = Requirements()
    """What the recommended contender must satisfy."""
    serving: TrafficConfig = TrafficConfig()
    """The expected production load, for monthly costs."""
    measure: bool = True
    """Measure every contender's latency on test prompts, one at a time."""
    migrating_from: str | None = None
    """The contender that is being left. The others are compared with it, and it is never
    recommended."""
    budget_usd: float | None = Field(default=None, ge=0)
    """Max money of the whole run, in USD. No paid step begins that could exceed it. Default: no
    limit."""
    as_of: datetime.date | None = None
    """The day whose prices and end dates are reported. A run pays today's prices in any case.
    Default: today."""
    prices: str | None = None
    """A file of your own prices, which come before the price book's. A path relative to the
    bake-off file."""
    data_dir: str | None = None
    """A folder of local copies of data sets. Default: the environment variable `TUNEOFF_DATA`, else
    the hub."""
    folder: Path = Field(default=Path("."), exclude=True)
    """The folder of the bake-off file. Not a key of the file: it is filled in when the file is
    read."""

    @field_validator("contenders")
    @classmethod
    def _check_names(
        cls, contenders: tuple[BaseContenderConfig, ...]
    ) -> tuple[BaseContenderConfig, ...]:
        """Raise ValueError if two contenders have the same name."""
        seen: set[str] = set()
        for contender in contenders:
            if contender.name.lower() in seen:
                raise ValueError(
                    f"the name {contender.name!r} is used twice; each contender needs its own"
                )
            seen.add(contender.name.lower())
        return contenders

    @model_validator(mode="after")
    def _check_migrating_from(self) -> BakeOff:
        """Raise ValueError if `migrating_from` names no contender of the file."""
        names = [contender.name for contender in self.contenders]
        if self.migrating_from is not None and self.migrating_from not in names:
            raise ValueError(
                f"migrating_from: {explain_unknown('contender', self.migrating_from, names)}; "
                "name one of "
                "the file's contenders"
            )
        return self

    def path(self, written: str) -> Path:
        """Return a path of the file as an absolute path."""
        return (self.folder / Path(written).expanduser()).resolve()
