"""Chat templates: renders chat turns as the text that an open model sees.

Every part of tuneoff renders through `ChatTemplate.render`: training, answering, serving, the
offline token counts and the exports. A template that would leave out, change or refuse turns is
adapted (`adaptation.py`); where that does not help, the turns are refused, never lost.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tuneoff import machine
from tuneoff.errors import TuneoffError
from tuneoff.tokenization.adaptation import Adaptation, Roles, adapted, roles_of
from tuneoff.tokenization.template_engine import TemplateRefusal, render_source
from tuneoff.tokenization.template_probe import Special, probe, trouble

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Turns of the longest conversation whose shape is remembered.
MOST_KEPT = 64


class TemplateError(TuneoffError):
    """A chat template cannot render these turns, and `why`, as a clause about it."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the chat template {why}")
        self.why = why


@dataclass(frozen=True)
class ChatTemplate:
    """A base's chat template: Jinja `source`, and the `special` tokens it may write, by name
    (`bos_token`: `<s>`). One that asks for the date is told `today`; None: the day it is."""

    source: str
    special: Mapping[str, str] = field(default_factory=dict)
    today: datetime.date | None = None

    @property
    def adaptation(self) -> Adaptation:
        """Return what is done so that it renders every turn of any conversation."""
        return probe(self.source, self._names)

    def render(self, turns: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True) -> str:
        """Render turns as text, up to where the assistant begins to answer.

        Raises:
            TemplateError: the template refuses turns of these roles, leaves them out or changes
                them, whatever is done about it, or it cannot be carried out.
        """
        roles = roles_of(turns)
        # A server's clients may send any number of long conversations, none like another.
        plan = _planned if len(roles) <= MOST_KEPT else _planned.__wrapped__
        source, problem = plan(self.source, self._names, roles, add_generation_prompt)
        if problem is not None:
            raise TemplateError(problem)
        day = self.today or machine.today()
        moment = datetime.datetime.combine(day, datetime.time())
        try:
            return render_source(
                source, self.special, turns, add_generation_prompt, strftime_now=moment.strftime
            )
        except TemplateRefusal as error:  # roles of this kind it takes, these contents it does not
            raise TemplateError(f"refuses them: {error}") from None

    def sentences(self, conversations: Collection[Roles]) -> list[str]:
        """Say what is done for conversations of these roles, each as a clause."""
        day = self.today or machine.today()
        return list(self.adaptation.needed_for(conversations).sentences(day))

    def exported(self, conversations: Collection[Roles]) -> str:
        """Return the template's text with what such conversations need written into it."""
        day = self.today or machine.today()
        return adapted(self.source, self.adaptation.needed_for(conversations), day)

    @property
    def _names(self) -> Special:
        return tuple(sorted(self.special.items()))


def load_chat_template(
    tokenizer: PreTrainedTokenizerBase, today: datetime.date | None = None
) -> ChatTemplate:
    """Return the chat template of a loaded tokenizer; an empty one where it has none."""
    special = {name: str(text) for name, text in tokenizer.special_tokens_map.items()}
    return ChatTemplate(template_source(tokenizer.chat_template) or "", special, today)


def template_source(stored: Any) -> str | None:
    """Return the template that is used of those a tokenizer has: the only one, or the default."""
    if isinstance(stored, list):
        stored = {each["name"]: each["template"] for each in stored}
    if isinstance(stored, Mapping):
        stored = stored.get("default")
    return stored if isinstance(stored, str) and stored else None


def day_of_job(facts: Mapping[str, Any], created_at: int) -> datetime.date:
    """Return the date that the chat template of a server's job is told, in training and answering;
    of a job that does not say: the day it was created."""
    given = facts.get("today")
    if given is None:
        return datetime.date.fromtimestamp(created_at)
    return datetime.date.fromisoformat(given)


def write_adapted(
    tokenizer: PreTrainedTokenizerBase,
    conversations: Collection[Roles],
    today: datetime.date | None,
) -> list[str]:
    """Have a tokenizer's chat template say itself what is done for such conversations, for whoever
    loads what is saved; return that as clauses."""
    template = load_chat_template(tokenizer, today)
    if not template.source:
        return []
    text = template.exported(conversations)
    if isinstance(tokenizer.chat_template, dict):
        tokenizer.chat_template = {**tokenizer.chat_template, "default": text}
    else:
        tokenizer.chat_template = text
    return template.sentences(conversations)


@lru_cache(maxsize=1024)
def _planned(
    source: str, special: Special, roles: Roles, add_generation_prompt: bool
) -> tuple[str, str | None]:
    """Return the template that renders such a conversation, and what is wrong all the same."""
    text = adapted(source, probe(source, special).needed_for([roles]))
    return text, trouble(text, special, roles, add_generation_prompt)
