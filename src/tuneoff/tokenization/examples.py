"""Encodes examples as token ids: prompt and completion, with labels for the loss.

Prompt and completion are tokenized separately, so that the prompt has the same tokens in training
and in answering. An end-of-sequence token closes every completion. An example that is too long is
refused, or truncated where the file says `truncate: true`.

Truncation takes from the context or input, never from the answer:

- chat turns: the oldest turns, each with its replies; then the start of the last turn.
  A system turn is an instruction and stays.
- a `context` field: its end; the question beside it stays (text_to_sql).
- other fields: the end of the longest text (functional_representation, your own task).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from tuneoff import prompts
from tuneoff.config.contenders import Rendering
from tuneoff.errors import DataError
from tuneoff.prompts import Template
from tuneoff.records import Example
from tuneoff.tokenization.chat_template import load_chat_template
from tuneoff.tokenization.encode import encode_text, encode_turns
from tuneoff.tokenization.text_tokenizer import SpellingError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from tuneoff.records import Split

CONTEXT_FIELD = "context"


def truncate_to_fit(
    example: Example, fits: Callable[[Example], bool], places: Callable[[str], Sequence[int]]
) -> Example:
    """Return the example with as little cut off as necessary; itself if it fits.

    Args:
        fits: whether an example's prompt is short enough.
        places: where a text may be cut: the ends of its tokens, in characters, ascending.

    Raises:
        DataError: it does not fit even fully truncated.
    """
    if fits(example):
        return example
    if not fits(truncate_fully(example)):
        raise DataError(explain_no_room(example))
    if "messages" in example.inputs:
        example = _drop_oldest_turns(example, fits)
        if fits(example):
            return example
        text = example.inputs["messages"][-1]["content"]
        starts = [*reversed(places(text))]
        candidates = [text[start:] for start in starts]
    else:
        text = str(example.inputs[_find_text_field(example)])
        candidates = [text[:end] for end in places(text)]
    kept = ""
    low, high = 0, len(candidates)
    while low < high:
        middle = (low + high) // 2
        if fits(_replace_text(example, candidates[middle])):
            kept, low = candidates[middle], middle + 1
        else:
            high = middle
    return _replace_text(example, kept)


def truncate_fully(example: Example) -> Example:
    """Return the example with everything removed that may be cut."""
    if "messages" in example.inputs:
        *_, shortest = _list_shortened(example)
        return _replace_text(shortest, "")
    return _replace_text(example, "")


def describe_truncation(name: str, cut: Mapping[Split, int]) -> str:
    """Return the line that tells a user how many examples were truncated."""
    counted = ", ".join(f"{count} {split}" for split, count in cut.items() if count)
    return f"{name}: {counted} examples are too long and were cut (train.truncate)."


def explain_no_room(example: Example) -> str:
    """Return the error for an example that is too long even fully truncated."""
    return (
        f"example {example.id!r} leaves no room for its answer even with its context or input cut "
        "off; raise train.max_length or lower task.max_new_tokens, shorten it, or take it out."
    )


def _find_text_field(example: Example) -> str:
    """Return the name of the input field to cut.

    Raises:
        DataError: no input is a text.
    """
    if isinstance(example.inputs.get(CONTEXT_FIELD), str):
        return CONTEXT_FIELD
    texts = {name: value for name, value in example.inputs.items() if isinstance(value, str)}
    if not texts:
        raise DataError(
            f"example {example.id!r} is too long, and has no text among its inputs to cut; "
            "shorten it, or take it out."
        )
    return max(texts, key=lambda name: len(texts[name]))


def _replace_text(example: Example, text: str) -> Example:
    """Return the example with its cuttable text replaced."""
    if "messages" not in example.inputs:
        return replace(example, inputs={**example.inputs, _find_text_field(example): text})
    *before, last = example.inputs["messages"]
    return _replace_turns(example, [*before, {**last, "content": text}])


def _drop_oldest_turns(example: Example, fits: Callable[[Example], bool]) -> Example:
    """Return the example without its oldest exchanges, as few removed as make it fit."""
    shorter = example
    for shorter in _list_shortened(example):
        if fits(shorter):
            break
    return shorter


def _list_shortened(example: Example) -> list[Example]:
    """Return the example with 0, 1, … of its oldest exchanges left out.

    Roles must alternate in many templates, so a user turn goes together with its replies.
    """
    turns: list[Any] = list(example.inputs["messages"])
    fixed = [turn for turn in turns if turn["role"] in ("system", "developer")]
    talk = [turn for turn in turns if turn not in fixed]
    begins = [at for at, turn in enumerate(talk) if turn["role"] == "user"] or [0]
    return [
        example if at == begins[0] else _replace_turns(example, [*fixed, *talk[at:]])
        for at in begins
    ]


def _replace_turns(example: Example, turns: list[Any]) -> Example:
    """Return the example with other chat turns."""
    return replace(example, inputs={**example.inputs, "messages": turns})


IGNORE_INDEX = -100
TRUNCATION_HINT = (
    "shorten it, take it out, or set train.truncate: true to cut its context or input."
)


@dataclass(frozen=True, slots=True)
class EncodedExample:
    """One encoded training example."""

    input_ids: tuple[int, ...]
    """Token ids of prompt and completion."""
    labels: tuple[int, ...]
    """The token to predict at each position; -100 where there is no loss."""
    is_truncated: bool = False
    """Whether its context or input was truncated."""


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase,
    example: Example,
    template: Template,
    rendering: Rendering,
    shots: Sequence[Example] = (),
) -> list[int]:
    """Return the token ids of a prompt, up to where the model answers."""
    if rendering == "chat":
        turns = prompts.render_messages(example, template, shots)
        return encode_turns(tokenizer, turns, load_chat_template(tokenizer, template.today))
    return encode_plain_text(tokenizer, prompts.render_text(example, template, shots))


def encode_plain_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the token ids of a plain-text prompt."""
    start = [tokenizer.bos_token_id] if _needs_bos(tokenizer) else []
    return start + encode_text(tokenizer, text)


