"""Nebius Token Factory: open models behind OpenAI's API."""

from __future__ import annotations

from tuneoff.providers import openai
from tuneoff.providers.cassette import Cassette

KEY_VARIABLE = "NEBIUS_API_KEY"
check, schedule = openai.check, openai.schedule
BASE_URL = "https://api.tokenfactory.nebius.com/v1/"


def connect(
    base_url: str | None = None, key_variable: str | None = None, tape: Cassette | None = None
) -> openai.OpenAI:
    """Connect to Nebius, or to a compatible server at `base_url`, and return it."""
    url = base_url or BASE_URL
    return openai.connect(url, key_variable or KEY_VARIABLE, tape, method=False)
