"""The one reader of training rows: `{"messages": [{"role", "content"}, ...]}`, an answer last.

`check`, `init`, `run`, hosted uploads, `migrate` and the server's uploads all call `find_fault`, so
they accept and refuse the same rows with the same words. A row has:

    row     `messages`; tuneoff's own `id` and `meta`. Other keys are ignored, but not
            `UNSUPPORTED_KEYS`, which would change the training and be lost silently.
    turn    `role`, `content`, and on assistant turns `weight`, 0 or 1 (1.0 is 1; true is not).
    weight  The last turn is the one that is trained on. An earlier assistant turn needs weight 0:
            a hosted model would train on it, and an open one would not.

An empty value (null, false, an empty text, list or object) counts as missing. Parquet gives every
turn every key, and so do stored API responses.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

ROLES = ("system", "developer", "user", "assistant")
TURN_KEYS = ("role", "content", "weight")
# Keys that would change the trained model if they were obeyed.
UNSUPPORTED_KEYS = (
    "tools", "functions", "tool_choice", "function_call", "tool_calls", "parallel_tool_calls",
    "response_format", "reasoning_effort", "chat_template_kwargs", "documents", "weight", "weights",
    "system", "system_prompt", "images", "audio", "videos", "chosen", "rejected",
)  # fmt: skip
# The limits of the hosted APIs for a training file, in rows and bytes.
MIN_EXAMPLES, MAX_BYTES = 10, 512 * 1024**2
LONE_SURROGATE = "half a surrogate pair is no text"
ONLY_THE_LAST = "only the last assistant turn can be learned here; give the others weight: 0"

Turn = dict[str, Any]
_CONTAINERS = (dict, list, tuple, Mapping)


def find_fault(row: Any) -> str | None:
    """Return the fault of a training row as a sentence without full stop, or None."""
    if not isinstance(row, Mapping) or not isinstance(row.get("messages"), list):
        return 'it has no list "messages"'
    if (place := find_lone_surrogate(row)) is not None:
        return f"{LONE_SURROGATE} ({place})"
    turns = row["messages"]
    faults = (_find_turn_fault(turn, f"messages.{place}") for place, turn in enumerate(turns))
    return (
        _find_row_fault(row)
        or next((fault for fault in faults if fault is not None), None)
        or _find_answer_fault(turns)
    )


def split_answer(turns: Sequence[Mapping[str, Any]]) -> tuple[list[Turn], str]:
    """Return the turns before the answer, and the answer.

    Turns keep role, content and weight. Rows that an earlier version stored lose the same keys as
    then.
    """
    before = [
        {key: turn[key] for key in ("role", "content")}
        | ({"weight": int(turn["weight"])} if _is_weight(turn.get("weight")) else {})
        for turn in turns[:-1]
    ]
    return before, str(turns[-1]["content"])


def render_line(turns: Sequence[Mapping[str, Any]]) -> str:
    """Return one example, including its answer, as a line of a training file."""
    ordered = [{"role": turn["role"], "content": turn["content"], **turn} for turn in turns]
    return json.dumps({"messages": ordered}, ensure_ascii=False) + "\n"


def find_lone_surrogate(value: Any) -> str | None:
    """Return where half a surrogate pair stands in a value, as a dotted path; None if nowhere.

    JSON can spell such a half (`"\\ud83d"`), but UTF-8 cannot hold it: nothing could be written,
    uploaded or tokenized.
    """
    left: list[tuple[Any, tuple[Any, ...]]] = [({"": value}, ())]
    while left:  # not by calls, for JSON may be nested deeper than they may be
        node, place = left.pop()
        for key, inner in node.items() if isinstance(node, Mapping) else enumerate(node):
            if isinstance(key, str) and _has_lone_surrogate(key):
                return f"the key {key!a:.60}"
            if isinstance(inner, str):
                if _has_lone_surrogate(inner):
                    return ".".join(map(_format_key, (*place, key)[1:])) or "the text"
            elif isinstance(inner, _CONTAINERS):
                left.append((inner, (*place, key)))
    return None


def _has_lone_surrogate(text: str) -> bool:
    """Return whether a text holds a lone surrogate."""
    if text.isascii():
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _find_turn_fault(turn: Any, at: str) -> str | None:
    """Return the fault of one turn, or None."""
    if not isinstance(turn, Mapping):
        return f"{at} must be an object with role and content"
    role, content = turn.get("role"), turn.get("content")
    if role not in ROLES:
        shown = "missing" if role is None else f"{role!r:.40}"
        return f"{at}.role is {shown} (allowed: {', '.join(ROLES)})"
    for key, value in turn.items():
        if key not in TURN_KEYS and _has_content(value):
            return (
                f"{at}.{_format_key(key)} is not supported and would be lost; take it out, or the "
                f"row"
            )
    if not isinstance(content, str):
        return f"{at}.content must be a text, got {_name_type(content)}"
    weight = turn.get("weight")
    if weight is None:
        return None
    if role != "assistant":
        return f"{at}.weight: only the assistant's turns have one; take it out"
    if not _is_weight(weight):
        return f"{at}.weight is {weight!r:.40}; it must be 0 or 1"
    return None


def _find_row_fault(row: Mapping[str, Any]) -> str | None:
    """Return the fault of a row outside of its turns, or None."""
    for key in UNSUPPORTED_KEYS:
        if _has_content(row.get(key)):
            return f"{key} is not supported and would be lost; take it out, or the row"
    if not isinstance(row.get("meta"), Mapping | None):
        return f"meta must be an object, got {_name_type(row['meta'])}"
    if not isinstance(row.get("id"), str | int | None) or isinstance(row.get("id"), bool):
        return f"id must be a text or a whole number, got {_name_type(row['id'])}"
    return None


def _find_answer_fault(turns: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the fault of the answer (the last turn), or None."""
    if not turns:
        return "messages is empty; it needs a user's turn and the assistant's answer"
    if turns[-1]["role"] != "assistant":
        return f"the last message is {turns[-1]['role']!r}; it must be the assistant's answer"
    last = len(turns) - 1
    for place, turn in enumerate(turns[:-1]):
        if turn["role"] == "assistant" and turn.get("weight") != 0:
            return f"messages.{place} would be learned: {ONLY_THE_LAST}"
    if turns[-1].get("weight") == 0:
        return f"messages.{last}.weight is 0, but the last turn is learned; take the row out"
    if not turns[-1]["content"].strip():
        return f"messages.{last}.content: the assistant's answer is empty; fill it in"
    if not any(turn["role"] == "user" for turn in turns):
        return "there is no message of a user"
    return None


def _is_weight(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value in (0, 1)


def _has_content(value: Any) -> bool:
    return value is not None and value is not False and value not in ("", [], {})


def _format_key(key: Any) -> str:
    """Return a key as text, quoted if it could be misread."""
    plain = not isinstance(key, str) or key.replace("-", "_").isidentifier()
    return str(key) if plain and len(str(key)) <= 60 else f"{key!r:.60}"


def _name_type(value: Any) -> str:
    """Return a value's type in JSON's words."""
    names = {list: "a list", dict: "an object", bool: "true or false", str: "a text"}
    names |= {int: "a number", float: "a number", type(None): "nothing"}
    return names.get(type(value), type(value).__name__)
