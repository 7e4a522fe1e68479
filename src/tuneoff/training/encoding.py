"""Examples as token ids: prompt and completion, with which tokens are learned.

Prompt and completion are tokenized apart, so that the prompt's tokens are the same in
training and in answering; the end-of-sequence token closes every completion. What is too
long is refused, or cut (`cutting.py`) where the file says `truncate: true`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from tuneoff import prompts
from tuneoff.contender_settings import Rendering
from tuneoff.errors import DataError
from tuneoff.prompts import Template
from tuneoff.records import Example
from tuneoff.tokenization.chat_template import load_chat_template
from tuneoff.tokenization.encode import encode_text, encode_turns
from tuneoff.tokenization.text_tokenizer import SpellingError
from tuneoff.training.cutting import cut_to_fit

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
WHAT_TO_DO = "shorten it, take it out, or set train.truncate: true to cut its context or input."


@dataclass(frozen=True, slots=True)
class Encoded:
    """One training example: token ids, and labels (`IGNORED` where nothing is learned).
    `cut`: something of its context or input had to go."""

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    cut: bool = False


def prompt_ids(
    tokenizer: PreTrainedTokenizerBase,
    example: Example,
    template: Template,
    rendering: Rendering,
    shots: Sequence[Example] = (),
) -> list[int]:
    """The tokens a model sees before it answers."""
    if rendering == "chat":
        turns = prompts.messages(example, template, shots)
        return encode_turns(tokenizer, turns, load_chat_template(tokenizer, template.today))
    return text_ids(tokenizer, prompts.text(example, template, shots))


def text_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The tokens of a plain text prompt."""
    start = [tokenizer.bos_token_id] if _adds_bos(tokenizer) else []
    return start + encode_text(tokenizer, text)


def completion_ids(tokenizer: PreTrainedTokenizerBase, example: Example) -> list[int]:
    """The reference answer's tokens, closed by the end of sequence."""
    return [*encode_text(tokenizer, example.completion), tokenizer.eos_token_id]


def encode(
    tokenizer: PreTrainedTokenizerBase,
    example: Example,
    template: Template,
    rendering: Rendering,
    loss_on: Literal["completion", "text"],
    max_length: int,
    truncate: bool = False,
) -> Encoded:
    """Encode an example for training, as at most `max_length` tokens.

    Raises:
        DataError: it is longer; or, with `truncate`, the answer has no room whatever is cut; or it
            spells a special token that the tokenizer cannot write as text.
    """
    shown = example
    try:
        completion = completion_ids(tokenizer, example)
        if truncate:
            room = max_length - len(completion)
            shown = fitted(tokenizer, example, template, rendering, room)
        prompt = prompt_ids(tokenizer, shown, template, rendering)
    except SpellingError as error:
        raise DataError(f"example {example.id!r}: {error}") from None
    ids = prompt + completion
    if len(ids) > max_length:
        raise DataError(
            f"example {example.id!r} has {len(ids)} tokens, more than the {max_length} that fit "
            f"(train.max_length, at most the base's positions); {WHAT_TO_DO}"
        )
    labels = ids if loss_on == "text" else [IGNORED] * len(prompt) + completion
    return Encoded(tuple(ids), tuple(labels), cut=shown is not example)


def fitted(
    tokenizer: PreTrainedTokenizerBase,
    example: Example,
    template: Template,
    rendering: Rendering,
    most: int,
    shots: Sequence[Example] = (),
) -> Example:
    """The example with its context or input cut so that its prompt has at most `most` tokens;
    the example itself where that is so already.

    Raises:
        DataError: the prompt has more even with all of that cut off.
    """

    def fits(candidate: Example) -> bool:
        return len(prompt_ids(tokenizer, candidate, template, rendering, shots)) <= most

    return cut_to_fit(example, fits, partial(_places, tokenizer))


def content_tokens(tokenizer: PreTrainedTokenizerBase, example: Example) -> int:
    """Tokens of the bare content: inputs and reference, no instruction, no template."""
    texts = [turn["content"] for turn in example.inputs.get("messages", ())] or [
        str(value) for value in example.inputs.values()
    ]
    return sum(len(encode_text(tokenizer, text)) for text in [*texts, example.completion])


def _places(tokenizer: PreTrainedTokenizerBase, text: str) -> Sequence[int]:
    """Where tokens end, in characters; a tokenizer in Python does not tell, so anywhere."""
    if not tokenizer.is_fast:
        return range(1, len(text) + 1)
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return sorted({end for _, end in found["offset_mapping"]})


def _adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether this tokenizer itself begins a text with its BOS token (Llama's do)."""
    if tokenizer.bos_token_id is None:
        return False
    return bool(tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id])
