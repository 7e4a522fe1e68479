"""Chat templates: render chat turns as the text that an open model sees.

Every part of tuneoff renders through `ChatTemplate.render`: training, answering, serving, the
offline token counts and the exports. A template that would drop, change or refuse turns is adapted
(`adaptation.py`). Where that does not help, the turns are refused, never lost.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tuneoff import environment
from tuneoff.errors import TuneoffError
from tuneoff.prompts import Roles, list_roles
from tuneoff.tokenization.adaptation import Adaptation, adapt_template
from tuneoff.tokenization.template_engine import TemplateRefusal, render_source
from tuneoff.tokenization.template_probe import Special, explain_unrenderable, probe_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Maximum turns of a conversation whose rendering plan is cached.
MAX_CACHED_TURNS = 64


class TemplateError(TuneoffError):
    """A chat template cannot render these turns; `why` is a clause about it."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the chat template {why}")
        self.why = why


@dataclass(frozen=True)
class ChatTemplate:
    """A base's chat template."""

    source: str
    """Its Jinja text."""
    special: Mapping[str, str] = field(default_factory=dict)
    """The special tokens that it may write, by name (`bos_token`: `<s>`)."""
    today: datetime.date | None = None
    """The date for a template that asks for it; None: the current date."""

    @property
    def adaptation(self) -> Adaptation:
        """Return the adaptation by which it renders every turn of any conversation."""
        return probe_template(self.source, self._names)

    def render(self, turns: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True) -> str:
        """Render turns as text, up to where the assistant begins to answer.

        Raises:
            TemplateError: even adapted, the template refuses turns of these roles, drops or changes
                them; or it fails.
        """
        roles = list_roles(turns)
        # Do not cache long conversations: a server's clients may send any number of them, all
        # different.
        plan = _plan_rendering if len(roles) <= MAX_CACHED_TURNS else _plan_rendering.__wrapped__
        source, problem = plan(self.source, self._names, roles, add_generation_prompt)
        if problem is not None:
            raise TemplateError(problem)
        day = self.today or environment.today()
        moment = datetime.datetime.combine(day, datetime.time())
        try:
            return render_source(
                source, self.special, turns, add_generation_prompt, strftime_now=moment.strftime
            )
        except TemplateRefusal as error:  # it accepts these roles, but not these contents
            raise TemplateError(f"refuses them: {error}") from None

    def describe(self, conversations: Collection[Roles]) -> list[str]:
        """Return clauses that say what is adapted for conversations of these roles."""
        day = self.today or environment.today()
        return list(self.adaptation.select_for(conversations).describe(day))

    def build_exported(self, conversations: Collection[Roles]) -> str:
        """Return the template's text, adapted for conversations of these roles."""
        day = self.today or environment.today()
        return adapt_template(self.source, self.adaptation.select_for(conversations), day)

    @property
    def _names(self) -> Special:
        return tuple(sorted(self.special.items()))


def load_chat_template(
    tokenizer: PreTrainedTokenizerBase, today: datetime.date | None = None
) -> ChatTemplate:
    """Return the chat template of a loaded tokenizer; an empty one if it has none."""
    special = {name: str(text) for name, text in tokenizer.special_tokens_map.items()}
    return ChatTemplate(find_template_source(tokenizer.chat_template) or "", special, today)


def find_template_source(stored: Any) -> str | None:
    """Return a tokenizer's only or default template; None if there is none."""
    if isinstance(stored, list):
        stored = {entry["name"]: entry["template"] for entry in stored}
    if isinstance(stored, Mapping):
        stored = stored.get("default")
    return stored if isinstance(stored, str) and stored else None


def find_job_date(facts: Mapping[str, Any], created_at: int) -> datetime.date:
    """Return the date that a server job's chat template uses in training and answering.

    For a job without one it is the day of its creation.
    """
    stored = facts.get("today")
    if stored is None:
        return datetime.date.fromtimestamp(created_at)
    return datetime.date.fromisoformat(stored)


def write_adapted_template(
    tokenizer: PreTrainedTokenizerBase,
    conversations: Collection[Roles],
    today: datetime.date | None,
) -> list[str]:
    """Write the adaptation into a tokenizer's chat template, and return it as clauses.

    So whoever loads the saved tokenizer renders such conversations the same.
    """
    template = load_chat_template(tokenizer, today)
    if not template.source:
        return []
    text = template.build_exported(conversations)
    if isinstance(tokenizer.chat_template, dict):
        tokenizer.chat_template = {**tokenizer.chat_template, "default": text}
    else:
        tokenizer.chat_template = text
    return template.describe(conversations)


@lru_cache(maxsize=1024)
def _plan_rendering(
    source: str, special: Special, roles: Roles, add_generation_prompt: bool
) -> tuple[str, str | None]:
    """Return the adapted template for a conversation of these roles, and what it still cannot
    render."""
    text = adapt_template(source, probe_template(source, special).select_for([roles]))
    return text, explain_unrenderable(text, special, roles, add_generation_prompt)
