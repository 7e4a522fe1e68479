"""OpenAI, and every server that speaks its chat API (`base_url`), through the official SDK.

The key comes from the environment (`OPENAI_API_KEY`) alone. A server of your own may need
none; the SDK wants one all the same, so a placeholder goes to any other `base_url`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tuneoff.errors import ConfigError, MissingExtraError, ProviderError

KEY_VARIABLE = "OPENAI_API_KEY"
MAX_RETRIES = 5


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer with the tokens that are billed for it; None where the server does not say."""

    text: str
    tokens_in: int | None
    tokens_out: int | None


def client(base_url: str | None = None) -> Any:
    """The SDK's client; it retries what may be retried, with growing pauses.

    Raises:
        MissingExtraError: the SDK is not installed.
        ConfigError: there is no key.
    """
    try:
        import openai
    except ModuleNotFoundError:
        raise MissingExtraError("openai", "hosted", "a hosted model") from None
    key = os.environ.get(KEY_VARIABLE)
    if not key and base_url is None:
        raise ConfigError(f"{KEY_VARIABLE} is not set; export your key, or give a base_url.")
    return openai.OpenAI(api_key=key or "none", base_url=base_url, max_retries=MAX_RETRIES)


def chat(client: Any, model: str, messages: Sequence[dict[str, str]]) -> Reply:
    """One answer of a model.

    Raises:
        ProviderError: the provider refused, or could not be reached after several tries.
    """
    import openai

    try:
        answer = client.chat.completions.create(model=model, messages=list(messages))
    except openai.OpenAIError as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ProviderError(f"{client.base_url}: model {model!r} did not answer: {first}") from None
    usage = answer.usage
    return Reply(
        text=answer.choices[0].message.content or "",
        tokens_in=usage.prompt_tokens if usage else None,
        tokens_out=usage.completion_tokens if usage else None,
    )
