"""What a chat template does with turns of each role, found by marks in their contents.

It is asked to render short conversations whose contents are words that no template holds. A
content that is not in what it renders was left out, or changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from tuneoff.tokenization.adaptation import Adaptation, Roles, Where, adapted
from tuneoff.tokenization.template_engine import TemplateRefusal, render_source

Special = tuple[tuple[str, str], ...]

_LONG: Roles = ("user", "assistant", "user")
# Conversations in which a role is looked for; `*` is its own turn.
_ALONE: Roles = ("*", "user")
_FIRST: tuple[Roles, ...] = (_ALONE, ("*", *_LONG))
_ELSEWHERE: tuple[Roles, ...] = (
    ("*", "*", "user"),
    ("system", "*", "user"),
    ("user", "*", "user"),
    ("user", "*"),
    ("user", "assistant", "*", "user"),
)
# Where the content of each role is looked for; user first, for every conversation has one.
_CONTEXTS: Mapping[str, tuple[Roles, ...]] = {
    "user": (("user",), ("system", "user")),
    "system": (("system", "user"),),
    "assistant": (_LONG,),
    "developer": (("developer", "user"), ("system", "developer", "user")),
    "tool": (("user", "tool"), ("user", "assistant", "tool", "user")),
}
# Who may be to blame for a refusal, the likeliest first.
_SUSPECTS = ("tool", "developer", "system", "assistant")
_MOST_NAMED = 8


@lru_cache(maxsize=64)
def probe(source: str, special: Special) -> Adaptation:
    """Return what a chat template needs so that it renders every turn that it can render."""
    found = Adaptation(parts=_parts(source, special))
    plain = adapted(source, found)
    own = _habits(plain, special)
    return replace(
        found,
        system=_where(plain, special, "system"),
        developer=_where(plain, special, "developer"),
        dated=own.dated,
        trims=own.trims,
        forgets=_forgets(plain, special),
        repeats=own.repeats,
    )


def trouble(
    source: str, special: Special, roles: Roles, add_generation_prompt: bool = True
) -> str | None:
    """Say as a clause what a template cannot do with a conversation of these roles; None where it
    renders all of its turns."""
    lost = _lost(source, special, roles, add_generation_prompt)
    if not lost:
        return None
    shown = ", ".join(roles if len(roles) <= _MOST_NAMED else (*roles[:4], "…", *roles[-3:]))
    if not isinstance(lost, str):
        named = " and ".join(dict.fromkeys(roles[place] for place in lost))
        return f"leaves out or changes what {named} turns say (in: {shown})"
    for suspect in _SUSPECTS:
        others = tuple(role for role in roles if role != suspect)
        if suspect in roles and others and not _lost(source, special, others):
            return f"refuses {suspect} turns (in: {shown}; it says: {lost})"
    return f"refuses these turns: {shown} (it says: {lost})"


def _where(source: str, special: Special, role: str) -> Where:
    """Return where a template renders turns of a role."""

    def renders(conversation: Roles) -> bool:
        roles = tuple(role if each == "*" else each for each in conversation)
        return not _lost(source, special, roles)

    def tells(conversation: Roles) -> bool:
        """Say whether it is this role's turn that would be in the way."""
        others = tuple(each for each in conversation if each != "*")
        return others == ("user", "user") or renders(others)

    if not all(renders(each) for each in _FIRST if each == _ALONE or tells(each)):
        return "nowhere"
    return "anywhere" if all(renders(each) for each in _ELSEWHERE if tells(each)) else "first"


def _parts(source: str, special: Special) -> frozenset[str]:
    """Return the roles whose contents a template renders as lists of parts, and not as texts."""
    found: frozenset[str] = frozenset()
    for role, contexts in _CONTEXTS.items():
        tried = (found, found | {role}, found | {role, "system"})
        for parts in tried:
            text = adapted(source, Adaptation(parts=parts))
            if any(_carries(text, special, roles, role) for roles in contexts):
                found = parts
                break
    return found


def _carries(source: str, special: Special, roles: Roles, role: str) -> bool:
    """Say whether the contents of one role are rendered."""
    lost = _lost(source, special, roles)
    return not isinstance(lost, str) and all(roles[place] != role for place in lost)


def _habits(source: str, special: Special) -> Adaptation:
    """Return what a template does of its own in the longest conversation that it renders."""
    asked: list[str] = []

    def now(form: str) -> str:
        asked.append(form)
        return "1"

    for roles in (("system", *_LONG), _LONG, ("system", "user"), ("user",)):
        turns = _marked(roles)
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


def _forgets(source: str, special: Special) -> bool:
    """Return whether what an earlier assistant turn says is rendered, and its thoughts are not."""
    first, answer, last = _marked(_LONG)
    thought = "ZqThoughtQz"
    said = {**answer, "content": f"<think>\n{thought}\n</think>\n\n{answer['content']}"}
    try:
        text = render_source(source, dict(special), [first, said, last], True)
    except TemplateRefusal:
        return False
    return answer["content"] in text and thought not in text


def _lost(
    source: str, special: Special, roles: Roles, add_generation_prompt: bool = True
) -> str | list[int]:
    """Return the places of turns whose contents are not rendered, the first few, or why all turns
    are refused."""
    turns = _marked(roles)
    try:
        text = render_source(source, dict(special), turns, add_generation_prompt)
    except TemplateRefusal as error:
        return str(error)
    lost: list[int] = []
    behind = 0  # contents mostly come in order: each is looked for behind the one before it
    for place, turn in enumerate(turns):
        found = text.find(turn["content"], behind)
        if found < 0:
            found = text.find(turn["content"])
        if found >= 0:
            behind = found
        elif len(lost) < _MOST_NAMED:
            lost.append(place)
        else:
            break
    return lost


def _marked(roles: Sequence[str]) -> list[dict[str, Any]]:
    """Return a conversation whose contents are words that differ, in large and small letters."""
    return [
        {"role": role, "content": f"Zq{place}x{role.title()}Qz"} for place, role in enumerate(roles)
    ]