def encode_completion(tokenizer: PreTrainedTokenizerBase, example: Example) -> list[int]:
    """Return the token ids of the reference answer and the end-of-sequence token."""
    return [*encode_text(tokenizer, example.completion), tokenizer.eos_token_id]


def encode_example(
    tokenizer: PreTrainedTokenizerBase,
    example: Example,
    template: Template,
    rendering: Rendering,
    loss_on: Literal["completion", "text"],
    max_length: int,
    truncate: bool = False,
) -> EncodedExample:
    """Encode an example for training as at most `max_length` tokens.

    Raises:
        DataError: it is longer; or, with `truncate`, its answer has no room even then; or it spells
            a special token that the tokenizer cannot write as text.
    """
    shown = example
    try:
        completion = encode_completion(tokenizer, example)
        if truncate:
            room = max_length - len(completion)
            shown = truncate_prompt(tokenizer, example, template, rendering, room)
        prompt = encode_prompt(tokenizer, shown, template, rendering)
    except SpellingError as error:
        raise DataError(f"example {example.id!r}: {error}") from None
    ids = prompt + completion
    if len(ids) > max_length:
        raise DataError(
            f"example {example.id!r} has {len(ids)} tokens, more than the {max_length} that fit "
            f"(train.max_length, at most the base's positions); {TRUNCATION_HINT}"
        )
    labels = ids if loss_on == "text" else [IGNORE_INDEX] * len(prompt) + completion
    return EncodedExample(tuple(ids), tuple(labels), is_truncated=shown is not example)


def truncate_prompt(
    tokenizer: PreTrainedTokenizerBase,
    example: Example,
    template: Template,
    rendering: Rendering,
    most: int,
    shots: Sequence[Example] = (),
) -> Example:
    """Return the example with its prompt truncated to `most` tokens; itself if it fits.

    Raises:
        DataError: the fully truncated prompt is still longer.
    """

    def fits(candidate: Example) -> bool:
        return len(encode_prompt(tokenizer, candidate, template, rendering, shots)) <= most

    return truncate_to_fit(example, fits, partial(_find_token_ends, tokenizer))


def count_content_tokens(tokenizer: PreTrainedTokenizerBase, example: Example) -> int:
    """Return the number of content tokens: inputs and reference, no instruction, no template."""
    texts = [turn["content"] for turn in example.inputs.get("messages", ())] or [
        str(value) for value in example.inputs.values()
    ]
    return sum(len(encode_text(tokenizer, text)) for text in [*texts, example.completion])


def _find_token_ends(tokenizer: PreTrainedTokenizerBase, text: str) -> Sequence[int]:
    """Return where tokens end, in characters.

    A tokenizer written in Python does not tell, so any character may be an end.
    """
    if not tokenizer.is_fast:
        return range(1, len(text) + 1)
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return sorted({end for _, end in encoding["offset_mapping"]})


def _needs_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether this tokenizer begins a text with its BOS token, as Llama's do."""
    if tokenizer.bos_token_id is None:
        return False
    return bool(tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id])
