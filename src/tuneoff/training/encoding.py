"""Examples as token ids: prompt and completion, with which tokens are learned.

Prompt and completion are tokenized apart, so that the prompt's tokens are the same in
training and in answering; the end-of-sequence token closes every completion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tuneoff import prompts
from tuneoff.config import Rendering
from tuneoff.errors import DataError
from tuneoff.prompts import Template
from tuneoff.records import Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100


@dataclass(frozen=True, slots=True)
class Encoded:
    """One training example: token ids, and labels (`IGNORED` where nothing is learned)."""

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]


def prompt_ids(
    tokenizer: PreTrainedTokenizerBase,
    example: Example,
    template: Template,
    rendering: Rendering,
    shots: Sequence[Example] = (),
) -> list[int]:
    """The tokens a model sees before it answers."""
    if rendering == "chat":
        ids = tokenizer.apply_chat_template(
            prompts.messages(example, template, shots),
            add_generation_prompt=True,
            tokenize=True,
            return_dict=False,
            # Templates that know of thinking (Qwen3) would spend the answer's tokens on it;
            # the others ignore this.
            enable_thinking=False,
        )
        return list(ids)
    start = [tokenizer.bos_token_id] if _adds_bos(tokenizer) else []
    return start + _tokens(tokenizer, prompts.text(example, template, shots))


def completion_ids(tokenizer: PreTrainedTokenizerBase, example: Example) -> list[int]:
    """The reference answer's tokens, closed by the end of sequence."""
    return [*_tokens(tokenizer, example.completion), tokenizer.eos_token_id]


def encode(
    tokenizer: PreTrainedTokenizerBase,
    example: Example,
    template: Template,
    rendering: Rendering,
    loss_on: Literal["completion", "text"],
    max_length: int,
) -> Encoded:
    """An example for training.

    Raises:
        DataError: it is longer than `max_length` tokens.
    """
    prompt = prompt_ids(tokenizer, example, template, rendering)
    completion = completion_ids(tokenizer, example)
    ids = prompt + completion
    if len(ids) > max_length:
        raise DataError(
            f"example {example.id!r} has {len(ids)} tokens, more than the {max_length} that fit; "
            "raise train.max_length (at most the model's positions), shorten it, or take it out."
        )
    labels = ids if loss_on == "text" else [IGNORED] * len(prompt) + completion
    return Encoded(tuple(ids), tuple(labels))


def content_tokens(tokenizer: PreTrainedTokenizerBase, example: Example) -> int:
    """Tokens of the bare content: inputs and reference, no instruction, no template."""
    texts = [turn["content"] for turn in example.inputs.get("messages", ())] or [
        str(value) for value in example.inputs.values()
    ]
    return sum(len(_tokens(tokenizer, text)) for text in [*texts, example.completion])


def _tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether this tokenizer itself begins a text with its BOS token (Llama's do)."""
    if tokenizer.bos_token_id is None:
        return False
    return bool(tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id])
