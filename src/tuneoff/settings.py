"""The base of everything that a user writes, and the parts that several of its sections share."""

from __future__ import annotations

import codecs
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, field_validator, model_validator


class Settings(BaseModel):
    """Base of everything a user writes: frozen, and no unknown key is let through."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


# Ten times the dearest price ever asked for a million tokens or an hour is a slip of the pen.
Usd = Annotated[Decimal, Field(ge=0, lt=10_000), PlainSerializer(float, when_used="json")]
BaseUrl = Annotated[str, Field(pattern=r"^https?://[^\s/@]+(/\S*)?$")]
KeyVariable = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$", max_length=80)]


class PriceSettings(Settings):
    """What a hosted model costs you, where that is not what the price book says. `cached_input_…`
    is for prompt tokens that the provider had in its cache, `cache_write_…` for those that it
    writes there, `batch_…` for answers that may take a day, `hosting_usd_per_hour` for a
    deployment that is billed whether it is used or not."""

    training_usd_per_million_tokens: Usd | None = None
    input_usd_per_million_tokens: Usd | None = None
    output_usd_per_million_tokens: Usd | None = None
    cached_input_usd_per_million_tokens: Usd | None = None
    cache_write_usd_per_million_tokens: Usd | None = None
    batch_input_usd_per_million_tokens: Usd | None = None
    batch_output_usd_per_million_tokens: Usd | None = None
    hosting_usd_per_hour: Usd | None = None


# A model's answers to one example, at most; so many say how much they differ.
MOST_SAMPLES = 100
# OpenAI's words for it; each model takes some of them.
ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
# Tokens that a model may reason for before each answer, where the file does not say.
REASONING_TOKENS = 2048


class Reasoning(Settings):
    """How much a provider's model may reason before it answers.

    `reasoning_effort` is sent as it is; `none` turns reasoning off, and left out it is the
    model's own. With any other, `reasoning_tokens` (2048 if left out) are added to what an answer
    may take (`task.max_new_tokens`). They are billed as the answer's tokens are.
    """

    reasoning_effort: ReasoningEffort | None = None
    reasoning_tokens: int | None = Field(default=None, ge=1, le=1_000_000)

    @model_validator(mode="after")
    def _reasons(self) -> Reasoning:
        if self.reasoning_effort == "none" and self.reasoning_tokens is not None:
            raise ValueError(
                "reasoning_effort is none, so there are no reasoning_tokens; leave one of them out"
            )
        return self

    @property
    def max_reasoning_tokens(self) -> int:
        """Return the tokens that are added to what an answer may take."""
        if self.reasoning_tokens is not None:
            return self.reasoning_tokens
        return 0 if self.reasoning_effort in (None, "none") else REASONING_TOKENS


class Sampling(Settings):
    """How often, and how, a provider's model answers each test example.

    A model that is asked twice may answer otherwise. With `samples: K` each example is asked K
    times; its score is the mean of its answers. `temperature` is sent as it is; left out, it is
    0, or the model's own where it reasons.
    """

    samples: int = Field(default=1, ge=1, le=MOST_SAMPLES)
    temperature: float | None = Field(default=None, ge=0, le=2)


class Limit(Settings):
    """How many examples of each split to use: a sample seeded by `task.seed`."""

    train: int | None = Field(default=None, ge=1)
    validation: int | None = Field(default=None, ge=1)
    test: int | None = Field(default=None, ge=1)


class Columns(Settings):
    """Which columns of a CSV, Parquet or prompt/completion file hold what.

    `prompt` may be a list of columns: their texts are joined in that order, a blank line between
    them. Only the first must be filled in each row; `system` may be empty, too. `encoding` is what
    a text file is in that has no byte order mark, JSONL as well; left out, UTF-8.
    """

    prompt: str | tuple[str, ...] = "prompt"
    completion: str = "completion"
    system: str | None = None
    id: str | None = None
    encoding: str | None = None

    @property
    def prompts(self) -> tuple[str, ...]:
        """Return the columns that the prompt is joined of."""
        return (self.prompt,) if isinstance(self.prompt, str) else self.prompt

    @property
    def names_columns(self) -> bool:
        """Say whether any column is named here: not where only the encoding is."""
        return self.encoding is None or self.model_copy(update={"encoding": None}) != Columns()

    @field_validator("prompt", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
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
