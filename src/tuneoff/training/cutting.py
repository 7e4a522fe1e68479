"""Truncates an example that is too long: its context or input, never its answer.

- chat turns: the oldest turns, each with its replies; then the start of the last turn.
  A system turn is an instruction and stays.
- a `context` field: its end; the question beside it stays (text_to_sql).
- other fields: the end of the longest text (functional_representation, your own task).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tuneoff.errors import DataError
from tuneoff.records import Example, Split

CONTEXT_FIELD = "context"


def truncate_to_fit(
    example: Example, fits: Callable[[Example], bool], places: Callable[[str], Sequence[int]]
) -> Example:
    """Return the example with as little cut off as necessary; itself if it fits.

    Args:
        fits: whether an example's prompt is short enough.
        places: where a text may be cut: the ends of its tokens, in characters, ascending.

    Raises:
        DataError: it does not fit even fully truncated.
    """
    if fits(example):
        return example
    if not fits(truncate_fully(example)):
        raise DataError(explain_no_room(example))
    if "messages" in example.inputs:
        example = _drop_oldest_turns(example, fits)
        if fits(example):
            return example
        text = example.inputs["messages"][-1]["content"]
        starts = [*reversed(places(text))]
        candidates = [text[start:] for start in starts]
    else:
        text = str(example.inputs[_find_text_field(example)])
        candidates = [text[:end] for end in places(text)]
    kept = ""
    low, high = 0, len(candidates)
    while low < high:
        middle = (low + high) // 2
        if fits(_replace_text(example, candidates[middle])):
            kept, low = candidates[middle], middle + 1
        else:
            high = middle
    return _replace_text(example, kept)


def truncate_fully(example: Example) -> Example:
    """Return the example with everything removed that may be cut."""
    if "messages" in example.inputs:
        *_, shortest = _list_shortened(example)
        return _replace_text(shortest, "")
    return _replace_text(example, "")


def describe_truncation(name: str, cut: Mapping[Split, int]) -> str:
    """Return the line that tells a user how many examples were truncated."""
    counted = ", ".join(f"{count} {split}" for split, count in cut.items() if count)
    return f"{name}: {counted} examples are too long and were cut (train.truncate)."


def explain_no_room(example: Example) -> str:
    """Return the error for an example that is too long even fully truncated."""
    return (
        f"example {example.id!r} leaves no room for its answer even with its context or input cut "
        "off; raise train.max_length or lower task.max_new_tokens, shorten it, or take it out."
    )


def _find_text_field(example: Example) -> str:
    """Return the name of the input field to cut.

    Raises:
        DataError: no input is a text.
    """
    if isinstance(example.inputs.get(CONTEXT_FIELD), str):
        return CONTEXT_FIELD
    texts = {name: value for name, value in example.inputs.items() if isinstance(value, str)}
    if not texts:
        raise DataError(
            f"example {example.id!r} is too long, and has no text among its inputs to cut; "
            "shorten it, or take it out."
        )
    return max(texts, key=lambda name: len(texts[name]))


def _replace_text(example: Example, text: str) -> Example:
    """Return the example with its cuttable text replaced."""
    if "messages" not in example.inputs:
        return replace(example, inputs={**example.inputs, _find_text_field(example): text})
    *before, last = example.inputs["messages"]
    return _replace_turns(example, [*before, {**last, "content": text}])


def _drop_oldest_turns(example: Example, fits: Callable[[Example], bool]) -> Example:
    """Return the example without its oldest exchanges, as few removed as make it fit."""
    shorter = example
    for shorter in _list_shortened(example):
        if fits(shorter):
            break
    return shorter


def _list_shortened(example: Example) -> list[Example]:
    """Return the example with 0, 1, … of its oldest exchanges left out.

    Roles must alternate in many templates, so a user turn goes together with its replies.
    """
    turns: list[Any] = list(example.inputs["messages"])
    fixed = [turn for turn in turns if turn["role"] in ("system", "developer")]
    talk = [turn for turn in turns if turn not in fixed]
    begins = [at for at, turn in enumerate(talk) if turn["role"] == "user"] or [0]
    return [
        example if at == begins[0] else _replace_turns(example, [*fixed, *talk[at:]])
        for at in begins
    ]


def _replace_turns(example: Example, turns: list[Any]) -> Example:
    """Return the example with other chat turns."""
    return replace(example, inputs={**example.inputs, "messages": turns})
