"""Adapts a chat template so that it renders every turn, by lines of Jinja before its own.

The lines become part of the template's text. So training, answering, the server, and transformers
or vLLM with an exported model all render the same.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from tuneoff.prompts import Roles

# Where a template renders turns of a role: anywhere; only one, before all others; nowhere.
RolePosition = Literal["anywhere", "first", "nowhere"]

# The strftime directives that a chat template may use for a date. The time is midnight.
_DATE_DIRECTIVES = [f"%{letter}" for letter in "aAbBcdDeFGHIjmMpSTuUVwWxXyYzZ"]
_DATE_DIRECTIVES += [f"%-{letter}" for letter in "dmejHIMSy"]
_CONTENT = (
    "turn['content'] if turn['content'] is string else "
    "turn['content'] | map(attribute='text') | join"
)


@dataclass(frozen=True, slots=True)
class Adaptation:
    """What a chat template needs, and what it changes by itself.

    The last three fields change nothing here; they are reported to the user.
    """

    system: RolePosition = "anywhere"
    """Where it renders system turns. The text of one that it does not render begins the next user
    turn."""
    developer: RolePosition = "anywhere"
    """Where it renders developer turns. One that it does not render is rendered as a system
    turn."""
    parts: frozenset[str] = frozenset()
    """The roles whose content must be a list of parts."""
    dated: bool = False
    """Whether it asks for the date, which is then a fixed one."""
    trims: bool = False
    """Whether it drops blanks at the ends of contents."""
    forgets: bool = False
    """Whether it drops the thoughts of earlier assistant turns."""
    repeats: Roles = ()
    """The roles whose content it writes more than once."""

    def select_for(self, conversations: Collection[Roles]) -> Adaptation:
        """Return the part of it that these conversations need, each given by its turns' roles."""
        renamed = [self._rename_roles(turn_roles) for turn_roles in conversations]
        roles = {role for turn_roles in renamed for role in turn_roles}
        return replace(
            self,
            system=self.system
            if any(self._moves(turn_roles) for turn_roles in renamed)
            else "anywhere",
            developer=(
                self.developer
                if any(a != b for a, b in zip(conversations, renamed, strict=True))
                else "anywhere"
            ),
            parts=self.parts if self.parts & roles else frozenset(),
            forgets=self.forgets and "assistant" in roles,
            repeats=tuple(role for role in self.repeats if role in roles),
        )

    def describe(self, day: datetime.date) -> Iterator[str]:
        """Yield clauses that say what is adapted, and what the template changes by itself."""
        if self.developer != "anywhere":
            yield "developer turns are rendered as system turns, for it does not render them"
        if self.system == "first":
            yield (
                "system turns at the beginning are joined, and the text of later ones begins the "
                "next user turn, for it renders one system turn only, the first"
            )
        if self.system == "nowhere":
            yield "the text of system turns begins the next user turn, for it does not render them"
        if self.parts:
            yield "contents are given to it as parts of type text, for it renders no plain texts"
        if self.dated:
            yield f"it asks for the date and is told {day.isoformat()} each time"
        if self.trims:
            yield "it drops blanks at the beginning and end of contents"
        if self.forgets:
            yield "it leaves out the thoughts (up to </think>) of earlier assistant turns"
        if self.repeats:
            yield f"it writes the content of {' and '.join(self.repeats)} turns more than once"

    def _rename_roles(self, roles: Roles) -> Roles:
        """Return the roles with developer turns renamed to system where they are not rendered."""
        kept = {"anywhere": len(roles), "first": 1, "nowhere": 0}[self.developer]
        later = ("system" if role == "developer" else role for role in roles[kept:])
        return (*roles[:kept], *later)

    def _moves(self, renamed: Roles) -> bool:
        """Return whether a system turn does not stay where it is."""
        kept = {"anywhere": len(renamed), "first": 1, "nowhere": 0}[self.system]
        return "system" in renamed[kept:]


@lru_cache(maxsize=256)
def adapt_template(source: str, found: Adaptation, day: datetime.date | None = None) -> str:
    """Return a chat template's text with the lines that it needs before it.

    Args:
        day: the date for a template that asks for it; None: its renderer decides.
    """
    lines: list[str] = []
    if found.dated and day is not None:
        lines.append(_build_date_line(day))
    if found.system != "anywhere" or found.developer != "anywhere":
        lines += _build_turn_lines(found)
    if found.parts:
        lines += _build_part_lines(found.parts)
    if not lines:
        return source
    note = "{#- tuneoff put this before the base's own template. -#}"
    # The last line has no dash at its end, for the template's own first blanks must stay. Its line
    # feed is dropped (trim_blocks), so that the template still begins a line.
    return "\n".join([note, *lines, "{%- set tuneoff = none %}", source])


