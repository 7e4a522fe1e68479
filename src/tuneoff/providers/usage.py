"""The billed tokens of an answer, as OpenAI's API and compatible servers report them.

Sources: OpenAI's API reference, "Chat completions", `usage`; OpenAI's guide "Prompt caching", by
which tokens read from the cache and tokens written to it are part of the prompt's tokens; LiteLLM
and OpenRouter for the other names of cache writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Names of cache writes in a usage and in its details of the prompt.
_CACHE_WRITE_NAMES = ("cache_write_tokens", "cache_creation_tokens", "cache_creation_input_tokens")


@dataclass(frozen=True, slots=True)
class Usage:
    """What is billed for one answer; None: the server does not say."""

    tokens_in: int | None = None
    """Prompt tokens, including those read from the cache and written to it."""
    tokens_out: int | None = None
    """Answer tokens, reasoning included."""
    cached_tokens_in: int = 0
    written_tokens_in: int = 0


def read_usage(usage: Mapping[str, Any]) -> Usage:
    """Return an answer's `usage` as billed tokens."""
    prompt, completion = _get_count(usage, "prompt_tokens"), _get_count(usage, "completion_tokens")
    details = _get_details(usage, "prompt_tokens_details")
    reasoning = (
        _get_count(_get_details(usage, "completion_tokens_details"), "reasoning_tokens") or 0
    )
    is_complete = None not in (prompt, completion)
    # Some servers count reasoning beside the completion; then only the total shows it.
    if is_complete and usage.get("total_tokens") == (prompt or 0) + (completion or 0) + reasoning:
        completion = (completion or 0) + reasoning
    cached = min(_get_count(details, "cached_tokens") or 0, prompt or 0)
    reported = (
        _get_count(place, name) for place in (details, usage) for name in _CACHE_WRITE_NAMES
    )
    written = next((count for count in reported if count is not None), 0)
    return Usage(prompt, completion, cached, min(written, (prompt or 0) - cached))


def _get_details(usage: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return an object within a usage; empty where there is none."""
    value = usage.get(name)
    return value if isinstance(value, Mapping) else {}


def _get_count(counts: Mapping[str, Any], name: str) -> int | None:
    """Return a count; None where there is none, or something else."""
    count = counts.get(name)
    return count if isinstance(count, int) and count >= 0 else None
