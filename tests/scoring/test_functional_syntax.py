"""The syntax of functional representation."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneoff.scoring.functional import Call, GrammarError, Slot, parse_call, render_call

NAMES = st.from_regex(r"[\w.-]+", fullmatch=True)
VALUES = st.none() | st.text(st.characters(exclude_characters="]", codec="utf-8"))
CALLS = st.builds(Call, NAMES, st.lists(st.builds(Slot, NAMES, VALUES), max_size=6).map(tuple))


@given(CALLS)
def test_what_is_written_is_read_back(call: Call) -> None:
    assert parse_call(render_call(call)) == call


@given(CALLS, st.sampled_from(["", " ", "\n", " \t "]))
def test_blanks_between_the_parts_do_not_matter(call: Call, blank: str) -> None:
    slots = [
        s.attribute + (f"{blank}[{s.value}]" if s.value is not None else "") for s in call.slots
    ]
    comma = f"{blank},{blank}"
    spaced = f"{blank}{call.function}{blank}({blank}{comma.join(slots)}{blank}){blank}"
    assert parse_call(spaced) == call


@given(st.text(alphabet="ab ,()[]", max_size=20))
def test_any_other_text_is_a_grammar_error_and_nothing_else(text: str) -> None:
    with contextlib.suppress(GrammarError):
        assert "".join(render_call(parse_call(text)).split()) == "".join(text.split())


def test_values_may_hold_nearly_anything() -> None:
    text = 'inform(name[Tom\'s: "X" (a, b) [1], esrb[E 10+ (for Everyone 10 and Older)], x[a=b])'
    assert [slot.value for slot in parse_call(text).slots] == [
        'Tom\'s: "X" (a, b) [1',
        "E 10+ (for Everyone 10 and Older)",
        "a=b",
    ]


def test_empty_value_no_value_and_no_slots() -> None:
    assert parse_call("f(name[], rating)").slots == (Slot("name", ""), Slot("rating", None))
    assert parse_call("f()") == parse_call(" f ( ) ") == Call("f", ())
    assert Slot("name", "").items() == Slot("name").items() == ("",)


def test_items_of_a_list() -> None:
    assert Slot("platforms", "PlayStation, Xbox,  PC").items() == ("PlayStation", "Xbox", "PC")
    assert Slot("price", "1,000").items() == ("1,000",)


@pytest.mark.parametrize(
    "text",
    [
        "", "inform", "inform(", "inform)", "(name[x])", "inform(name[x)", "inform(name[x]",
        "inform(name[x],)", "inform(,)", "inform(name[x] rating[y])", "inform(name[x]]) ",
        "inform(name[x]) and more", "inform(name[x])inform()", "in form()", "f([x])",
    ],
)  # fmt: skip
def test_not_a_call(text: str) -> None:
    with pytest.raises(GrammarError):
        parse_call(text)


def test_a_long_hostile_text_is_read_in_no_time() -> None:
    with pytest.raises(GrammarError):
        parse_call("f(" + "a[," * 200_000)
    with pytest.raises(GrammarError):
        parse_call("f(" + " " * 500_000 + "!")


def test_a_value_that_cannot_be_written() -> None:
    with pytest.raises(GrammarError, match="]"):
        render_call(Call("f", (Slot("a", "x]"),)))
