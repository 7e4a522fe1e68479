"""Answering test prompts on this machine, shared by `local` and `prompted`: rendering, prefill,
decoding."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tuneoff import prompts
from tuneoff.config.contenders import LocalConfig
from tuneoff.contenders.base import ContenderContext, choose_template
from tuneoff.contenders.shots import AnsweringConfig, Shots, select_shots
from tuneoff.inference.generate import generate_answers as answer_batches
from tuneoff.models.loading import choose_rendering, count_positions, load_tokenizer, resolve_base
from tuneoff.records import Example, Prediction, PromptRecord
from tuneoff.tokenization.chat_template import load_chat_template
from tuneoff.tokenization.examples import encode_prompt, truncate_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# A text prompt's next heading. An untuned base may write it to begin an example of its own.
TEXT_STOPS = ("\n###",)


def generate_answers(
    settings: AnsweringConfig,
    work: ContenderContext,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
) -> Iterator[list[Prediction]]:
    """Yield greedy answers to the examples, a batch at a time."""
    from tuneoff.models.lora import fuse_lora

    tokens = encode_prompts(settings, work, tokenizer, examples)
    stop = choose_stop_texts(settings, work, tokenizer)
    max_new_tokens, say = work.max_new_tokens, work.progress.say
    with fuse_lora(model):
        yield from answer_batches(model, tokenizer, tokens, max_new_tokens, stop, say=say)


def time_single_requests(
    settings: AnsweringConfig,
    work: ContenderContext,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
) -> Iterator[float]:
    """Yield the seconds of each answer as the only request, tokenization included."""
    from tuneoff.models.lora import fuse_lora

    stop = choose_stop_texts(settings, work, tokenizer)
    max_new_tokens, say = work.max_new_tokens, work.progress.say
    shots = select_shots(settings, work)
    with fuse_lora(model):
        for example in examples:
            started = time.perf_counter()
            tokens = encode_prompts(settings, work, tokenizer, [example], shots)
            for _ in answer_batches(model, tokenizer, tokens, max_new_tokens, stop, say=say):
                pass
            yield time.perf_counter() - started


def encode_prompts(
    settings: AnsweringConfig,
    work: ContenderContext,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    shots: Shots | None = None,
) -> list[tuple[str, list[int]]]:
    """Return (id, token ids) of each example's prompt as this contender sees it.

    Args:
        shots: the shots, if they are chosen already.
    """
    rendering, template = (
        choose_rendering(tokenizer, settings.rendering),
        choose_template(settings, work),
    )
    shots = select_shots(settings, work) if shots is None else shots
    shown = _truncate_examples(settings, work, tokenizer, examples)
    return [
        (e.id, encode_prompt(tokenizer, e, template, rendering, shots.select_for(e))) for e in shown
    ]


def _truncate_examples(
    settings: AnsweringConfig,
    work: ContenderContext,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
) -> Sequence[Example]:
    """Return the examples, truncated as in training where `train.truncate` says so."""
    if not isinstance(settings, LocalConfig) or not settings.train.truncate:
        return examples
    rendering, template = (
        choose_rendering(tokenizer, settings.rendering),
        choose_template(settings, work),
    )
    room = count_positions(resolve_base(settings.base, work.folder)) - work.max_new_tokens
    return [truncate_prompt(tokenizer, e, template, rendering, room) for e in examples]


def choose_stop_texts(
    settings: AnsweringConfig, work: ContenderContext, tokenizer: PreTrainedTokenizerBase
) -> tuple[str, ...]:
    """Return the texts that end an answer.

    A tuned model has learned to stop, and a chat template ends turns. An untuned base continues
    with a heading of its own, so that heading stops it, unless answers contain headings themselves.
    """
    if choose_rendering(tokenizer, settings.rendering) != "text":
        return ()
    headings = any(end in example.completion for example in work.train for end in TEXT_STOPS)
    return () if isinstance(settings, LocalConfig) or headings else TEXT_STOPS


def describe_prompts(settings: AnsweringConfig, work: ContenderContext, base: str) -> PromptRecord:
    """Return the record of the test prompts as this contender sees them."""
    tokenizer = load_tokenizer(base)
    rendering = choose_rendering(tokenizer, settings.rendering)
    template, shots = choose_template(settings, work), select_shots(settings, work)
    shown = _truncate_examples(settings, work, tokenizer, work.test)
    sha256 = prompts.hash_prompts(shown, template, rendering, shots.select_for)
    if rendering == "text":  # no template changes plain text
        return PromptRecord(sha256, sha256)
    chat = load_chat_template(tokenizer, template.today)
    turns = (prompts.render_messages(each, template, shots.select_for(each)) for each in shown)
    training_examples = [*work.train, *work.validation] if isinstance(settings, LocalConfig) else []
    conversations = prompts.collect_roles(training_examples, template)
    conversations |= prompts.collect_roles(work.test, template, shots.select_for)
    notes = tuple(chat.describe(conversations))
    return PromptRecord(sha256, prompts.hash_rendered(map(chat.render, turns)), notes)
