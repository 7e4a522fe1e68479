"""What `local` and `prompted` share: rendering test prompts and answering them here."""

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

# A text prompt's next heading: where a base that keeps writing begins an example of its own.
TEXT_STOP = ("\n###",)


def answers(
    settings: Settings,
    work: Work,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
) -> Iterator[list[Prediction]]:
    """Greedy answers to examples, a batch at a time."""
    from tuneoff.models.fused_lora import fused_lora

    tokens = prompts_of(settings, work, tokenizer, examples)
    stop = stops_of(settings, work, tokenizer)
    most, say = work.max_new_tokens, work.progress.say
    with fused_lora(model):
        yield from answer_batches(model, tokenizer, tokens, most, stop, say=say)


def answered_alone(
    settings: Settings,
    work: Work,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
) -> Iterator[float]:
    """The seconds that each example's answer takes, asked for by itself, from its text on."""
    from tuneoff.models.fused_lora import fused_lora

    stop = stops_of(settings, work, tokenizer)
    most, say = work.max_new_tokens, work.progress.say
    shots = shots_of(settings, work)
    with fused_lora(model):
        for example in examples:
            began = time.perf_counter()
            tokens = prompts_of(settings, work, tokenizer, [example], shots)
            for _ in answer_batches(model, tokenizer, tokens, most, stop, say=say):
                pass
            yield time.perf_counter() - began


def prompts_of(
    settings: Settings,
    work: Work,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    shots: Shots | None = None,
) -> list[tuple[str, list[int]]]:
    """Return (id, token ids) of each example's prompt, as this contender sees it; `shots` where
    they were chosen before."""
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
    """The examples, cut as those it was tuned on where `train.truncate` says so."""
    if not isinstance(settings, LocalSettings) or not settings.train.truncate:
        return examples
    rendering, template = rendering_of(tokenizer, settings.rendering), template_for(settings, work)
    room = positions_of(resolve_base(settings.base, work.folder)) - work.max_new_tokens
    return [fitted(tokenizer, e, template, rendering, room) for e in examples]


def stops_of(settings: Settings, work: Work, tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """The texts that end an answer. A tuned model has learned to end, and a chat template ends
    turns; an untuned base goes on with a heading of its own, unless answers themselves hold
    headings."""
    if rendering_of(tokenizer, settings.rendering) != "text":
        return ()
    headings = any(end in example.completion for example in work.train for end in TEXT_STOP)
    return () if isinstance(settings, LocalSettings) or headings else TEXT_STOP


def describe_prompts(settings: Settings, work: Work, base: str) -> PromptRecord:
    """Describe the test prompts as this contender sees them."""
    tokenizer = load_tokenizer(base)
    rendering = rendering_of(tokenizer, settings.rendering)
    template, shots = template_for(settings, work), shots_of(settings, work)
    shown = _shown(settings, work, tokenizer, work.test)
    sha256 = prompts.prompt_sha256(shown, template, rendering, shots.of)
    if rendering == "text":  # which no template changes
        return PromptRecord(sha256, sha256)
    chat = load_chat_template(tokenizer, template.today)
    turns = (prompts.messages(each, template, shots.of(each)) for each in shown)
    learned = [*work.train, *work.validation] if isinstance(settings, LocalSettings) else []
    conversations = prompts.conversations(learned, template)
    conversations |= prompts.conversations(work.test, template, shots.of)
    notes = tuple(chat.sentences(conversations))
    return PromptRecord(sha256, prompts.rendered_sha256(map(chat.render, turns)), notes)
