"""The Jinja environment of chat templates, equal to that of transformers' `apply_chat_template`.

Source: transformers 5, `utils/chat_template_utils.py`; importing that takes seconds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from tuneoff import environment as tuneoff_environment

if TYPE_CHECKING:
    from jinja2 import Template

# Transformers' own tag around assistant texts; it renders nothing.
GENERATION_TAG = re.compile(r"\{%(-?)\s*(end)?generation\s*(-?)%\}")


class TemplateRefusal(Exception):
    """A chat template refuses these turns; the message is its own."""


def render_source(
    source: str,
    special: Mapping[str, str],
    turns: Sequence[Mapping[str, Any]],
    add_generation_prompt: bool,
    **names: Any,
) -> str:
    """Render turns by an unadapted template and return the text.

    Args:
        special: the special tokens that it may write, by name (`bos_token`: `<s>`).
        names: further variables, which override the environment's.

    Raises:
        TemplateRefusal: the template refuses the turns, or fails.
    """
    from jinja2 import TemplateError as JinjaError

    try:
        return _compile(source).render(
            messages=[dict(turn) for turn in turns],
            tools=None,
            documents=None,
            add_generation_prompt=add_generation_prompt,
            # Templates with a thinking mode (Qwen3) would spend the answer's tokens on it; others
            # ignore this.
            enable_thinking=False,
            **special,
            **names,
        )
    except (ArithmeticError, AttributeError, JinjaError, LookupError, RecursionError, TypeError,
            ValueError) as error:  # fmt: skip
        raise TemplateRefusal((str(error) or "no reason").splitlines()[0].rstrip(".")) from None


@cache
def _compile(source: str) -> Template:
    """Return a template compiled in transformers' environment: sandboxed, with its variables."""
    from jinja2 import TemplateError as JinjaError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise JinjaError(message)

    def now(form: str) -> str:
        return tuneoff_environment.now().astimezone().replace(tzinfo=None).strftime(form)

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
