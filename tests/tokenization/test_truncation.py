"""What is cut from an example that is too long, and what never is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneoff.errors import DataError
from tuneoff.records import Example
from tuneoff.tokenization.examples import truncate_fully, truncate_to_fit


def words(text: str) -> Sequence[int]:
    """Where words end."""
    return [at for at in range(1, len(text) + 1) if text[at : at + 1] in ("", " ")]


def at_most(count: int) -> Callable[[Example], bool]:
    """Fits when all texts together have at most so many words."""

    def fits(example: Example) -> bool:
        turns = example.inputs.get("messages", ())
        texts = [turn["content"] for turn in turns] or list(example.inputs.values())
        return sum(len(str(text).split()) for text in texts) <= count

    return fits


def chat(*turns: str) -> Example:
    """Turns written as `role: content`."""
    split = [turn.split(": ", 1) for turn in turns]
    return Example("1", {"messages": [{"role": r, "content": c} for r, c in split]}, "answer")


def contents(example: Example) -> list[str]:
    return [turn["content"] for turn in example.inputs["messages"]]


def test_what_fits_is_the_same_object() -> None:
    example = Example("1", {"sentence": "a b"}, "c")
    assert truncate_to_fit(example, at_most(2), words) is example


def test_the_context_loses_its_end_and_the_question_stays() -> None:
    inputs = {"question": "q1 q2 q3 q4 q5 q6", "context": "c1 c2 c3"}
    found = truncate_to_fit(Example("1", inputs, "a", {"db_id": "x"}), at_most(8), words)
    assert found == Example("1", {**inputs, "context": "c1 c2"}, "a", {"db_id": "x"})


def test_without_a_context_the_longest_text_loses_its_end() -> None:
    inputs: dict[str, Any] = {"title": "t1", "number": 5, "body": "b1 b2 b3 b4"}
    found = truncate_to_fit(Example("1", inputs, "a"), at_most(4), words)
    assert found.inputs == {"title": "t1", "number": 5, "body": "b1 b2"}


def test_the_oldest_exchange_goes_first_and_the_system_turn_stays() -> None:
    example = chat(
        "system: s1", "user: u1", "assistant: a1", "user: u2", "assistant: a2", "user: u3"
    )
    found = truncate_to_fit(example, at_most(4), words)
    assert contents(found) == ["s1", "u2", "a2", "u3"]
    assert contents(truncate_to_fit(example, at_most(3), words)) == ["s1", "u3"]


def test_then_the_last_turn_loses_its_beginning() -> None:
    example = chat("system: s1", "user: u1", "assistant: a1", "user: old new newest")
    found = truncate_to_fit(example, at_most(3), words)
    assert [text.strip() for text in contents(found)] == ["s1", "new newest"]


def test_tools_go_with_the_question_they_serve() -> None:
    example = chat("user: u1", "assistant: a1", "tool: t1", "assistant: a2", "user: u2", "tool: t2")
    assert contents(truncate_to_fit(example, at_most(5), words)) == ["u2", "t2"]


@pytest.mark.parametrize(
    "example",
    [
        Example("far", {"question": "q1 q2 q3", "context": "c1"}, "a"),
        chat("system: s1 s2 s3", "user: u1"),
    ],
)
def test_what_cannot_be_cut_enough_is_refused(example: Example) -> None:
    with pytest.raises(DataError, match=rf"'{example.id}' leaves no room for its answer"):
        truncate_to_fit(example, at_most(2), words)


def test_inputs_without_text_are_refused() -> None:
    with pytest.raises(DataError, match="no text among its inputs"):
        truncate_to_fit(Example("1", {"numbers": [1, 2]}, "a"), lambda example: False, words)


@given(st.lists(st.text("ab", min_size=1), min_size=1), st.integers(0, 20))
def test_as_little_as_needed_goes(parts: list[str], count: int) -> None:
    example = Example("1", {"context": " ".join(parts)}, "a")
    found = truncate_to_fit(example, at_most(count), words)
    assert found.inputs["context"].split() == parts[:count]


def test_emptied_keeps_the_question() -> None:
    example = Example("1", {"question": "q", "context": "c"}, "a")
    assert truncate_fully(example).inputs == {"question": "q", "context": ""}
    assert contents(truncate_fully(chat("system: s", "user: u", "assistant: a", "user: v"))) == [
        "s",
        "",
    ]
