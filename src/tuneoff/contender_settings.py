"""What a user writes about a contender.

A contender's kind is its `id`: `local`, `hosted`, `prompted`, `recorded`. Every field has a default
that a practitioner would choose.
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

from tuneoff.settings import (
    BaseUrl,
    KeyVariable,
    PriceSettings,
    Reasoning,
    Sampling,
    Settings,
    Usd,
)

SHIPPED_BASE = "tiny"
Rendering = Literal["chat", "text"]
# What answers with an open model; vLLM wants the extra of its name, and a GPU.
Backend = Literal["transformers", "vllm"]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Fraction = Annotated[float, Field(gt=0, le=1)]
MODULE_SETS = ("attention", "all-linear")


class LoraSettings(Settings):
    """LoRA (Hu et al. 2021) as PEFT takes it.

    `target_modules`: names, `attention` (q, k, v and output projections) or `all-linear`.
    `use_dora` (Liu et al. 2024) and `use_rslora` (Kalajdzievski 2023) are PEFT's own switches.
    """

    r: int = Field(default=16, ge=1)
    alpha: float = Field(default=32, gt=0)
    dropout: float = Field(default=0.05, ge=0, lt=1)
    target_modules: tuple[str, ...] | Literal["attention", "all-linear"] = "all-linear"
    use_dora: bool = False
    use_rslora: bool = False

    @field_validator("target_modules", mode="before")
    @classmethod
    def _known(cls, value: object) -> object:
        if isinstance(value, str) and value not in MODULE_SETS:
            raise ValueError(f"give {' or '.join(MODULE_SETS)}, or a list of modules' names")
        return value


class TrainSettings(Settings):
    """How a local contender is trained.

    `batch_size` is examples an optimizer step, however they are computed: as one prefix tree,
    in packs that fit into memory, or `micro_batch_size` of them at once. `loss_on: text` also
    learns the prompt, as the seed's notebooks did. `evaluate_every` counts steps; left out,
    twice an epoch. `until: converged` stops when `patience` validations in a row brought
    nothing new; `epochs` or `max_steps` then only bound it (30 epochs if left out), and the
    `schedule` is constant unless another is named, for the end is not known in advance.
    `learning_rate: search` tries a few on a small budget first (`training/search.py`).
    `grouping` says which examples make a batch (`training/order.py`). `share_prefixes: false`
    computes ordinary padded batches. An example longer than `max_length` tokens (left out,
    the base's positions) is refused; `truncate: true` cuts its context or input, never its
    answer. `parallel` says how the `hardware.count` processes share a training: `ddp`, each
    holding the whole model, or `fsdp`, each a part of it; `auto` is one process, unless this
    machine has so many accelerators.
    """

    loss_on: Literal["completion", "text"] = "completion"
    batch_size: int = Field(default=32, ge=1)
    micro_batch_size: int | None = Field(default=None, ge=1)
    grouping: Literal["random", "by_length", "by_prefix"] = "random"
    share_prefixes: bool = True
    learning_rate: float | Literal["search"] | None = None
    warmup_steps: int | None = Field(default=None, ge=0)
    schedule: Literal["linear", "cosine", "constant"] | None = None
    weight_decay: float = Field(default=0.0, ge=0)
    epochs: float | None = Field(default=None, gt=0)
    max_steps: int | None = Field(default=None, ge=1)
    until: Literal["converged"] | None = None
    patience: int = Field(default=3, ge=1)
    evaluate_every: int | None = Field(default=None, ge=1)
    max_length: int | None = Field(default=None, ge=8)
    truncate: bool = False
    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"
    gradient_checkpointing: bool = False
    parallel: Literal["auto", "ddp", "fsdp"] = "auto"
    report_to: tuple[Literal["trackio", "wandb", "mlflow", "tensorboard"], ...] = ()

    @field_validator("learning_rate", mode="before")
    @classmethod
    def _rate_or_search(cls, rate: Any) -> Any:
        if isinstance(rate, str) and rate != "search":
            with suppress(ValueError):
                rate = float(rate)  # YAML 1.1 takes 2e-3, without a point, for text
        number = isinstance(rate, (int, float)) and not isinstance(rate, bool)
        if rate in (None, "search") or (number and 0 < rate < 1):
            return rate
        raise ValueError(f"got {rate!r}; allowed: a number between 0 and 1, or search")

    @model_validator(mode="after")
    def _one_duration(self) -> TrainSettings:
        if self.epochs is not None and self.max_steps is not None:
            raise ValueError("give epochs or max_steps, not both")
        if self.micro_batch_size is not None and self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of "
                f"micro_batch_size {self.micro_batch_size}"
            )
        return self


class Hardware(Settings):
    """What a contender runs on and what an hour of it costs."""

    accelerator: str | None = None
    count: int = Field(default=1, ge=1)
    usd_per_hour: float | None = Field(default=None, ge=0, lt=10_000)


def _refuse_repeated(values: Sequence[float]) -> None:
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{value} is there twice; keep one")


class ContenderBase(Settings):
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)
    rendering: Rendering | None = None
    prompt: Literal["full", "short"] | None = None


def _refuse_sampling(value: Any, why: str) -> Any:
    """Say in words why a kind of contender has no `samples`, instead of calling the key unknown."""
    given = [key for key in Sampling.model_fields if isinstance(value, dict) and key in value]
    if given:
        raise ValueError(f"{' and '.join(given)}: {why}")
    return value


GREEDY = (
    "an open base answers greedily here, so all samples of an example would be the same; leave it "
    "out, or serve the model and ask it as `id: prompted` with provider, model, base_url and "
    "temperature"
)


class LocalSettings(ContenderBase):
    """An open model tuned here. `base: tiny` is the model that ships with tuneoff.

    `seeds` trains it once for each, to show how much training itself varies; `seed` is for
    one training. `learning_curve` trains it on parts of the training examples too: fractions
    of them, each part inside the next larger one, for as many epochs, so in fewer steps;
    what counts steps (`max_steps`, `warmup_steps`, `evaluate_every`) is scaled by the
    fraction. The point of all examples is the contender's own training. With `seeds`, the
    curve is the first seed's.
    """

    id: Literal["local"]
    base: str = SHIPPED_BASE
    method: Literal["lora", "full"] = "lora"
    quantization: Literal["none", "int8", "nf4"] = "none"
    lora: LoraSettings = LoraSettings()
    train: TrainSettings = TrainSettings()
    backend: Backend = "transformers"
    hardware: Hardware | None = None
    seed: int = 0
    seeds: tuple[Seed, ...] | None = None
    learning_curve: tuple[Fraction, ...] | None = None

    @model_validator(mode="before")
    @classmethod
    def _greedy(cls, value: Any) -> Any:
        return _refuse_sampling(value, GREEDY)

    @field_validator("seeds")
    @classmethod
    def _several(cls, seeds: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if seeds is not None and len(seeds) < 2:
            raise ValueError("give two seeds or more here, or a single one as seed")
        _refuse_repeated(seeds or ())
        return seeds

    @field_validator("learning_curve")
    @classmethod
    def _parts(cls, fractions: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if fractions is None:
            return None
        if min(fractions, default=1) == 1:
            raise ValueError(
                "give a fraction below 1; the point of all training examples is there anyway"
            )
        _refuse_repeated(fractions)
        return tuple(sorted(fractions))

    @model_validator(mode="after")
    def _one_kind_of_seed(self) -> LocalSettings:
        if self.seeds is not None and "seed" in self.model_fields_set:
            raise ValueError("give seed (one training) or seeds (one training each), not both")
        return self

    @model_serializer(mode="wrap")
    def _written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Beside seeds there is no seed, so that the resolved file can be read again."""
        written: dict[str, Any] = handler(self)
        if self.seeds is not None:
            written.pop("seed", None)
        return written

    @model_validator(mode="after")
    def _fits_together(self) -> LocalSettings:
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


class HostedSettings(ContenderBase, Sampling):
    """A model tuned through a provider's fine-tuning API, and asked through its chat API.

    `key_variable` names the environment variable with the key, where it is not the provider's
    usual one. `checkpoint: best` answers with the checkpoint of the lowest validation loss.
    `suffix` becomes part of the tuned model's name; left out, it is the contender's name and
    some letters by which a lost job is found again. `record: true` keeps every exchange, so that
    the run can be replayed when the model is gone.

    Providers have different words for how to train: OpenAI's take `learning_rate_multiplier`,
    Together `learning_rate`, `method` and `early_stopping` (which needs a validation split).
    Where a tuned model answers only once it is deployed, `deployment` is the name it then has
    there; it may be given, or changed, when the model is already tuned. `batch: true` has the test
    set answered through the provider's Batch API: at half the price, within a day. How often and at
    which temperature the tuned model is asked, `Sampling` says.
    """

    id: Literal["hosted"]
    provider: str = "openai"
    model: str
    base_url: BaseUrl | None = None
    key_variable: KeyVariable | None = None
    epochs: Annotated[int, Field(ge=1, le=50)] | Literal["auto"] = "auto"
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    learning_rate_multiplier: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    learning_rate: Annotated[float, Field(gt=0, lt=1)] | None = None
    method: Literal["lora", "full"] | None = None
    early_stopping: bool = False
    suffix: str | None = Field(default=None, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    checkpoint: Literal["final", "best"] = "final"
    deployment: str | None = Field(default=None, min_length=1)
    batch: bool = False
    record: bool = False
    price: PriceSettings | None = None
    concurrency: int = Field(default=16, ge=1, le=1000)


class PromptedSettings(ContenderBase, Reasoning, Sampling):
    """A model that only answers, zero-shot or with `shots` examples from train.

    Either an open `base`, answered here, or a `model` of a `provider`; with `batch: true` through
    its Batch API. What a provider's model may do before it answers, `Reasoning` says; how often and
    at which temperature it is asked, `Sampling`.
    """

    id: Literal["prompted"]
    base: str | None = None
    provider: str | None = None
    model: str | None = None
    base_url: BaseUrl | None = None
    key_variable: KeyVariable | None = None
    record: bool = False
    batch: bool = False
    shots: int = Field(default=0, ge=0, le=100)
    seed: int = 0
    quantization: Literal["none", "int8", "nf4"] = "none"
    backend: Backend = "transformers"
    hardware: Hardware | None = None
    price: PriceSettings | None = None
    concurrency: int = Field(default=16, ge=1, le=1000)

    @model_validator(mode="after")
    def _one_model(self) -> PromptedSettings:
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
            raise ValueError(f"{given}: {GREEDY}")
        if self.temperature is not None and self.reasoning_effort not in (None, "none"):
            raise ValueError(
                "a model takes no temperature while it reasons; leave temperature or "
                "reasoning_effort out"
            )
        return self


class ReportedScore(Settings):
    """A published figure: value between 0 and 1, over n examples where known."""

    value: float = Field(ge=0, le=1)
    n: int | None = Field(default=None, ge=1)


class ReportedTraining(Settings):
    """What a training is reported to have taken: money, hours on the contender's `hardware`,
    tokens that its `provider` billed (all epochs). What is not given as `usd` is worked out."""

    usd: Usd | None = None
    hours: float | None = Field(default=None, gt=0, lt=1_000_000)
    tokens_billed: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _something(self) -> ReportedTraining:
        if self.usd is None and self.hours is None and self.tokens_billed is None:
            raise ValueError("give usd, hours or tokens_billed")
        return self


class RecordedSettings(ContenderBase):
    """Answers made elsewhere (`predictions`, a JSONL file), or reported figures without answers
    (`scores`, `training`).

    A row of `predictions` may have `sample: k` (none means 0): with several for each example, its
    score is their mean. `source` says where figures were published. `provider` (whose `model` it
    is) or `hardware` (of one's own) says who answers; `data` what the figures are of, where
    contenders of one file are of different data: their money is compared within the same.
    """

    id: Literal["recorded"]
    model: str | None = None
    predictions: str | None = None
    scores: dict[str, ReportedScore] | None = Field(default=None, min_length=1)
    training: ReportedTraining | None = None
    provider: str | None = None
    hardware: Hardware | None = None
    data: str | None = None
    source: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _made_elsewhere(cls, value: Any) -> Any:
        why = "nothing is asked; the rows of its predictions say which `sample` they are"
        return _refuse_sampling(value, why)

    @model_validator(mode="after")
    def _something(self) -> RecordedSettings:
        if self.predictions is not None and self.scores is not None:
            raise ValueError("give either predictions (a JSONL file) or scores (reported figures)")
        if self.predictions is None and self.scores is None and self.training is None:
            raise ValueError(
                "give predictions (a JSONL file), or scores or training (reported figures)"
            )
        if self.provider is not None and self.hardware is not None:
            raise ValueError("give provider (hosted) or hardware (its own), not both")
        return self


ContenderSettings = Annotated[
    LocalSettings | HostedSettings | PromptedSettings | RecordedSettings, Field(discriminator="id")
]
CONTENDER_IDS = ("hosted", "local", "prompted", "recorded")
