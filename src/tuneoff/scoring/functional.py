"""Scores functional representation: is the call right, and if not, which part is wrong?

For answers like `inform(name[Portal 2], platforms[PC, Xbox])`, as in ViGGO (Juraska, Bowden and
Walker, INLG 2019); A *slot* is a pair of attribute and value. Each item
of a list is a slot of its own, and slots are compared as multisets, so a missing list item costs
one slot and not the whole list. An attribute with an empty value, or none, is one slot with an
empty value. Names and values are compared character by character. All metrics but `exact_match`
read the call within a fence (`answer_text.py`). Precision, recall and F1 are fractions; they are 1
if neither side has slots.

The syntax is that of ViGGO's meaning representation:

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
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from tuneoff.records import ScoredRow
from tuneoff.scoring.answer_text import find_in_language
from tuneoff.scoring.base import (
    MetricKind,
    Options,
    ScoringInput,
    build_left_out,
    build_lowest_scores,
    build_unanswered,
    explain_no_answer,
)
from tuneoff.scoring.text import compute_matches

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


METRICS: Mapping[str, MetricKind] = {
    "exact_match": "yes/no",
    "normalized_match": "yes/no",
    "function_accuracy": "yes/no",
    "slot_precision": "fraction",
    "slot_recall": "fraction",
    "slot_f1": "fraction",
    "order_insensitive_match": "yes/no",
    "valid_format": "yes/no",
}
PRIMARY = "exact_match"
REORDERED = "right but for order"


def score_rows(rows: Iterable[ScoringInput], options: Options) -> Iterator[ScoredRow]:
    """Yield every metric of each row, in order.

    A reference that is not a call leaves out its own row. No option has an effect.
    """
    for row in rows:
        yield _score_row(row)


def failing(rows: Iterable[ScoringInput], options: Options) -> Iterator[tuple[str, str]]:
    """Yield the id of each row whose reference is not a call, and the reason."""
    for row in rows:
        try:
            parse_call(row.reference)
        except GrammarError as error:
            yield row.id, _explain_no_call(error)


def _explain_no_call(error: GrammarError) -> str:
    return f"it is not of the form function(attribute[value]): {error}"


def _score_row(row: ScoringInput) -> ScoredRow:
    try:
        reference = parse_call(row.reference)
    except GrammarError as error:
        return build_left_out(row.id, _explain_no_call(error))
    missing = explain_no_answer(row)
    if missing is not None:
        return build_unanswered(row, missing, METRICS)
    text = find_in_language(row.prediction, row.reference, _is_call)
    scores = build_lowest_scores(METRICS) | compute_matches(row, text)
    try:
        answer = parse_call(text)
    except GrammarError:
        return ScoredRow(row.id, scores, "does not parse")
    scores |= _compare_calls(reference, answer)
    return ScoredRow(row.id, scores, _choose_verdict(reference, answer, scores))


def _is_call(text: str) -> bool:
    try:
        parse_call(text)
    except GrammarError:
        return False
    return True


def _compare_calls(reference: Call, answer: Call) -> dict[str, bool | float]:
    precision, recall, f1 = _compute_precision_recall_f1(
        _count_slots(reference), _count_slots(answer)
    )
    return {
        "function_accuracy": answer.function == reference.function,
        "slot_precision": precision,
        "slot_recall": recall,
        "slot_f1": f1,
        "order_insensitive_match": _build_unordered(answer) == _build_unordered(reference),
        "valid_format": True,
    }


def _count_slots(call: Call) -> Counter[tuple[str, str]]:
    return Counter((slot.attribute, item) for slot in call.slots for item in slot.items())


def _list_slots(call: Call) -> list[tuple[str, ...]]:
    return [(slot.attribute, *slot.items()) for slot in call.slots]


def _build_unordered(call: Call) -> tuple[str, Counter[tuple[str, ...]]]:
    """Return a call without the order of its attributes and of the items of each value."""
    slots = Counter((slot.attribute, *sorted(slot.items())) for slot in call.slots)
    return call.function, slots


def _compute_precision_recall_f1(
    reference: Counter[tuple[str, str]], answer: Counter[tuple[str, str]]
) -> tuple[float, float, float]:
    expected, answered = reference.total(), answer.total()
    if expected == 0 and answered == 0:
        return 1.0, 1.0, 1.0
    common = (reference & answer).total()
    precision = common / answered if answered else 0.0
    recall = common / expected if expected else 0.0
    return precision, recall, 2 * common / (expected + answered)


def _choose_verdict(reference: Call, answer: Call, scores: Mapping[str, bool | float]) -> str:
    """Return the gravest error of an answer."""
    if scores["exact_match"]:
        return "right"
    if scores["normalized_match"]:
        return "right but for form"
    if not scores["function_accuracy"]:
        return "wrong function"
    if scores["order_insensitive_match"]:
        return "right but for form" if _list_slots(answer) == _list_slots(reference) else REORDERED
    expected = Counter(slot.attribute for slot in reference.slots)
    answered = Counter(slot.attribute for slot in answer.slots)
    if expected - answered:
        return "missing slot"
    return "extra slot" if answered - expected else "wrong value"
