"""The contents of a price file: `prices/*.yaml`, or a user's own `prices:` file.

Money is `Decimal`, read from the digits as written. A price holds from its first to its last day,
both included; without `until` it still holds.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from tuneoff.config.base import Config, PriceConfig, Usd
from tuneoff.errors import ConfigError

Variant = Literal["base", "tuned"]
Method = Literal["lora", "full"]
BillionsRange = tuple[float, float]


class DatedFigure(Config):
    """The source of a figure and the days on which it holds."""

    source: str | None = None
    retrieved: datetime.date | None = None
    """The day on which the source was read."""
    first: datetime.date = Field(default=datetime.date.min, alias="from")
    """The first day (`from`)."""
    until: datetime.date | None = None
    """The last day; None: it still holds."""

    @model_validator(mode="after")
    def _ordered(self) -> DatedFigure:
        """Raise ValueError if the last day is before the first."""
        if self.until is not None and self.until < self.first:
            raise ValueError(f"until {self.until} is before from {self.first}")
        return self

    def holds(self, day: datetime.date) -> bool:
        """Return whether this is the price of a day."""
        return self.first <= day and (self.until is None or day <= self.until)

    def overlaps(self, other: DatedFigure) -> bool:
        """Return whether both hold on some day."""
        last, others = self.until or datetime.date.max, other.until or datetime.date.max
        return self.first <= others and other.first <= last


class ModelPrice(DatedFigure, PriceConfig):
    """What models of a provider cost. They are named one by one, or by their size."""

    models: tuple[str, ...] = ()
    billion_parameters: BillionsRange | None = None
    """Minimum and maximum billions of parameters in the models' names."""
    variant: Variant = "base"
    """`base`: the models as they are; `tuned`: after, and for, their own fine-tuning."""
    method: Method | None = None
    """Set where LoRA and full fine-tuning have prices of their own."""
    long_prompt_tokens: int | None = Field(default=None, ge=1)
    """Longer prompts cost more than is said here."""

    @model_validator(mode="after")
    def _says_which(self) -> ModelPrice:
        """Raise ValueError unless the models are named in exactly one way."""
        if bool(self.models) == (self.billion_parameters is not None):
            raise ValueError("give either models or billion_parameters")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Return the models' names, or the range of sizes, for instance `0 to 16 B`."""
        if self.billion_parameters is None:
            return self.models
        low, high = self.billion_parameters
        return (f"{low:g} to {high:g} B",)

    def covers(self, model: str, billions: float | None) -> bool:
        """Return whether a model (without `ft:`) is one of these."""
        if self.billion_parameters is None:
            return model in self.models
        low, high = self.billion_parameters
        return billions is not None and low <= billions <= high


class ModelEnd(Config):
    """When models stop answering, when they take their last training job, and what follows."""

    models: tuple[str, ...] = Field(min_length=1)
    variant: Variant | None = None
    """Set where tuned models end on another day than their base; None: both end."""
    ends: datetime.date
    training_ends: datetime.date | None = None
    replacement: str | None = None
    source: str | None = None
    retrieved: datetime.date | None = None


class Accelerator(Config):
    """An accelerator's size and speed."""

    name: str
    aliases: tuple[str, ...] = ()
    memory_gb: float = Field(gt=0, lt=10_000)
    """Memory in GB, as its maker states it."""
    peak_teraflops: float = Field(gt=0, lt=100_000)
    """Dense peak in bf16 (fp16 before Ampere)."""
    source: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Return its name and aliases in lower case."""
        return tuple(name.lower() for name in (self.name, *self.aliases))


class HourPrice(DatedFigure):
    """The rent of one accelerator per hour."""

    accelerator: str
    vendor: str | None = None
    usd_per_hour: Usd


class PriceFile(Config):
    """One file of prices."""

    provider: str | None = None
    """Whose models it names."""
    prices: tuple[ModelPrice, ...] = ()
    models: tuple[ModelEnd, ...] = ()
    accelerators: tuple[Accelerator, ...] = ()
    hours: tuple[HourPrice, ...] = ()

    @model_validator(mode="after")
    def _whose(self) -> PriceFile:
        """Raise ValueError for model prices without a provider."""
        if (self.prices or self.models) and self.provider is None:
            raise ValueError("provider is missing: whose models are these?")
        return self


def read_price_files(file: Path) -> tuple[PriceFile, ...]:
    """Return the price files in a YAML file; several, one per provider, are separated by `---`.

    Raises:
        ConfigError: the file is wrong; one sentence says how.
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
