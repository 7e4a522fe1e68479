"""A file of prices: what `prices/*.yaml` and a user's own `prices:` file may hold.

Money is `Decimal`, read from the digits as they are written. A price holds from its first to
its last day, both included; `until` left out means that it still holds.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from tuneoff.errors import ConfigError
from tuneoff.settings import PriceSettings, Settings, Usd

Variant = Literal["base", "tuned"]
Method = Literal["lora", "full"]
Billions = tuple[float, float]


class Dated(Settings):
    """Where a figure comes from, when that was read, and on which days it holds."""

    source: str | None = None
    retrieved: datetime.date | None = None
    first: datetime.date = Field(default=datetime.date.min, alias="from")
    until: datetime.date | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Dated:
        if self.until is not None and self.until < self.first:
            raise ValueError(f"until {self.until} is before from {self.first}")
        return self

    def holds(self, day: datetime.date) -> bool:
        """Whether this is the price of a day."""
        return self.first <= day and (self.until is None or day <= self.until)

    def overlaps(self, other: Dated) -> bool:
        """Whether there is a day on which both hold."""
        last, others = self.until or datetime.date.max, other.until or datetime.date.max
        return self.first <= others and other.first <= last


class ModelPrice(Dated, PriceSettings):
    """What models of a provider cost: as they are (`base`), or after and for their own
    fine-tuning (`tuned`). Named one by one, or by the billions of parameters in their names;
    `method` where LoRA and all parameters have prices of their own. Prompts of more than
    `long_prompt_tokens` cost more than is said here."""

    models: tuple[str, ...] = ()
    billion_parameters: Billions | None = None
    variant: Variant = "base"
    method: Method | None = None
    long_prompt_tokens: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _says_which(self) -> ModelPrice:
        if bool(self.models) == (self.billion_parameters is not None):
            raise ValueError("give either models or billion_parameters")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The models' names, or the range of sizes, for instance `0 to 16 B`."""
        if self.billion_parameters is None:
            return self.models
        low, high = self.billion_parameters
        return (f"{low:g} to {high:g} B",)

    def covers(self, model: str, billions: float | None) -> bool:
        """Whether a model (without `ft:`) is one of these."""
        if self.billion_parameters is None:
            return model in self.models
        low, high = self.billion_parameters
        return billions is not None and low <= billions <= high


class ModelEnd(Settings):
    """When models stop answering, when they take their last training job, what follows. A
    `variant` where what was tuned on them ends on another day than they do; else both end."""

    models: tuple[str, ...] = Field(min_length=1)
    variant: Variant | None = None
    ends: datetime.date
    training_ends: datetime.date | None = None
    replacement: str | None = None
    source: str | None = None
    retrieved: datetime.date | None = None


class Accelerator(Settings):
    """`memory_gb` as its maker says it; `peak_teraflops` dense, in bf16 (fp16 before Ampere)."""

    name: str
    aliases: tuple[str, ...] = ()
    memory_gb: float = Field(gt=0, lt=10_000)
    peak_teraflops: float = Field(gt=0, lt=100_000)
    source: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The names it is found by, in lower case."""
        return tuple(name.lower() for name in (self.name, *self.aliases))


class HourPrice(Dated):
    """What an hour of one accelerator costs, rented."""

    accelerator: str
    vendor: str | None = None
    usd_per_hour: Usd


class PriceFile(Settings):
    """One file of prices; `provider` is whose models it names."""

    provider: str | None = None
    prices: tuple[ModelPrice, ...] = ()
    models: tuple[ModelEnd, ...] = ()
    accelerators: tuple[Accelerator, ...] = ()
    hours: tuple[HourPrice, ...] = ()

    @model_validator(mode="after")
    def _whose(self) -> PriceFile:
        if (self.prices or self.models) and self.provider is None:
            raise ValueError("provider is missing: whose models are these?")
        return self


def read(file: Path) -> tuple[PriceFile, ...]:
    """The price files in a YAML file (several, one a provider, are divided by `---`).

    Raises:
        ConfigError: one sentence saying what is wrong with it.
    """
    try:
        documents = list(yaml.safe_load_all(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ConfigError(f"prices: there is no file {file}; check the path.") from None
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ConfigError(f"{file}: cannot be read ({error}).") from None
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or "not YAML"
        raise ConfigError(f"{file}: this is not valid YAML ({problem}).") from None
    try:
        return tuple(PriceFile.model_validate(d or {}) for d in documents)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        message = first["msg"].removeprefix("Value error, ").rstrip(".")
        got = "" if first["type"] in ("value_error", "missing") else f" is {first['input']!r}"
        raise ConfigError(f"{file}: {place}{got}: {message[0].lower()}{message[1:]}.") from None
