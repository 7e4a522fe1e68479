"""The one prompt renderer: (example, template) → chat messages, or plain text.

Every contender's prompt is made here from the same content: chat turns where the model has a chat
template, plain text where it has none. `hash_content` (ids, inputs, references) is equal for all
contenders of a run; `hash_prompts` depends on the rendering.

A template has two renderings of one content:

- chat: system = instruction (and context), user = the input, the answer is the assistant turn. With
  shots, each shot is a user and an assistant turn; a shot with another instruction (chat data)
  begins with its own.
- text: instruction, blank line, headings with the input, the answer after the last heading's new
  line, then the end-of-sequence token.

Chat data (`inputs = {"messages": [...]}`) has its own turns, which are passed through.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tuneoff.config.contenders import Rendering
from tuneoff.records import Example, drop_weight

Message = dict[str, str]
Roles = tuple[str, ...]
# Roles whose turns instruct: newer APIs call it `developer`.
SYSTEM_ROLES = ("system", "developer")


@dataclass(frozen=True, slots=True)
class Template:
    """How a task's content becomes a prompt."""

    instruction: str
    """Instruction for chat; empty with `prompt: short`, which leaves the input alone."""
    text_instruction: str
    """The same sentences, laid out for plain text."""
    context: str
    """`str.format` pattern over an example's inputs."""
    user: str
    """`str.format` pattern over an example's inputs."""
    body: str
    """`str.format` pattern over an example's inputs, for plain text."""
    today: datetime.date | None = None
    """The date for open models' chat templates that ask for it; None: the current day."""

    def drop_instruction(self) -> Template:
        """Return the same template without any instruction."""
        return replace(self, instruction="", text_instruction="")


CHAT_PASS_THROUGH = Template("", "", "", "", "")


def render_messages(
    example: Example, template: Template, shots: Sequence[Example] = ()
) -> list[Message]:
    """Render the chat turns before the answer."""
    if "messages" in example.inputs:
        return _insert_shots(example, shots)
    context = template.context.format(**example.inputs)
    # With shots, each question must stand beside its own context, so the context moves to the user
    # turn.
    system = template.instruction if shots else _join_parts(template.instruction, context)
    turns = [{"role": "system", "content": system}] if system else []
    for shot in shots:
        turns.append(
            {"role": "user", "content": _render_user_turn(shot, template, with_context=True)}
        )
        turns.append({"role": "assistant", "content": shot.completion})
    turns.append(
        {"role": "user", "content": _render_user_turn(example, template, with_context=bool(shots))}
    )
    return turns


def render_text(example: Example, template: Template, shots: Sequence[Example] = ()) -> str:
    """Render the plain text before the answer; it ends with a new line."""
    if "messages" in example.inputs:
        return _render_turns(render_messages(example, template, shots))
    shown = [template.body.format(**shot.inputs) + shot.completion for shot in shots]
    return _join_parts(template.text_instruction, *shown, template.body.format(**example.inputs))


def render_conversation(example: Example, template: Template) -> list[dict[str, Any]]:
    """Render the chat turns with the answer, as a hosted job learns them.

    The data's own turns keep their `weight`.
    """
    own = example.inputs.get("messages")
    turns = render_messages(example, template) if own is None else own
    return [*map(dict, turns), {"role": "assistant", "content": example.completion}]


def join_system_texts(example: Example) -> str:
    """Return the system texts of an example of chat data.

    Empty for other tasks, whose template gives all examples the same instruction.
    """
    turns = example.inputs.get("messages", ())
    return _join_parts(*(turn["content"] for turn in turns if turn["role"] in SYSTEM_ROLES))


def _render_user_turn(example: Example, template: Template, with_context: bool) -> str:
    """Render the user turn."""
    context = template.context.format(**example.inputs) if with_context else ""
    return _join_parts(context, template.user.format(**example.inputs))


def _insert_shots(example: Example, shots: Sequence[Example]) -> list[Message]:
    """Render the turns of chat data, with shots after the first instruction."""
    own = [drop_weight(turn) for turn in example.inputs["messages"]]
    if not shots:
        return own
    # Shots stand between the first instruction and everything else.
    first = next((index for index, turn in enumerate(own) if turn["role"] in SYSTEM_ROLES), None)
    system = [] if first is None else [own.pop(first)]
    above = join_system_texts(example)
    shown = [turn for shot in shots for turn in _render_shot(shot, above)]
    return system + shown + own


def _render_shot(shot: Example, above: str) -> list[Message]:
    """Render a shot's turns with its answer.

    If its instruction is not the prompt's, it begins the shot's first user turn: under another
    instruction, the answer would contradict what the shot should show.
    """
    turns = [drop_weight(t) for t in shot.inputs["messages"] if t["role"] not in SYSTEM_ROLES]
    text = join_system_texts(shot)
    if text and text != above:
        user_turn = next((turn for turn in turns if turn["role"] == "user"), None)
        if user_turn is None:  # a custom task may have none
            turns.insert(0, {"role": "user", "content": text})
        else:
            user_turn["content"] = _join_parts(text, user_turn["content"])
    return [*turns, {"role": "assistant", "content": shot.completion}]


def _render_turns(turns: Iterable[Mapping[str, str]]) -> str:
    """Render chat turns as plain text."""
    parts = [f"### {turn['role'].capitalize()}:\n{turn['content']}" for turn in turns]
    return _join_parts(*parts, "### Assistant:\n")


def _join_parts(*parts: str) -> str:
    """Join the parts that are not empty by blank lines."""
    return "\n\n".join(part for part in parts if part)


def hash_content(examples: Iterable[Example]) -> str:
    """Hash ids, inputs and references of examples, in order."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(f"{example.id}\t{example.sha256()}\n".encode())
    return digest.hexdigest()


def hash_prompts(
    examples: Iterable[Example],
    template: Template,
    rendering: Rendering,
    shots_for: Callable[[Example], Sequence[Example]] = lambda _: (),
) -> str:
    """Hash the rendered prompts of a test set, in order."""
    render: Any = render_text if rendering == "text" else render_messages
    return hash_rendered(render(example, template, shots_for(example)) for example in examples)


def hash_rendered(rendered: Iterable[Any]) -> str:
    """Hash rendered prompts, texts or turns, in order."""
    digest = hashlib.sha256()
    for prompt in rendered:
        digest.update(json.dumps(prompt, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def list_roles(turns: Iterable[Mapping[str, Any]]) -> Roles:
    """Return the roles of a conversation's turns."""
    return tuple(str(turn["role"]) for turn in turns)


def collect_roles(
    examples: Iterable[Example],
    template: Template,
    shots_for: Callable[[Example], Sequence[Example]] = lambda _: (),
) -> set[Roles]:
    """Return the distinct conversations of prompts, each as the roles of its turns."""
    return {
        list_roles(render_messages(example, template, shots_for(example))) for example in examples
    }
