"""The most that a request can bill, in tokens, before it is sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

# Around each message, and around all of them; no provider's is larger.
AROUND = 8


def billed_at_most(model: str, messages: Iterable[Mapping[str, str]]) -> int:
    """No tokenizer makes more tokens than a text has bytes."""
    return AROUND + sum(
        AROUND + len(turn["role"].encode()) + len(turn["content"].encode("utf-8", "surrogatepass"))
        for turn in messages
    )


def default_epochs(examples: int) -> int:
    """The most epochs that `auto` can mean: 25, never more than 25,000 examples seen by them
    unless one pass is more."""
    return 25
