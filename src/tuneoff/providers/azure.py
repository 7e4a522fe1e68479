"""Azure OpenAI: the v1 endpoint of a resource, which speaks OpenAI's API."""

from __future__ import annotations

from tuneoff.errors import ConfigError
from tuneoff.providers import openai
from tuneoff.providers.cassette import Cassette

KEY_VARIABLE = "AZURE_OPENAI_API_KEY"
check, schedule = openai.check, openai.schedule


def connect(
    base_url: str | None = None, key_variable: str | None = None, tape: Cassette | None = None
) -> openai.OpenAI:
    """Connect to the resource at `base_url` and return it.

    Raises:
        ConfigError: there is no address, or no key.
    """
    if base_url is None:
        raise ConfigError(
            "provider azure: every resource has its own address; give it as base_url: "
            "https://RESOURCE.openai.azure.com/openai/v1/."
        )
    return openai.connect(base_url, key_variable or KEY_VARIABLE, tape)
