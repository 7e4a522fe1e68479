"""What a user writes about a contender.

The `id` chooses the contender class: `local`, `hosted`, `prompted` or `recorded`. Every field has a
docstring, and a default that a practitioner would choose.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from tuneoff.config.base import BaseUrl, Config, KeyVariable, PriceConfig, Reasoning, Sampling, Usd

SHIPPED_BASE = "tiny"
Rendering = Literal["chat", "text"]
# The inference backend of an open model. vLLM needs the extra of its name and a GPU.
Backend = Literal["transformers", "vllm"]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Fraction = Annotated[float, Field(gt=0, le=1)]
MODULE_SETS = ("attention", "all-linear")


class LoraConfig(Config):
    """LoRA (Hu et al. 2021), with PEFT's parameters."""

    r: int = Field(default=16, ge=1)
    """Rank of the adapter."""
    alpha: float = Field(default=32, gt=0)
    """Scaling factor: the adapter's output is multiplied by `alpha / r`."""
    dropout: float = Field(default=0.05, ge=0, lt=1)
    """Dropout probability before the adapter, from 0 to below 1."""
    target_modules: tuple[str, ...] | Literal["attention", "all-linear"] = "all-linear"
    """The layers that get an adapter: `all-linear`, `attention` (query, key, value and output
    projections), or a list of module names."""
    use_dora: bool = False
    """Use DoRA (Liu et al. 2024), as PEFT implements it."""
    use_rslora: bool = False
    """Use rank-stabilized LoRA (Kalajdzievski 2023), as PEFT implements it."""

    @field_validator("target_modules", mode="before")
    @classmethod
    def _known(cls, value: object) -> object:
        """Raise ValueError if a text is neither of the two sets of modules."""
        if isinstance(value, str) and value not in MODULE_SETS:
            raise ValueError(f"give {' or '.join(MODULE_SETS)}, or a list of modules' names")
        return value


