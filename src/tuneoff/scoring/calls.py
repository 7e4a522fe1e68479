"""The syntax of functional representation: `function(attribute[value], attribute[value])`.

This is the meaning representation of ViGGO (Juraska, Bowden and Walker, INLG 2019):

    call      = name "(" [ slot { "," slot } ] ")"
    slot      = name [ "[" value "]" ]
    name      = letters, digits, "_", "-", "."
    value     = any characters but "]", possibly none

Blanks may stand between all of these. A value may be a list, with a comma and a blank between
items: `platforms[PlayStation, Xbox]`. The syntax cannot tell a list from a value with such a comma
(`exp_release_date[August 14, 2018]`). Both are split alike in reference and prediction, so no match
is won or lost.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_NAME = re.compile(r"[\w.-]+")
_BLANKS = re.compile(r"\s*")
_ITEM_END = re.compile(r",\s+")


class GrammarError(ValueError):
    """A text that is not a call; the message says what was expected, and where."""


@dataclass(frozen=True, slots=True)
class Slot:
    """An attribute with its value as written; None if it has no brackets."""

    attribute: str
    value: str | None = None

    def items(self) -> tuple[str, ...]:
        """Return the items of the value, stripped; `("",)` for no value."""
        return tuple(item.strip() for item in _ITEM_END.split((self.value or "").strip()))


@dataclass(frozen=True, slots=True)
class Call:
    """A parsed call, its slots in the written order."""

    function: str
    slots: tuple[Slot, ...] = ()


def parse_call(text: str) -> Call:
    """Return a text parsed as a call.

    Raises:
        GrammarError: it is not a call, or something follows it.
    """
    function, at = _parse_name(text, _skip_blanks(text, 0), "a function")
    at = _expect(text, at, "(")
    slots: list[Slot] = []
    if not text.startswith(")", at):
        slot, at = _parse_slot(text, at)
        slots.append(slot)
        while text.startswith(",", at):
            slot, at = _parse_slot(text, _skip_blanks(text, at + 1))
            slots.append(slot)
    at = _expect(text, at, ")")
    if at != len(text):
        raise GrammarError(f"expected nothing after the call, got {_show_position(text, at)}")
    return Call(function, tuple(slots))


def render_call(call: Call) -> str:
    """Return the text of a call, as ViGGO writes it.

    Raises:
        GrammarError: a value holds "]", which the syntax cannot express.
    """
    return f"{call.function}({', '.join(_render_slot(slot) for slot in call.slots)})"


def _render_slot(slot: Slot) -> str:
    if slot.value is None:
        return slot.attribute
    if "]" in slot.value:
        raise GrammarError(f"the value {slot.value!r} of {slot.attribute} holds ']'")
    return f"{slot.attribute}[{slot.value}]"


def _parse_slot(text: str, at: int) -> tuple[Slot, int]:
    attribute, at = _parse_name(text, at, "an attribute")
    if not text.startswith("[", at):
        return Slot(attribute), at
    end = text.find("]", at)
    if end < 0:
        raise GrammarError(f"expected ']' to close the value of {attribute}, got the end")
    return Slot(attribute, text[at + 1 : end]), _skip_blanks(text, end + 1)


def _parse_name(text: str, at: int, expected: str) -> tuple[str, int]:
    name = _NAME.match(text, at)
    if name is None:
        raise GrammarError(f"expected {expected}, got {_show_position(text, at)}")
    return name[0], _skip_blanks(text, name.end())


def _expect(text: str, at: int, character: str) -> int:
    if not text.startswith(character, at):
        raise GrammarError(f"expected {character!r}, got {_show_position(text, at)}")
    return _skip_blanks(text, at + 1)


def _skip_blanks(text: str, at: int) -> int:
    """Return the next position that is not a blank."""
    blanks = _BLANKS.match(text, at)
    return blanks.end() if blanks else at


def _show_position(text: str, at: int) -> str:
    return f"{text[at : at + 12]!r} at character {at}" if at < len(text) else "the end"
