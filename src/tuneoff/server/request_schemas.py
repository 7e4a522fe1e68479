"""Request bodies of completions.

A parameter that is not listed here gets a 400 that names it. So does a value that would change the
answer but cannot be honoured. Values that change nothing are accepted: null, a penalty of 0, no
tools, and everything that only serves the hosted API's bookkeeping.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool

# Messages of one conversation; twice the hosted API's limit.
MAX_TURNS = 4_096


def _check_encodable(text: str) -> str:
    """Return the text if it is valid Unicode."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError("half a surrogate pair is no text") from None
    return text


def reject_with(why: str) -> BeforeValidator:
    """Return a validator that rejects every non-empty value with this reason."""

    def check(value: Any) -> Any:
        if value:
            raise ValueError(why)
        return value

    return BeforeValidator(check)


def _check_single_prompt(value: Any) -> Any:
    """Reject a list of prompts unless it holds one text."""
    if isinstance(value, list) and not (len(value) == 1 and isinstance(value[0], str)):
        raise ValueError("one text is what there is; send each prompt in a request of its own")
    return value


def _check_zero_biases(value: Any) -> Any:
    """Reject token biases other than 0."""
    if isinstance(value, dict) and any(bias != 0 for bias in value.values()):
        raise ValueError("biases of tokens are not supported here; leave this out")
    return value


def _check_number(value: Any) -> Any:
    """Reject flags and texts where a number is needed."""
    if isinstance(value, bool | str):
        raise ValueError(f"a number is needed, not {json.dumps(value)[:60]}")
    return value


def _check_flag(value: Any) -> Any:
    """Reject everything but true and false."""
    if not isinstance(value, bool):
        raise ValueError(f"true or false is needed, not {json.dumps(value, default=str)[:60]}")
    return value


NO_TOOLS = "tools are not supported here, where models answer in text; leave this out"
Text = Annotated[str, AfterValidator(_check_encodable)]
# Strict JSON types: a text or a flag is not a number, whatever Python converts.
IS_NUMBER = BeforeValidator(_check_number)
Number = Annotated[float, Field(strict=True)]
Off = Annotated[Literal[False], BeforeValidator(_check_flag)]
Zero = Annotated[Number, Field(ge=0, le=0)]
Positive = Annotated[int, Field(ge=1), IS_NUMBER]
Stop = Annotated[Text, Field(min_length=1, max_length=200)]
Nothing = Annotated[list[Any], Field(max_length=0), reject_with(NO_TOOLS)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class StreamOptions(_Body):
    """The `stream_options` of a request."""

    include_usage: StrictBool | None = None
    include_obfuscation: Off | None = None


class TextPart(_Body):
    """A part of a message; only text is supported."""

    type: Literal["text"]
    text: Text
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    cache_control: Any = None  # marks a cacheable prefix; here prefixes are cached anyway
    prompt_cache_breakpoint: Any = None


class Message(_Body):
    """One turn of a conversation. An answer that is sent back may have null or empty fields besides
    its content."""

    role: Literal["system", "developer", "user", "assistant"]
    tool_calls: Nothing | None = None
    tool_call_id: None = None
    function_call: None = None
    audio: None = None
    content: Text | Annotated[list[TextPart], Field(max_length=MAX_TURNS, fail_fast=True)]
    name: str | None = None
    refusal: None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    # LiteLLM's and vLLM's answers have these.
    reasoning: None = None
    reasoning_content: None = None
    thinking_blocks: Annotated[list[Any], Field(max_length=0)] | None = None
    images: Annotated[list[Any], Field(max_length=0)] | None = None
    provider_specific_fields: dict[str, None] | None = None

    def plain(self) -> dict[str, str]:
        """Return the turn in the form of training examples."""
        parts = self.content
        text = parts if isinstance(parts, str) else "".join(part.text for part in parts)
        return {"role": self.role, "content": text}


class TextFormat(_Body):
    """The `response_format` of a request; only text is supported."""

    type: Literal["text"]


class Sampled(_Body):
    """Parameters that chat and text completions share."""

    model: Text
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    max_tokens: Positive | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    n: Annotated[int, Field(ge=1, le=16), IS_NUMBER] | None = None
    seed: Annotated[int, IS_NUMBER] | None = None
    stream: StrictBool | None = None
    stream_options: StreamOptions | None = None
    frequency_penalty: Zero | None = None
    presence_penalty: Zero | None = None
    logit_bias: Annotated[dict[str, Zero], BeforeValidator(_check_zero_biases)] | None = None
    user: str | None = None

    def stops(self) -> tuple[str, ...]:
        """Return the stop strings."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    def is_greedy(self) -> bool:
        """Say whether only the likeliest token may be chosen."""
        return self.temperature == 0 or self.top_p == 0


class ChatCreate(Sampled):
    """The body of `POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_TURNS, fail_fast=True)]
    max_completion_tokens: Positive | None = None
    logprobs: StrictBool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20), IS_NUMBER] | None = None
    response_format: TextFormat | None = None
    modalities: Annotated[list[Literal["text"]], Field(max_length=1)] | None = None
    tools: Nothing | None = None
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: StrictBool | None = None
    functions: Nothing | None = None
    function_call: Literal["none", "auto"] | None = None
    audio: None = None
    prediction: None = None
    web_search_options: None = None
    moderation: None = None
    # Chat templates with a thinking switch get thinking turned off.
    reasoning_effort: Literal["none"] | None = None
    verbosity: Literal["medium"] | None = None
    # The hosted API's bookkeeping: no answer depends on these.
    service_tier: Literal["auto", "default"] | None = None
    store: StrictBool | None = None
    metadata: dict[str, Any] | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prompt_cache_retention: str | None = None
    safety_identifier: str | None = None


class TextCreate(Sampled):
    """The body of `POST /v1/completions`."""

    # LangChain and LiteLLM send a list of one text.
    prompt: Annotated[
        Text | Annotated[list[Text], Field(min_length=1, max_length=1)],
        BeforeValidator(_check_single_prompt),
    ]
    echo: Off | None = None
    best_of: Annotated[int, Field(ge=1, le=1), IS_NUMBER] | None = None
    logprobs: None = None
    suffix: Annotated[str, Field(max_length=0)] | None = None

    def text(self) -> str:
        """Return the prompt."""
        return self.prompt if isinstance(self.prompt, str) else self.prompt[0]
