"""Chat templates: renders chat turns as the text that an open model sees.

Every part of tuneoff renders through `ChatTemplate.render`: training, answering, serving, the
offline token counts and the exports. The environment is the one that transformers'
`apply_chat_template` uses (transformers 5, `utils/chat_template_utils.py`), without its import,
which takes seconds.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Template
    from transformers import PreTrainedTokenizerBase

# transformers' own tag around what the assistant says: it renders nothing.
GENERATION_TAG = re.compile(r"\{%(-?)\s*(end)?generation\s*(-?)%\}")


class TemplateError(Exception):
    """A chat template refuses these turns; the message is the template's own."""


@dataclass(frozen=True)
class ChatTemplate:
    """A base's chat template: Jinja `source`, and the `special` tokens it may write, by name
    (`bos_token`: `<s>`)."""

    source: str
    special: Mapping[str, str] = field(default_factory=dict)

    def render(self, turns: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True) -> str:
        """Render turns as text, up to where the assistant begins to answer.

        Raises:
            TemplateError: the template refuses the turns, or cannot be carried out.
        """
        from jinja2 import TemplateError as JinjaError

        try:
            return _compile(self.source).render(
                messages=[dict(turn) for turn in turns],
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                # Templates that know of thinking (Qwen3) would spend the answer's tokens on it;
                # the others ignore this.
                enable_thinking=False,
                **self.special,
            )
        except (JinjaError, TypeError, ValueError) as error:
            raise TemplateError((str(error) or "no reason").splitlines()[0].rstrip(".")) from None


def load_chat_template(tokenizer: PreTrainedTokenizerBase) -> ChatTemplate:
    """Return the chat template of a loaded tokenizer; an empty one where it has none."""
    source = tokenizer.chat_template
    if isinstance(source, dict):
        source = source.get("default")
    special = {name: str(text) for name, text in tokenizer.special_tokens_map.items()}
    return ChatTemplate(source or "", special)


@cache
def _compile(source: str) -> Template:
    """Compile a template in the environment that transformers gives it: sandboxed, with its
    names."""
    from jinja2 import TemplateError as JinjaError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise JinjaError(message)

    def now(form: str) -> str:
        return datetime.datetime.now().strftime(form)

    def to_json(value: Any, **options: Any) -> str:
        return json.dumps(value, **{"ensure_ascii": False, **options})

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals.update(raise_exception=refuse, strftime_now=now)
    plain = GENERATION_TAG.sub(
        lambda tag: f"{{%{tag[1]} {'endif' if tag[2] else 'if true'} {tag[3]}%}}", source
    )
    return environment.from_string(plain)