def _build_date_line(day: datetime.date) -> str:
    """Return a line that answers `strftime_now` with one day, in any format."""
    moment = datetime.datetime.combine(day, datetime.time())
    steps = "".join(f".replace({form!r}, {moment.strftime(form)!r})" for form in _DATE_DIRECTIVES)
    return f"{{%- macro strftime_now(form) -%}}{{{{ form{steps} }}}}{{%- endmacro -%}}"


def _build_turn_lines(found: Adaptation) -> Sequence[str]:
    """Return lines that rename developer turns and move system texts to where they are rendered.

    A system text between two user turns joins them to one, for templates that refuse system turns
    also refuse two user turns in a row. A system text after the last user turn is appended to it.
    """
    renamed = {
        "anywhere": "false",
        "first": "turn['role'] == 'developer' and not loop.first",
        "nowhere": "turn['role'] == 'developer'",
    }[found.developer]
    stays = {"anywhere": "true", "first": "not tuneoff.turns", "nowhere": "false"}[found.system]
    joins = {"first": "tuneoff.turns | length == 1 and last == 'system'"}.get(found.system, "false")
    return [
        "{%- set tuneoff = namespace(turns=[], text='') -%}",
        "{%- macro tuneoff_joined(first, second) -%}",
        "{{ first }}{{ '\\n\\n' if first and second else '' }}{{ second }}",
        "{%- endmacro -%}",
        "{%- for turn in messages -%}",
        f"{{%- set role = 'system' if {renamed} else turn['role'] -%}}",
        "{%- set last = tuneoff.turns[-1]['role'] if tuneoff.turns else '' -%}",
        "{%- if role == 'system' -%}",
        f"{{%- set content = {_CONTENT} -%}}",
        f"{{%- if {stays} -%}}",
        "{%- set tuneoff.turns = tuneoff.turns + [{'role': role, 'content': content}] -%}",
        f"{{%- elif {joins} -%}}",
        "{%- set content = tuneoff_joined(tuneoff.turns[0]['content'], content) -%}",
        "{%- set tuneoff.turns = [{'role': role, 'content': content}] -%}",
        "{%- else -%}",
        "{%- set tuneoff.text = tuneoff_joined(tuneoff.text, content) -%}",
        "{%- endif -%}",
        "{%- elif tuneoff.text and (role == 'user' or last == 'user') -%}",
        "{%- if last == 'user' -%}",
        "{%- set tuneoff.text = tuneoff_joined(tuneoff.turns[-1]['content'], tuneoff.text) -%}",
        "{%- set tuneoff.turns = tuneoff.turns[:-1] -%}",
        "{%- endif -%}",
        "{%- if role == 'user' -%}",
        f"{{%- set content = {_CONTENT} -%}}",
        "{%- set tuneoff.text = tuneoff_joined(tuneoff.text, content) -%}",
        "{%- endif -%}",
        "{%- set tuneoff.turns = tuneoff.turns + [{'role': 'user', 'content': tuneoff.text}] -%}",
        "{%- set tuneoff.text = '' -%}",
        "{%- if role != 'user' -%}",
        "{%- set tuneoff.turns = tuneoff.turns + [turn] -%}",
        "{%- endif -%}",
        "{%- else -%}",
        "{%- set tuneoff.turns = tuneoff.turns + [turn] -%}",
        "{%- endif -%}",
        "{%- endfor -%}",
        "{%- if tuneoff.text -%}",
        "{%- if tuneoff.turns and tuneoff.turns[-1]['role'] == 'user' -%}",
        "{%- set tuneoff.text = tuneoff_joined(tuneoff.turns[-1]['content'], tuneoff.text) -%}",
        "{%- set tuneoff.turns = tuneoff.turns[:-1] -%}",
        "{%- endif -%}",
        "{%- set tuneoff.turns = tuneoff.turns + [{'role': 'user', 'content': tuneoff.text}] -%}",
        "{%- endif -%}",
        "{%- set messages = tuneoff.turns -%}",
    ]


def _build_part_lines(roles: Collection[str]) -> Sequence[str]:
    """Return lines that turn the contents of some roles into lists of parts."""
    return [
        "{%- set tuneoff = namespace(turns=[]) -%}",
        "{%- for turn in messages -%}",
        f"{{%- if turn['role'] in {sorted(roles)} and turn['content'] is string "
        "and not turn['tool_calls'] -%}",
        "{%- set content = [{'type': 'text', 'text': turn['content']}] -%}",
        "{%- set tuneoff.turns = tuneoff.turns + [{'role': turn['role'], 'content': content}] -%}",
        "{%- else -%}",
        "{%- set tuneoff.turns = tuneoff.turns + [turn] -%}",
        "{%- endif -%}",
        "{%- endfor -%}",
        "{%- set messages = tuneoff.turns -%}",
    ]
