"""Writes an Ollama Modelfile for a GGUF file: `ollama create NAME -f Modelfile`.

Ollama renders prompts by its own kind of template. The model's chat template is probed for the text
that it puts around each turn. If that text explains every conversation tried, it is written as an
Ollama template. Otherwise there is no Modelfile, because its prompts would differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tuneoff.tokenization.chat_template import load_chat_template

# Contents of the probe turns: words that no template contains.
_MARKS = {"system": "Zqsystem", "user": "Zquser", "assistant": "Zqassistant"}
_LONGEST_CONVERSATION = ("system", "user", "assistant", "user")
_CONVERSATIONS = (
    _LONGEST_CONVERSATION,
    ("system", "user"),
    ("user",),
    ("user", "assistant", "user"),
    ("system", "user", "assistant", "user", "assistant", "user"),
)


@dataclass(frozen=True, slots=True)
class TurnFormat:
    """The text that a chat template puts around turns."""

    start: str
    """Text before the conversation."""
    before: dict[str, str]
    """Text before each turn, by its role."""
    behind: dict[str, str]
    """Text after each turn, by its role."""
    answer: str
    """Text at the end that makes the model answer."""
    system: str | None
    """The system turn that the template adds where there is none."""

    def render(self, roles: Sequence[str]) -> str:
        """Render a probe conversation of these roles, up to the answer."""
        turns = [(role, _MARKS[role]) for role in roles]
        if self.system is not None and roles[0] != "system":
            turns.insert(0, ("system", self.system))
        rendered = (self.before[role] + content + self.behind[role] for role, content in turns)
        return self.start + "".join(rendered) + self.answer


def render_modelfile(file: str, tokenizer: Any, chat: bool, ends: Sequence[int]) -> str | None:
    """Return the text of a Modelfile; None if its prompts would differ from the model's.

    Args:
        chat: whether prompts are chat turns; otherwise plain texts.
        ends: the tokens that end an answer.
    """
    turns = find_turn_format(tokenizer) if chat else None
    if chat and turns is None:
        return None
    system = turns.system if turns else None
    template = _render_template(turns, tokenizer) if turns else "{{ .Prompt }}"
    if template is None or '"""' in (system or ""):
        return None
    stops = [str(tokenizer.decode([end])) for end in ends]
    lines = [
        f"FROM ./{file}",
        f'TEMPLATE """{template}"""',
        *([f'SYSTEM """{system}"""'] if system else []),
        "# The likeliest token each time, as in the answers that were scored.",
        "PARAMETER temperature 0",
        "PARAMETER repeat_penalty 1",
        *(f'PARAMETER stop "{stop}"' for stop in stops if stop and '"' not in stop),
    ]
    return "\n".join(lines) + "\n"


def _render_template(turns: TurnFormat, tokenizer: Any) -> str | None:
    """Return Ollama's template, in the language of Go's text/template.

    None if a text would be read as part of that language.
    """
    texts = (turns.start, *turns.before.values(), *turns.behind.values(), turns.answer)
    if any(sign in text for text in texts for sign in ("{{", "}}", '"""')):
        return None
    # llama.cpp adds the BOS token itself where the tokenizer does.
    start = "" if tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id else turns.start
    cases = [
        f'{{{{ {word} eq .Role "{role}" }}}}{turns.before[role]}{{{{ .Content }}}}'
        f"{turns.behind[role]}"
        for word, role in zip(("if", "else if", "else if"), _MARKS, strict=True)
    ]
    return (
        f"{start}{{{{ range .Messages }}}}{''.join(cases)}{{{{ end }}}}{{{{ end }}}}{turns.answer}"
    )


def find_turn_format(tokenizer: Any) -> TurnFormat | None:
    """Return the text around turns if it explains every probe conversation; otherwise None."""
    try:
        turns = _guess_turn_format(tokenizer)
        explained = turns is not None and all(
            _render_marks(tokenizer, roles) == turns.render(roles) for roles in _CONVERSATIONS
        )
    except Exception:  # a template may refuse turns with any exception
        return None
    return turns if explained else None


def _guess_turn_format(tokenizer: Any) -> TurnFormat | None:
    """Guess the text around turns from two probe conversations."""
    first, to_user, to_assistant, to_next, end = _split_at_marks(tokenizer, _LONGEST_CONVERSATION)
    alone, alone_end = _split_at_marks(tokenizer, ("user",))
    bos = tokenizer.bos_token or ""
    start = bos if bos and first.startswith(bos) else ""
    system_start, inside = first.removeprefix(start), alone.removeprefix(start)
    system = None
    if inside.startswith(system_start) and inside.endswith(to_user):
        system = inside.removeprefix(system_start).removesuffix(to_user)
        user_start = system_start.replace("system", "user")
    else:
        user_start = inside
    if end != alone_end or not (to_user.endswith(user_start) and to_next.endswith(user_start)):
        return None
    behind = {
        "system": to_user.removesuffix(user_start),
        "assistant": to_next.removesuffix(user_start),
    }
    ends = (behind["assistant"], behind["system"], "")
    behind["user"] = next(e for e in ends if end.startswith(e) and to_assistant.startswith(e))
    before = {
        "system": system_start,
        "user": user_start,
        "assistant": to_assistant.removeprefix(behind["user"]),
    }
    return TurnFormat(start, before, behind, end.removeprefix(behind["user"]), system)


def _split_at_marks(tokenizer: Any, roles: Sequence[str]) -> list[str]:
    """Return the text before, between and after the contents of a probe conversation."""
    rest, pieces = _render_marks(tokenizer, roles), []
    for role in roles:
        before, _, rest = rest.partition(_MARKS[role])
        pieces.append(before)
    return [*pieces, rest]


def _render_marks(tokenizer: Any, roles: Sequence[str]) -> str:
    """Render a probe conversation with the model's chat template."""
    turns = [{"role": role, "content": _MARKS[role]} for role in roles]
    return load_chat_template(tokenizer).render(turns)
