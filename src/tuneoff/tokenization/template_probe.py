"""Finds out how a chat template treats turns of each role, by marks in their contents.

It renders short conversations whose contents are words that no template contains. A content that is
missing in the rendered text was dropped or changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from tuneoff.prompts import Roles
from tuneoff.tokenization.adaptation import Adaptation, RolePosition, adapt_template
from tuneoff.tokenization.template_engine import TemplateRefusal, render_source

Special = tuple[tuple[str, str], ...]

_LONG: Roles = ("user", "assistant", "user")
# Conversations that test a role; `*` is the turn of that role.
_ALONE: Roles = ("*", "user")
_FIRST: tuple[Roles, ...] = (_ALONE, ("*", *_LONG))
_ELSEWHERE: tuple[Roles, ...] = (
    ("*", "*", "user"),
    ("system", "*", "user"),
    ("user", "*", "user"),
    ("user", "*"),
    ("user", "assistant", "*", "user"),
)
# Conversations that test the content of each role; user first, for all conversations have one.
_CONTEXTS: Mapping[str, tuple[Roles, ...]] = {
    "user": (("user",), ("system", "user")),
    "system": (("system", "user"),),
    "assistant": (_LONG,),
    "developer": (("developer", "user"), ("system", "developer", "user")),
    "tool": (("user", "tool"), ("user", "assistant", "tool", "user")),
}
# Roles that may cause a refusal, the likeliest first.
_SUSPECTS = ("tool", "developer", "system", "assistant")
_MOST_NAMED = 8


@lru_cache(maxsize=64)
def probe_template(source: str, special: Special) -> Adaptation:
    """Return the adaptation by which a chat template renders every turn that it can render."""
    adaptation = Adaptation(parts=_find_part_roles(source, special))
    plain = adapt_template(source, adaptation)
    own = _find_habits(plain, special)
    return replace(
        adaptation,
        system=_find_position(plain, special, "system"),
        developer=_find_position(plain, special, "developer"),
        dated=own.dated,
        trims=own.trims,
        forgets=_has_forgotten_thoughts(plain, special),
        repeats=own.repeats,
    )


def explain_unrenderable(
    source: str, special: Special, roles: Roles, add_generation_prompt: bool = True
) -> str | None:
    """Explain as a clause why a conversation of these roles cannot be rendered; None if it can."""
    lost = _find_lost_turns(source, special, roles, add_generation_prompt)
    if not lost:
        return None
    shown = ", ".join(roles if len(roles) <= _MOST_NAMED else (*roles[:4], "…", *roles[-3:]))
    if not isinstance(lost, str):
        named = " and ".join(dict.fromkeys(roles[place] for place in lost))
        return f"leaves out or changes what {named} turns say (in: {shown})"
    for suspect in _SUSPECTS:
        others = tuple(role for role in roles if role != suspect)
        if suspect in roles and others and not _find_lost_turns(source, special, others):
            return f"refuses {suspect} turns (in: {shown}; it says: {lost})"
    return f"refuses these turns: {shown} (it says: {lost})"


def _find_position(source: str, special: Special, role: str) -> RolePosition:
    """Return where a template renders turns of a role."""

    def renders(conversation: Roles) -> bool:
        roles = tuple(role if other == "*" else other for other in conversation)
        return not _find_lost_turns(source, special, roles)

    def tells(conversation: Roles) -> bool:
        """Return whether a failure would be due to this role's turn."""
        others = tuple(other for other in conversation if other != "*")
        return others == ("user", "user") or renders(others)

    if not all(renders(other) for other in _FIRST if other == _ALONE or tells(other)):
        return "nowhere"
    return "anywhere" if all(renders(other) for other in _ELSEWHERE if tells(other)) else "first"


def _find_part_roles(source: str, special: Special) -> frozenset[str]:
    """Return the roles whose contents a template renders as lists of parts and not as texts."""
    part_roles: frozenset[str] = frozenset()
    for role, contexts in _CONTEXTS.items():
        tried = (part_roles, part_roles | {role}, part_roles | {role, "system"})
        for parts in tried:
            text = adapt_template(source, Adaptation(parts=parts))
            if any(_has_rendered(text, special, roles, role) for roles in contexts):
                part_roles = parts
                break
    return part_roles


def _has_rendered(source: str, special: Special, roles: Roles, role: str) -> bool:
    """Return whether the contents of one role are rendered."""
    lost = _find_lost_turns(source, special, roles)
    return not isinstance(lost, str) and all(roles[place] != role for place in lost)


def _find_habits(source: str, special: Special) -> Adaptation:
    """Return what a template changes by itself in the longest conversation that it renders."""
    asked: list[str] = []

    def now(form: str) -> str:
        asked.append(form)
        return "1"

    for roles in (("system", *_LONG), _LONG, ("system", "user"), ("user",)):
        turns = _build_marked_turns(roles)
        padded = [{**turn, "content": f" {turn['content']} \n"} for turn in turns]
        try:
            text = render_source(source, dict(special), padded, True, strftime_now=now)
        except TemplateRefusal:
            continue
        counts = {turn["content"]: text.count(turn["content"]) for turn in turns}
        repeated = (turn["role"] for turn in turns if counts[turn["content"]] > 1)
        return Adaptation(
            dated=bool(asked),
            trims=any(
                counts[turn["content"]] and wide["content"] not in text
                for turn, wide in zip(turns, padded, strict=True)
            ),
            repeats=tuple(dict.fromkeys(repeated)),
        )
    return Adaptation(dated=bool(asked))


def _has_forgotten_thoughts(source: str, special: Special) -> bool:
    """Return whether an earlier assistant turn is rendered without its thoughts."""
    first, answer, last = _build_marked_turns(_LONG)
    thought = "ZqThoughtQz"
    thinking = {**answer, "content": f"<think>\n{thought}\n</think>\n\n{answer['content']}"}
    try:
        text = render_source(source, dict(special), [first, thinking, last], True)
    except TemplateRefusal:
        return False
    return answer["content"] in text and thought not in text


def _find_lost_turns(
    source: str, special: Special, roles: Roles, add_generation_prompt: bool = True
) -> str | list[int]:
    """Return the places of the first turns that are not rendered, or why all are refused."""
    turns = _build_marked_turns(roles)
    try:
        text = render_source(source, dict(special), turns, add_generation_prompt)
    except TemplateRefusal as error:
        return str(error)
    lost: list[int] = []
    behind = 0  # contents mostly come in order, so each search starts after the previous content
    for place, turn in enumerate(turns):
        start = text.find(turn["content"], behind)
        if start < 0:
            start = text.find(turn["content"])
        if start >= 0:
            behind = start
        elif len(lost) < _MOST_NAMED:
            lost.append(place)
        else:
            break
    return lost


def _build_marked_turns(roles: Sequence[str]) -> list[dict[str, Any]]:
    """Return a conversation whose contents are distinct words, in upper and lower case."""
    return [
        {"role": role, "content": f"Zq{place}x{role.title()}Qz"} for place, role in enumerate(roles)
    ]
