"""The base class of what a user writes, and the sections that several contenders share."""

from __future__ import annotations

import codecs
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, field_validator, model_validator


class Config(BaseModel):
    """Base class of everything that a user writes: frozen, with unknown keys an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


# Max price in USD, per million tokens or per hour: ten times the highest price ever asked. More is
# a typing error.
Usd = Annotated[Decimal, Field(ge=0, lt=10_000), PlainSerializer(float, when_used="json")]
BaseUrl = Annotated[str, Field(pattern=r"^https?://[^\s/@]+(/\S*)?$")]
KeyVariable = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$", max_length=80)]


class PriceConfig(Config):
    """Your own prices of a hosted model. A price that is left out is the price book's."""

    training_usd_per_million_tokens: Usd | None = None
    """USD per million training tokens, over all epochs."""
    input_usd_per_million_tokens: Usd | None = None
    """USD per million prompt tokens."""
    output_usd_per_million_tokens: Usd | None = None
    """USD per million answer tokens."""
    cached_input_usd_per_million_tokens: Usd | None = None
    """USD per million prompt tokens that the provider has in its prompt cache."""
    cache_write_usd_per_million_tokens: Usd | None = None
    """USD per million prompt tokens that the provider writes to its prompt cache."""
    batch_input_usd_per_million_tokens: Usd | None = None
    """USD per million prompt tokens of the Batch API, whose answers may take a day."""
    batch_output_usd_per_million_tokens: Usd | None = None
    """USD per million answer tokens of the Batch API."""
    hosting_usd_per_hour: Usd | None = None
    """USD per hour of a deployment, which is billed whether it is used or not."""


# Max answers of a model to one example; this many show how much they differ.
MAX_SAMPLES = 100
# OpenAI's values. Each model accepts some of them.
ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
# Max reasoning tokens per answer, where the file does not say.
DEFAULT_REASONING_TOKENS = 2048


class Reasoning(Config):
    """How much a provider's model may reason before it answers."""

    reasoning_effort: ReasoningEffort | None = None
    """Sent as it is. `none` turns reasoning off. Default: the model's own."""
    reasoning_tokens: int | None = Field(default=None, ge=1, le=1_000_000)
    """Tokens that are added to an answer's limit (`task.max_new_tokens`) for reasoning. They are
    billed as the answer's tokens are. Default: 2048 with a `reasoning_effort` other than `none`,
    else 0."""

    @model_validator(mode="after")
    def _check_reasoning(self) -> Reasoning:
        """Raise ValueError if reasoning is off and has tokens."""
        if self.reasoning_effort == "none" and self.reasoning_tokens is not None:
            raise ValueError(
                "reasoning_effort is none, so there are no reasoning_tokens; leave one of them out"
            )
        return self

    @property
    def max_reasoning_tokens(self) -> int:
        """Return the tokens that are added to an answer's limit."""
        if self.reasoning_tokens is not None:
            return self.reasoning_tokens
        return 0 if self.reasoning_effort in (None, "none") else DEFAULT_REASONING_TOKENS


class Sampling(Config):
    """How often a provider's model answers each test example, and how.

    The same model may answer differently when it is asked again.
    """

    samples: int = Field(default=1, ge=1, le=MAX_SAMPLES)
    """Answers per test example, from 1 to 100. The example's score is their mean."""
    temperature: float | None = Field(default=None, ge=0, le=2)
    """Sent as it is, from 0 to 2. Default: 0, or the model's own where it reasons."""


class Limit(Config):
    """Max examples of each split: a random sample, drawn with `task.seed`."""

    train: int | None = Field(default=None, ge=1)
    """Max training examples. Default: all."""
    validation: int | None = Field(default=None, ge=1)
    """Max validation examples. Default: all."""
    test: int | None = Field(default=None, ge=1)
    """Max test examples. Default: all."""


class Columns(Config):
    """The columns of a CSV, Parquet or prompt/completion file."""

    prompt: str | tuple[str, ...] = "prompt"
    """The column of the prompt, or a list of columns. The texts of several are joined in that
    order, with a blank line between them. Only the first must be filled in every row."""
    completion: str = "completion"
    """The column of the reference answer."""
    system: str | None = None
    """The column of the system message, which may be empty. Default: none."""
    id: str | None = None
    """The column of the example's id. Default: ids are made."""
    encoding: str | None = None
    """The encoding of a text file without a byte order mark, JSONL as well. Default: UTF-8."""

    @property
    def prompts(self) -> tuple[str, ...]:
        """Return the columns of the prompt."""
        return (self.prompt,) if isinstance(self.prompt, str) else self.prompt

    @property
    def names_columns(self) -> bool:
        """Return whether any column is named; the encoding alone names none."""
        return self.encoding is None or self.model_copy(update={"encoding": None}) != Columns()

    @field_validator("prompt", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        """Raise ValueError unless `prompt` is a column's name, or a list of different names."""
        names = list(value) if isinstance(value, (list, tuple)) else [value]
        if not names or not all(isinstance(name, str) and name for name in names):
            raise ValueError("give a column's name, or a list of names")
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{name!r} is there twice; keep one")
        return value

    @field_validator("encoding")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        """Raise ValueError if Python does not know the encoding as one of texts."""
        if value is None:
            return None
        try:
            # A codec that is not of texts (hex, rot13) is a LookupError here.
            "\n".encode(codecs.lookup(value).name).decode(value)
        except (LookupError, ValueError):
            raise ValueError(
                f"got {value!r}; allowed: an encoding that Python knows, such as utf-8, utf-16, "
                "cp1252, cp1251, shift_jis or gb18030"
            ) from None
        return value
