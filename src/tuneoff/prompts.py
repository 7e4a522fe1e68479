"""The one renderer: (example, template) → chat messages, or plain text.

Every contender's prompt is made here from the same content. Chat turns where the model
has a chat template, plain text where it has none. `content_sha256` (ids, inputs,
references) is equal for all contenders of a run; `prompt_sha256` is the rendering's.

A template has two renderings of one content:

* chat: system = instruction (and context), user = the input, the answer is the
  assistant turn. With shots, each shot is a user and an assistant turn; one that was instructed
  otherwise (chat data) begins with its own instruction.
* text: instruction, blank line, headings with the input, the answer after the last
  heading's new line, then the end-of-sequence token.

Chat data (`inputs = {"messages": [...]}`) brings its own turns and is passed through.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tuneoff.contender_settings import Rendering
from tuneoff.records import Example, without_weight
from tuneoff.tokenization.adaptation import Roles, roles_of

Message = dict[str, str]
# Whose turns instruct: `developer` is what newer APIs call it.
SYSTEM_ROLES = ("system", "developer")


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


def conversation(example: Example, template: Template) -> list[dict[str, Any]]:
    """Return the chat turns with the answer, as a hosted job learns them: the data's own turns keep
    their `weight`."""
    own = example.inputs.get("messages")
    turns = messages(example, template) if own is None else own
    return [*map(dict, turns), {"role": "assistant", "content": example.completion}]


def join_system_texts(example: Example) -> str:
    """Return what instructs an example of chat data; nothing for other tasks, whose template
    instructs all alike."""
    turns = example.inputs.get("messages", ())
    return _join(*(turn["content"] for turn in turns if turn["role"] in SYSTEM_ROLES))


def _user(example: Example, template: Template, with_context: bool) -> str:
    context = template.context.format(**example.inputs) if with_context else ""
    return _join(context, template.user.format(**example.inputs))


def _own_turns(example: Example, shots: Sequence[Example]) -> list[Message]:
    own = [without_weight(turn) for turn in example.inputs["messages"]]
    if not shots:
        return own
    # Shots stand between the first instruction and everything else.
    first = next((place for place, turn in enumerate(own) if turn["role"] in SYSTEM_ROLES), None)
    system = [] if first is None else [own.pop(first)]
    above = join_system_texts(example)
    shown = [turn for shot in shots for turn in _shot_turns(shot, above)]
    return system + shown + own


def _shot_turns(shot: Example, above: str) -> list[Message]:
    """Return a shot's turns with its answer. What instructed it stands above it already, or begins
    its first user turn: under another instruction its answer would contradict what it is to show.
    """
    turns = [without_weight(t) for t in shot.inputs["messages"] if t["role"] not in SYSTEM_ROLES]
    text = join_system_texts(shot)
    if text and text != above:
        asked = next((turn for turn in turns if turn["role"] == "user"), None)
        if asked is None:  # a task of one's own may have none
            turns.insert(0, {"role": "user", "content": text})
        else:
            asked["content"] = _join(text, asked["content"])
    return [*turns, {"role": "assistant", "content": shot.completion}]


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
    shots_for: Callable[[Example], Sequence[Example]] = lambda _: (),
) -> str:
    """Hash over the rendered prompts of a test set, in order."""
    shown: Any = text if rendering == "text" else messages
    return rendered_sha256(shown(each, template, shots_for(each)) for each in examples)


def rendered_sha256(rendered: Iterable[Any]) -> str:
    """Hash prompts as they were rendered, texts or turns, in order."""
    digest = hashlib.sha256()
    for each in rendered:
        digest.update(json.dumps(each, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def conversations(
    examples: Iterable[Example],
    template: Template,
    shots_for: Callable[[Example], Sequence[Example]] = lambda _: (),
) -> set[Roles]:
    """Return the conversations that prompts are, each by the roles of its turns."""
    return {roles_of(messages(each, template, shots_for(each))) for each in examples}