class TrainConfig(Config):
    """How a local contender is trained."""

    loss_on: Literal["completion", "text"] = "completion"
    """The tokens that the loss is computed on. `completion`: the answer. `text`: prompt and answer,
    as in the seed experiment's notebooks."""
    batch_size: int = Field(default=32, ge=1)
    """Examples per optimizer step, however they are computed: as one prefix tree, in micro-batches
    that fit into memory, or `micro_batch_size` at a time."""
    micro_batch_size: int | None = Field(default=None, ge=1)
    """Examples per forward pass; it must divide `batch_size`. Default: as many as fit into memory.
    """
    grouping: Literal["random", "by_length", "by_prefix"] = "random"
    """Which examples form a batch (`training/sampler.py`): `random`, `by_length` (similar lengths)
    or `by_prefix` (shared beginnings, so that fewer tokens are computed)."""
    share_prefixes: bool = True
    """Compute a prefix that several examples share once. `false` computes ordinary padded batches.
    """
    learning_rate: float | Literal["search"] | None = None
    """The peak learning rate, between 0 and 1. `search` tries a few rates on a small budget first
    (`training/learning_rate_search.py`). Default: 2e-4 for LoRA, 2e-5 for all parameters."""
    warmup_steps: int | None = Field(default=None, ge=0)
    """Optimizer steps over which the learning rate rises to its peak. Default: 5% of the steps, of
    at most 1000."""
    schedule: Literal["linear", "cosine", "constant"] | None = None
    """The learning rate after warmup: `linear`, `cosine` or `constant`. Default: `linear`; with
    `until: converged`, whose end is not known in advance, `constant`."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Weight decay of the optimizer."""
    epochs: float | None = Field(default=None, gt=0)
    """Passes over the training examples; with `until: converged`, at most. Default: 3, or 30 with
    `until`. Not together with `max_steps`."""
    max_steps: int | None = Field(default=None, ge=1)
    """Optimizer steps; with `until: converged`, at most. Default: as many as `epochs` make."""
    until: Literal["converged"] | None = None
    """`converged`: stop after `patience` validations in a row without an improvement. Default:
    train to the end."""
    patience: int = Field(default=3, ge=1)
    """With `until: converged`: the validations in a row without an improvement that end the
    training."""
    evaluate_every: int | None = Field(default=None, ge=1)
    """Optimizer steps between two validations. Default: two validations per epoch."""
    max_length: int | None = Field(default=None, ge=8)
    """Max tokens of an example, at least 8. A longer one is an error, or is truncated (`truncate`).
    Default: the base's number of positions."""
    truncate: bool = False
    """Truncate examples that are too long: their context or input, never their answer."""
    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"
    """The floating-point type of computation. `auto`: float32 on a CPU; on an accelerator bf16, or
    fp16 where it has no bf16."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    parallel: Literal["auto", "ddp", "fsdp"] = "auto"
    """How the `hardware.count` processes share a training. `ddp`: each holds the whole model.
    `fsdp`: each holds a shard of it. `auto`: one process, unless this machine has that many
    accelerators."""
    report_to: tuple[Literal["trackio", "wandb", "mlflow", "tensorboard"], ...] = ()
    """Experiment trackers that transformers reports to. Default: none."""

    @field_validator("learning_rate", mode="before")
    @classmethod
    def _check_rate(cls, rate: Any) -> Any:
        """Return the rate as a number, or `search`; raise ValueError for anything else."""
        if isinstance(rate, str) and rate != "search":
            with suppress(ValueError):
                rate = float(rate)  # YAML 1.1 takes 2e-3, without a point, for text
        number = isinstance(rate, (int, float)) and not isinstance(rate, bool)
        if rate in (None, "search") or (number and 0 < rate < 1):
            return rate
        raise ValueError(f"got {rate!r}; allowed: a number between 0 and 1, or search")

    @model_validator(mode="after")
    def _check_duration(self) -> TrainConfig:
        """Raise ValueError if durations contradict each other, or micro-batches do not fill a
        batch."""
        if self.epochs is not None and self.max_steps is not None:
            raise ValueError("give epochs or max_steps, not both")
        if self.micro_batch_size is not None and self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of "
                f"micro_batch_size {self.micro_batch_size}"
            )
        return self


class Hardware(Config):
    """The machine that a contender runs on, and the price of its hour."""

    accelerator: str | None = None
    """The accelerator's name in the price book, for instance `H100`. Default: not named, so only
    `usd_per_hour` gives a price."""
    count: int = Field(default=1, ge=1)
    """The number of accelerators. With `train.parallel`, also the number of processes."""
    usd_per_hour: float | None = Field(default=None, ge=0, lt=10_000)
    """The price of one hour, in USD. Default: the price book's for `accelerator`."""


def _refuse_repeated(values: Sequence[float]) -> None:
    """Raise ValueError if a value is there twice."""
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{value} is there twice; keep one")


class BaseContenderConfig(Config):
    """The fields of every contender."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)
    """The contender's name in the report. Letters, digits, `.`, `_` and `-`, at most 80."""
    rendering: Rendering | None = None
    """How prompts become text. `chat`: by the tokenizer's chat template. `text`: as plain text.
    Default: `chat` where there is a template."""
    prompt: Literal["full", "short"] | None = None
    """`full` or `short` (the prompt without its instruction). Default: the task's `prompt`."""


def _refuse_sampling(value: Any, why: str) -> Any:
    """Raise ValueError if a contender that cannot sample has keys of `Sampling`; return the value.

    The message says why, which "unknown key" would not.
    """
    given = [key for key in Sampling.model_fields if isinstance(value, dict) and key in value]
    if given:
        raise ValueError(f"{' and '.join(given)}: {why}")
    return value


GREEDY_ONLY = (
    "an open base answers greedily here, so all samples of an example would be the same; leave it "
    "out, or serve the model and ask it as `id: prompted` with provider, model, base_url and "
    "temperature"
)


