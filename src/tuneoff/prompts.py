"""The one renderer: (example, template) → chat messages, or plain text.

Every contender's prompt is made here from the same content. Chat turns where the model
has a chat template, plain text where it has none. `content_sha256` (ids, inputs,
references) is equal for all contenders of a run; `prompt_sha256` is the rendering's.

A template has two renderings of one content:

* chat: system = instruction (and context), user = the input, the answer is the
  assistant turn. With shots, each shot is a user and an assistant turn.
* text: instruction, blank line, headings with the input, the answer after the last
  heading's new line, then the end-of-sequence token.

Chat data (`inputs = {"messages": [...]}`) brings its own turns and is passed through.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tuneoff.config import Rendering
from tuneoff.records import Example
from tuneoff.tokenization.adaptation import Roles, roles_of

Message = dict[str, str]


@dataclass(frozen=True, slots=True)
class Template:
    """How a task's content becomes a prompt.

    `context`, `user` and `body` are `str.format` patterns over an example's inputs.
    `instruction` and `text_instruction` are the same sentences, laid out for chat and for
    text. An empty instruction (`prompt: short`) leaves the input alone. `today` is what an open
    model's chat template that asks for the date is told; None: the day it is.
    """

    instruction: str
    text_instruction: str
    context: str
    user: str
    body: str
    today: datetime.date | None = None

    def short(self) -> Template:
        """The same content without any instruction."""
        return replace(self, instruction="", text_instruction="")


CHAT_PASS_THROUGH = Template("", "", "", "", "")


def messages(example: Example, template: Template, shots: Sequence[Example] = ()) -> list[Message]:
    """The chat turns up to, and without, the answer."""
    if "messages" in example.inputs:
        return _own_turns(example, shots)
    context = template.context.format(**example.inputs)
    # With shots each question must stand beside its own context, so it moves to the user turn.
    system = template.instruction if shots else _join(template.instruction, context)
    turns = [{"role": "system", "content": system}] if system else []
    for shot in shots:
        turns.append({"role": "user", "content": _user(shot, template, with_context=True)})
        turns.append({"role": "assistant", "content": shot.completion})
    turns.append({"role": "user", "content": _user(example, template, with_context=bool(shots))})
    return turns


def text(example: Example, template: Template, shots: Sequence[Example] = ()) -> str:
    """The plain text up to, and without, the answer; it ends with a new line."""
    if "messages" in example.inputs:
        return _turns_as_text(messages(example, template, shots))
    shown = [template.body.format(**shot.inputs) + shot.completion for shot in shots]
    return _join(template.text_instruction, *shown, template.body.format(**example.inputs))


def _user(example: Example, template: Template, with_context: bool) -> str:
    context = template.context.format(**example.inputs) if with_context else ""
    return _join(context, template.user.format(**example.inputs))


def _own_turns(example: Example, shots: Sequence[Example]) -> list[Message]:
    own = [dict(turn) for turn in example.inputs["messages"]]
    if not shots:
        return own
    # Shots stand between the first instruction and everything else.
    first = next((place for place, turn in enumerate(own) if turn["role"] == "system"), None)
    system = [] if first is None else [own.pop(first)]
    shown: list[Message] = []
    for shot in shots:
        shown += [dict(t) for t in shot.inputs["messages"] if t["role"] != "system"]
        shown.append({"role": "assistant", "content": shot.completion})
    return system + shown + own


def _turns_as_text(turns: Iterable[Mapping[str, str]]) -> str:
    parts = [f"### {turn['role'].capitalize()}:\n{turn['content']}" for turn in turns]
    return _join(*parts, "### Assistant:\n")


def _join(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part)


def content_sha256(examples: Iterable[Example]) -> str:
    """Hash over ids, inputs and references, in order."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(f"{example.id}\t{example.sha256()}\n".encode())
    return digest.hexdigest()


def prompt_sha256(
    examples: Iterable[Example],
    template: Template,
    rendering: Rendering,
    shots: Sequence[Example] = (),
) -> str:
    """Hash over the rendered prompts of a test set, in order."""
    shown: Any = text if rendering == "text" else messages
    return rendered_sha256(shown(example, template, shots) for example in examples)


def rendered_sha256(rendered: Iterable[Any]) -> str:
    """Hash over prompts as they were rendered, texts or turns, in order."""
    digest = hashlib.sha256()
    for each in rendered:
        digest.update(json.dumps(each, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def conversations(
    examples: Iterable[Example], template: Template, shots: Sequence[Example] = ()
) -> set[Roles]:
    """The conversations that prompts are, each by the roles of its turns."""
    return {roles_of(messages(example, template, shots)) for example in examples}
