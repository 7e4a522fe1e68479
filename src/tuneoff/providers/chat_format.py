"""The chat format of training files, and what the hosted APIs ask of one.

One JSON object a line, `{"messages": [{"role", "content"}, …]}`, an assistant turn last, at
least 10 of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

ROLES = ("system", "developer", "user", "assistant", "tool")
MIN_EXAMPLES = 10
MOST_BYTES = 512 * 1024**2


def line_of(messages: Iterable[Mapping[str, str]], answer: str) -> str:
    """One example as a line: the turns of a prompt, and the answer."""
    turns = [*({"role": t["role"], "content": t["content"]} for t in messages),
             {"role": "assistant", "content": answer}]  # fmt: skip
    return json.dumps({"messages": turns}, ensure_ascii=False) + "\n"


def problem(value: Any) -> str | None:
    """What is wrong with an example; None if nothing is."""
    if not isinstance(value, dict) or not isinstance(value.get("messages"), list):
        return 'it has no list "messages"'
    turns = value["messages"]
    for turn in turns:
        if not isinstance(turn, dict) or turn.get("role") not in ROLES:
            return f"each message needs a role (allowed: {', '.join(ROLES)})"
        if not isinstance(turn.get("content"), str):
            return "each message needs a text as content"
        if any("\ud800" <= character <= "\udfff" for character in turn["content"]):
            return "half a surrogate pair is no text"
    if not turns or turns[-1]["role"] != "assistant":
        return "the last message must be the assistant's"
    if not turns[-1]["content"].strip():
        return "the assistant's last message is empty"
    if not any(turn["role"] == "user" for turn in turns):
        return "there is no message of a user"
    return None
