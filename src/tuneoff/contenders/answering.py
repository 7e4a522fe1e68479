"""Answering test prompts on this machine, shared by `local` and `prompted`: rendering, prefill,
decoding."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tuneoff import prompts
from tuneoff.contender_settings import LocalSettings
from tuneoff.contenders import Work, template_for
from tuneoff.contenders.shots import Settings, Shots, shots_of
from tuneoff.generation.batched import answer as answer_batches
from tuneoff.models.loading import load_tokenizer, positions_of, rendering_of, resolve_base
from tuneoff.records import Example, Prediction, PromptRecord
from tuneoff.tokenization.chat_template import load_chat_template
from tuneoff.training.encoding import fitted, prompt_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# A text prompt's next heading. An untuned base may write it to begin an example of its own.
TEXT_STOP = ("\n###",)


def answers(
    settings: Settings,
    work: Work,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
) -> Iterator[list[Prediction]]:
    """Yield greedy answers to the examples, a batch at a time."""
    from tuneoff.models.fused_lora import fused_lora

    tokens = prompts_of(settings, work, tokenizer, examples)
    stop = stops_of(settings, work, tokenizer)
    max_new_tokens, say = work.max_new_tokens, work.progress.say
    with fused_lora(model):
        yield from answer_batches(model, tokenizer, tokens, max_new_tokens, stop, say=say)


def answered_alone(
    settings: Settings,
    work: Work,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
) -> Iterator[float]:
    """Yield the seconds of each answer as the only request, tokenization included."""
    from tuneoff.models.fused_lora import fused_lora

    stop = stops_of(settings, work, tokenizer)
    max_new_tokens, say = work.max_new_tokens, work.progress.say
    shots = shots_of(settings, work)
    with fused_lora(model):
        for example in examples:
            started = time.perf_counter()
            tokens = prompts_of(settings, work, tokenizer, [example], shots)
            for _ in answer_batches(model, tokenizer, tokens, max_new_tokens, stop, say=say):
                pass
            yield time.perf_counter() - started


def prompts_of(
    settings: Settings,
    work: Work,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    shots: Shots | None = None,
) -> list[tuple[str, list[int]]]:
    """Return (id, token ids) of each example's prompt as this contender sees it.

    Args:
        shots: the shots, if they are chosen already.
    """
    rendering, template = rendering_of(tokenizer, settings.rendering), template_for(settings, work)
    shots = shots_of(settings, work) if shots is None else shots
    shown = _shown(settings, work, tokenizer, examples)
    return [(e.id, prompt_ids(tokenizer, e, template, rendering, shots.of(e))) for e in shown]


def _shown(
    settings: Settings,
    work: Work,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
) -> Sequence[Example]:
    """Return the examples, truncated as in training where `train.truncate` says so."""
    if not isinstance(settings, LocalSettings) or not settings.train.truncate:
        return examples
    rendering, template = rendering_of(tokenizer, settings.rendering), template_for(settings, work)
    room = positions_of(resolve_base(settings.base, work.folder)) - work.max_new_tokens
    return [fitted(tokenizer, e, template, rendering, room) for e in examples]


def stops_of(settings: Settings, work: Work, tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Return the texts that end an answer.

    A tuned model has learned to stop, and a chat template ends turns. An untuned base continues
    with a heading of its own, so that heading stops it, unless answers contain headings themselves.
    """
    if rendering_of(tokenizer, settings.rendering) != "text":
        return ()
    headings = any(end in example.completion for example in work.train for end in TEXT_STOP)
    return () if isinstance(settings, LocalSettings) or headings else TEXT_STOP


def describe_prompts(settings: Settings, work: Work, base: str) -> PromptRecord:
    """Return the record of the test prompts as this contender sees them."""
    tokenizer = load_tokenizer(base)
    rendering = rendering_of(tokenizer, settings.rendering)
    template, shots = template_for(settings, work), shots_of(settings, work)
    shown = _shown(settings, work, tokenizer, work.test)
    sha256 = prompts.prompt_sha256(shown, template, rendering, shots.of)
    if rendering == "text":  # no template changes plain text
        return PromptRecord(sha256, sha256)
    chat = load_chat_template(tokenizer, template.today)
    turns = (prompts.messages(each, template, shots.of(each)) for each in shown)
    training_examples = (
        [*work.train, *work.validation] if isinstance(settings, LocalSettings) else []
    )
    conversations = prompts.conversations(training_examples, template)
    conversations |= prompts.conversations(work.test, template, shots.of)
    notes = tuple(chat.sentences(conversations))
    return PromptRecord(sha256, prompts.rendered_sha256(map(chat.render, turns)), notes)