class LocalConfig(BaseContenderConfig):
    """An open model that is tuned on this machine or on your cluster."""

    id: Literal["local"]
    """Always `local`."""
    base: str = SHIPPED_BASE
    """The base model: a folder, a hub id, or `tiny`, which ships with tuneoff."""
    method: Literal["lora", "full"] = "lora"
    """`lora` trains an adapter; `full` trains all parameters."""
    quantization: Literal["none", "int8", "nf4"] = "none"
    """Load the base's weights as `int8` or `nf4`, for less memory. Not with `method: full`."""
    lora: LoraConfig = LoraConfig()
    """The adapter's parameters, for `method: lora`."""
    train: TrainConfig = TrainConfig()
    """How it is trained."""
    backend: Backend = "transformers"
    """The engine that answers the test set: `transformers`, or `vllm`."""
    hardware: Hardware | None = None
    """The machine that it is trained and served on, for costs. Default: not priced."""
    seed: int = 0
    """Random seed of the one training. Not together with `seeds`."""
    seeds: tuple[Seed, ...] | None = None
    """Random seeds, two or more: one training per seed, to measure how much training itself varies.
    """
    learning_curve: tuple[Fraction, ...] | None = None
    """Fractions of the training examples, above 0 and below 1: one more training per fraction. Each
    fraction's examples are a subset of the next larger one's. A fraction is trained for as many
    epochs, so for fewer steps; `max_steps`, `warmup_steps` and `evaluate_every` are scaled by it.
    The point of all examples is the contender's own training. With `seeds`, the curve is the first
    seed's. Default: no curve."""

    @model_validator(mode="before")
    @classmethod
    def _greedy(cls, value: Any) -> Any:
        """Raise ValueError if there are keys of `Sampling`: an open base answers greedily."""
        return _refuse_sampling(value, GREEDY_ONLY)

    @field_validator("seeds")
    @classmethod
    def _check_seeds(cls, seeds: tuple[int, ...] | None) -> tuple[int, ...] | None:
        """Raise ValueError if `seeds` are fewer than two, or one is there twice."""
        if seeds is not None and len(seeds) < 2:
            raise ValueError("give two seeds or more here, or a single one as seed")
        _refuse_repeated(seeds or ())
        return seeds

    @field_validator("learning_curve")
    @classmethod
    def _parts(cls, fractions: tuple[float, ...] | None) -> tuple[float, ...] | None:
        """Return the fractions in ascending order; raise ValueError if they make no curve."""
        if fractions is None:
            return None
        if min(fractions, default=1) == 1:
            raise ValueError(
                "give a fraction below 1; the point of all training examples is there anyway"
            )
        _refuse_repeated(fractions)
        return tuple(sorted(fractions))

    @model_validator(mode="after")
    def _check_one_seed(self) -> LocalConfig:
        """Raise ValueError if both `seed` and `seeds` are given."""
        if self.seeds is not None and "seed" in self.model_fields_set:
            raise ValueError("give seed (one training) or seeds (one training each), not both")
        return self

    @model_serializer(mode="wrap")
    def _written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Return the fields without `seed` where there are `seeds`, so that the resolved file can
        be read again."""
        written: dict[str, Any] = handler(self)
        if self.seeds is not None:
            written.pop("seed", None)
        return written

    @model_validator(mode="after")
    def _check_combination(self) -> LocalConfig:
        """Raise ValueError if method, quantization and parallelism contradict each other."""
        if self.method == "full" and self.quantization != "none":
            raise ValueError(
                f"method full cannot train {self.quantization} weights; use method lora"
            )
        if self.train.parallel != "auto" and (self.hardware is None or self.hardware.count == 1):
            raise ValueError(
                f"train.parallel: {self.train.parallel} needs hardware: {{count: N}}, how many "
                "processes there are, with N from 2"
            )
        if self.train.parallel == "fsdp" and self.quantization != "none":
            raise ValueError(
                f"{self.quantization} weights cannot be divided over processes; use "
                "train.parallel: ddp, or quantization: none"
            )
        return self


class HostedConfig(BaseContenderConfig, Sampling):
    """A model that is tuned through a provider's fine-tuning API and answers through its chat API.

    Providers take different training parameters. OpenAI: `learning_rate_multiplier`. Together:
    `learning_rate`, `method` and `early_stopping`.
    """

    id: Literal["hosted"]
    """Always `hosted`."""
    provider: str = "openai"
    """The provider: `openai`, `azure`, `nebius`, `together`, an installed module, or the path of a
    Python file."""
    model: str
    """The base model's name at the provider."""
    base_url: BaseUrl | None = None
    """The address of the API. Default: the provider's own."""
    key_variable: KeyVariable | None = None
    """The environment variable that holds the API key. Default: the provider's usual one."""
    epochs: Annotated[int, Field(ge=1, le=50)] | Literal["auto"] = "auto"
    """Epochs of the job, or `auto` for the provider's choice."""
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Examples per step, or `auto` for the provider's choice."""
    learning_rate_multiplier: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    """OpenAI: a factor of the provider's learning rate, or `auto` for its choice."""
    learning_rate: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Together: the learning rate. Default: the provider's choice."""
    method: Literal["lora", "full"] | None = None
    """Together: `lora` or `full`. Default: the provider's choice."""
    early_stopping: bool = False
    """Together: stop when the validation loss no longer falls. It needs a validation split."""
    suffix: str | None = Field(default=None, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Part of the tuned model's name, at most 64 characters. Default: the contender's name and some
    letters that identify a lost job."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    """Random seed of the job. Default: the provider's choice."""
    checkpoint: Literal["final", "best"] = "final"
    """The checkpoint that answers: the `final` one, or the one with the `best` (lowest) validation
    loss."""
    deployment: str | None = Field(default=None, min_length=1)
    """The name of the deployed model, for providers where a tuned model must be deployed first. It
    may be added or changed after tuning."""
    batch: bool = False
    """Answer the test set through the provider's Batch API: half the price, within a day."""
    record: bool = False
    """Record every exchange, so that the run can be replayed when the model is gone."""
    price: PriceConfig | None = None
    """The model's prices. Default: the price book's."""
    concurrency: int = Field(default=16, ge=1, le=1000)
    """Max requests in flight at once."""


class PromptedConfig(BaseContenderConfig, Reasoning, Sampling):
    """A model that is not tuned: an open `base`, answered here, or a `model` of a `provider`.

    It answers zero-shot, or with `shots` examples from train.
    """

    id: Literal["prompted"]
    """Always `prompted`."""
    base: str | None = None
    """An open base model: a folder, a hub id, or `tiny`. Not together with `model`."""
    provider: str | None = None
    """The provider of `model`. Default: `openai`."""
    model: str | None = None
    """The model's name at the provider. Not together with `base`."""
    base_url: BaseUrl | None = None
    """The address of the API. Default: the provider's own."""
    key_variable: KeyVariable | None = None
    """The environment variable that holds the API key. Default: the provider's usual one."""
    record: bool = False
    """Record every exchange, so that the run can be replayed when the model is gone."""
    batch: bool = False
    """Answer the test set through the provider's Batch API: half the price, within a day."""
    shots: int = Field(default=0, ge=0, le=100)
    """The number of examples from train in each prompt."""
    seed: int = 0
    """Random seed that the examples are drawn with."""
    quantization: Literal["none", "int8", "nf4"] = "none"
    """Load the base's weights as `int8` or `nf4`, for less memory."""
    backend: Backend = "transformers"
    """The engine that answers for a `base`: `transformers`, or `vllm`."""
    hardware: Hardware | None = None
    """The machine that a `base` is served on, for costs. Default: not priced."""
    price: PriceConfig | None = None
    """The prices of a provider's model. Default: the price book's."""
    concurrency: int = Field(default=16, ge=1, le=1000)
    """Max requests in flight at once."""

    @model_validator(mode="after")
    def _check_model(self) -> PromptedConfig:
        """Raise ValueError unless there is one model, with keys that mean something for it."""
        if (self.base is None) == (self.model is None):
            raise ValueError("give either base (an open model) or provider and model")
        if self.base is not None and self.price is not None:
            raise ValueError("price is for a provider's model; a base costs its hardware's hours")
        if self.base is not None and self.batch:
            raise ValueError(
                "batch is for a provider's model; a base is answered in batches anyway"
            )
        if self.base is not None and (self.provider or self.base_url or self.key_variable):
            raise ValueError("provider, base_url and key_variable go with model, not with base")
        if self.model is not None and self.backend != "transformers":
            raise ValueError("backend is for an open base; a provider has its own")
        if self.base is not None and (self.reasoning_effort or self.reasoning_tokens):
            raise ValueError("reasoning_effort and reasoning_tokens go with model, not with base")
        if self.base is not None and (self.samples > 1 or self.temperature is not None):
            given = "samples" if self.samples > 1 else "temperature"
            raise ValueError(f"{given}: {GREEDY_ONLY}")
        if self.temperature is not None and self.reasoning_effort not in (None, "none"):
            raise ValueError(
                "a model takes no temperature while it reasons; leave temperature or "
                "reasoning_effort out"
            )
        return self


class ReportedScore(Config):
    """A published score."""

    value: float = Field(ge=0, le=1)
    """The score, between 0 and 1."""
    n: int | None = Field(default=None, ge=1)
    """The number of test examples. Default: not known, so the score has no bounds."""


class ReportedTraining(Config):
    """The reported cost of a training. Without `usd`, the cost is computed from hours or tokens."""

    usd: Usd | None = None
    """What it cost, in USD."""
    hours: float | None = Field(default=None, gt=0, lt=1_000_000)
    """How long it took, in hours on the contender's `hardware`."""
    tokens_billed: int | None = Field(default=None, ge=1)
    """The tokens that the contender's `provider` billed, over all epochs."""

    @model_validator(mode="after")
    def _something(self) -> ReportedTraining:
        """Raise ValueError if no figure is given."""
        if self.usd is None and self.hours is None and self.tokens_billed is None:
            raise ValueError("give usd, hours or tokens_billed")
        return self


class RecordedConfig(BaseContenderConfig):
    """Answers that were made elsewhere, or reported figures without answers."""

    id: Literal["recorded"]
    """Always `recorded`."""
    model: str | None = None
    """The model's name, for the report and for prices."""
    predictions: str | None = None
    """A JSONL file of answers. A row may have `sample: k` (default 0); the score of an example with
    several answers is their mean."""
    scores: dict[str, ReportedScore] | None = Field(default=None, min_length=1)
    """Reported scores by metric. Not together with `predictions`."""
    training: ReportedTraining | None = None
    """The reported cost of its training."""
    provider: str | None = None
    """The provider whose `model` answered. Not together with `hardware`."""
    hardware: Hardware | None = None
    """The machine of its own that it ran on."""
    data: str | None = None
    """The data set that the figures belong to, where contenders of one file have different ones.
    Costs are compared within one data set only. Default: the run's own test set."""
    source: str | None = None
    """Where the figures were published."""

    @model_validator(mode="before")
    @classmethod
    def _check_no_sampling(cls, value: Any) -> Any:
        """Raise ValueError if the contender has keys of `Sampling`: nothing is asked."""
        why = "nothing is asked; the rows of its predictions say which `sample` they are"
        return _refuse_sampling(value, why)

    @model_validator(mode="after")
    def _something(self) -> RecordedConfig:
        """Raise ValueError unless there are answers or figures, and at most one who answered."""
        if self.predictions is not None and self.scores is not None:
            raise ValueError("give either predictions (a JSONL file) or scores (reported figures)")
        if self.predictions is None and self.scores is None and self.training is None:
            raise ValueError(
                "give predictions (a JSONL file), or scores or training (reported figures)"
            )
        if self.provider is not None and self.hardware is not None:
            raise ValueError("give provider (hosted) or hardware (its own), not both")
        return self


ContenderConfig = Annotated[
    LocalConfig | HostedConfig | PromptedConfig | RecordedConfig, Field(discriminator="id")
]
CONTENDER_IDS = ("hosted", "local", "prompted", "recorded")
