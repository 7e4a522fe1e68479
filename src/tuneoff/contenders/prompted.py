"""A model that is not tuned here; it only answers, zero-shot or with shots from the training split.

It is an open base that answers on this machine, or a provider's model: an untuned one, or one tuned
earlier (`ft:…`) that is only evaluated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from tuneoff import prompts, providers
from tuneoff.contender_settings import PromptedSettings
from tuneoff.contenders import Work, measuring, template_for, with_vllm
from tuneoff.contenders.answering import answers, describe_prompts
from tuneoff.contenders.asking import (
    ask_all,
    connected,
    most_answering_tokens,
    name_temperature,
    refuse_text,
)
from tuneoff.contenders.batching import ask_in_batches, batches_of
from tuneoff.contenders.samples import is_answered, list_questions
from tuneoff.contenders.shots import shots_of
from tuneoff.generation import vllm
from tuneoff.models import bases
from tuneoff.models.loading import dtype_of, load_tokenizer, resolve_base
from tuneoff.records import Example, Prediction, PromptRecord, ServingRecord


def check(settings: PromptedSettings, folder: Path) -> None:
    """Raise ConfigError unless the base exists, or the provider is known."""
    if settings.base is not None:
        resolve_base(settings.base, folder)
        if settings.backend == "vllm":
            vllm.refuse(settings)
    else:
        providers.module_of(_provider(settings))
        refuse_text(settings.name, settings.rendering)


def ready(settings: PromptedSettings, work: Work) -> None:
    """Raise unless the missing answers can be made: with an SDK and a key, or with vLLM."""
    with_vllm.ready(settings)
    if settings.model is not None and not is_answered(settings, work):
        with closing(connected(settings, work)) as provider:
            if settings.batch:
                batches_of(settings, provider)


def model_name(settings: PromptedSettings) -> str:
    """Return model and shots (`tiny, 5 shots`), reasoning effort and temperature."""
    shots = "zero-shot" if settings.shots == 0 else f"{settings.shots} shots"
    effort = f", reasoning {settings.reasoning_effort}" if settings.reasoning_effort else ""
    return f"{settings.base or settings.model}, {shots}{effort}{name_temperature(settings)}"


def tune(settings: PromptedSettings, work: Work) -> None:
    """Do nothing: this kind is not trained."""


def answer(
    settings: PromptedSettings, work: Work, examples: Sequence[Example]
) -> Iterator[list[Prediction]]:
    """Yield the base's greedy answers, or the samples of a provider's model."""
    if settings.model is not None:
        template, shots = template_for(settings, work), shots_of(settings, work)
        questions = list_questions(settings, work, examples)
        chat_requests = ((e, k, prompts.messages(e, template, shots.of(e))) for e, k in questions)
        with closing(connected(settings, work)) as provider:
            ask = ask_in_batches if settings.batch else ask_all
            yield from ask(settings, work, provider, settings.model, chat_requests)
        return
    base = resolve_base(settings.base or "", work.folder)
    work.progress.say(f"{settings.name}: loading {settings.base}")
    if settings.backend == "vllm":
        yield from with_vllm.answers_of(settings, work, with_vllm.Weights(base, base), examples)
        return
    dtype = dtype_of("auto")
    model = bases.borrow(base, settings.quantization, dtype)
    yield from answers(settings, work, model, load_tokenizer(base), examples)
    bases.give_back(base, settings.quantization, dtype, model)


def serving(settings: PromptedSettings, work: Work) -> ServingRecord | None:
    """Return latency and throughput of an open base; of a provider's model, only the latency."""
    if settings.base is None:
        return measuring.of_provider(settings, work)
    if not work.measure:
        return measuring.as_answered(settings, work)
    base = resolve_base(settings.base, work.folder)
    if settings.backend == "vllm":
        return with_vllm.serving(settings, work, with_vllm.Weights(base, base))
    dtype = dtype_of("auto")
    model = bases.borrow(base, settings.quantization, dtype)
    record = measuring.measured(settings, work, model, load_tokenizer(base))
    bases.give_back(base, settings.quantization, dtype, model)
    return record


def prompt_sha256(settings: PromptedSettings, work: Work) -> str | None:
    """Return the hash of the turns of the test prompts, shots included."""
    return prompt_record(settings, work).prompt_sha256


def prompt_record(settings: PromptedSettings, work: Work) -> PromptRecord:
    """Return that hash, and what an open base's chat template makes of the turns."""
    if settings.model is not None:
        template, shots = template_for(settings, work), shots_of(settings, work)
        return PromptRecord(prompts.prompt_sha256(work.test, template, "chat", shots.of))
    return describe_prompts(settings, work, resolve_base(settings.base or "", work.folder))


def most_tokens(settings: PromptedSettings, work: Work) -> tuple[int, int, int]:
    """Return the maximum tokens that the remaining work can bill: training, input, output."""
    template, shots = template_for(settings, work), shots_of(settings, work)
    rendered = ((e, prompts.messages(e, template, shots.of(e))) for e in work.test)
    return (0, *most_answering_tokens(settings, work, rendered))


def _provider(settings: PromptedSettings) -> str:
    """Return the provider's id; OpenAI by default."""
    return settings.provider or "openai"
