"""A model that is not tuned here; it only answers, zero-shot or with shots from the training split.

It is an open base that answers on this machine, or a provider's model: an untuned one, or one tuned
earlier (`ft:…`) that is only evaluated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from tuneoff import prompts
from tuneoff.config.contenders import PromptedConfig
from tuneoff.contenders import latency, vllm_inference
from tuneoff.contenders.base import ContenderContext, choose_template
from tuneoff.contenders.batch_inference import get_batch_api, request_batched_answers
from tuneoff.contenders.hosted_inference import (
    connect_provider,
    count_max_answering_tokens,
    format_temperature,
    reject_text_rendering,
    request_answers,
)
from tuneoff.contenders.local_inference import describe_prompts, generate_answers
from tuneoff.contenders.samples import is_answered, list_questions
from tuneoff.contenders.shots import select_shots
from tuneoff.inference import vllm
from tuneoff.models import loading
from tuneoff.models.loading import choose_dtype, load_tokenizer, resolve_base
from tuneoff.providers.base import load_provider_module
from tuneoff.records import Example, Prediction, PromptRecord, ServingRecord


def check(settings: PromptedConfig, folder: Path) -> None:
    """Raise ConfigError unless the base exists, or the provider is known."""
    if settings.base is not None:
        resolve_base(settings.base, folder)
        if settings.backend == "vllm":
            vllm.check_vllm_support(settings)
    else:
        load_provider_module(_get_provider(settings))
        reject_text_rendering(settings.name, settings.rendering)


def ready(settings: PromptedConfig, work: ContenderContext) -> None:
    """Raise unless the missing answers can be made: with an SDK and a key, or with vLLM."""
    vllm_inference.check_vllm(settings)
    if settings.model is not None and not is_answered(settings, work):
        with closing(connect_provider(settings, work)) as provider:
            if settings.batch:
                get_batch_api(settings, provider)


def model_name(settings: PromptedConfig) -> str:
    """Return model and shots (`tiny, 5 shots`), reasoning effort and temperature."""
    shots = "zero-shot" if settings.shots == 0 else f"{settings.shots} shots"
    effort = f", reasoning {settings.reasoning_effort}" if settings.reasoning_effort else ""
    return f"{settings.base or settings.model}, {shots}{effort}{format_temperature(settings)}"


def tune(settings: PromptedConfig, work: ContenderContext) -> None:
    """Do nothing: this kind is not trained."""


def answer(
    settings: PromptedConfig, work: ContenderContext, examples: Sequence[Example]
) -> Iterator[list[Prediction]]:
    """Yield the base's greedy answers, or the samples of a provider's model."""
    if settings.model is not None:
        template, shots = choose_template(settings, work), select_shots(settings, work)
        questions = list_questions(settings, work, examples)
        chat_requests = (
            (e, k, prompts.render_messages(e, template, shots.select_for(e))) for e, k in questions
        )
        with closing(connect_provider(settings, work)) as provider:
            ask = request_batched_answers if settings.batch else request_answers
            yield from ask(settings, work, provider, settings.model, chat_requests)
        return
    base = resolve_base(settings.base or "", work.folder)
    work.progress.say(f"{settings.name}: loading {settings.base}")
    if settings.backend == "vllm":
        yield from vllm_inference.generate_vllm_answers(
            settings, work, vllm_inference.ModelWeights(base, base), examples
        )
        return
    dtype = choose_dtype("auto")
    model = loading.borrow_base(base, settings.quantization, dtype)
    yield from generate_answers(settings, work, model, load_tokenizer(base), examples)
    loading.release_base(base, settings.quantization, dtype, model)


def serving(settings: PromptedConfig, work: ContenderContext) -> ServingRecord | None:
    """Return latency and throughput of an open base; of a provider's model, only the latency."""
    if settings.base is None:
        return latency.load_provider_latency(settings, work)
    if not work.measure:
        return latency.load_throughput(settings, work)
    base = resolve_base(settings.base, work.folder)
    if settings.backend == "vllm":
        return vllm_inference.measure_serving(
            settings, work, vllm_inference.ModelWeights(base, base)
        )
    dtype = choose_dtype("auto")
    model = loading.borrow_base(base, settings.quantization, dtype)
    record = latency.measure_local(settings, work, model, load_tokenizer(base))
    loading.release_base(base, settings.quantization, dtype, model)
    return record


def prompt_sha256(settings: PromptedConfig, work: ContenderContext) -> str | None:
    """Return the hash of the turns of the test prompts, shots included."""
    return prompt_record(settings, work).prompt_sha256


def prompt_record(settings: PromptedConfig, work: ContenderContext) -> PromptRecord:
    """Return that hash, and what an open base's chat template makes of the turns."""
    if settings.model is not None:
        template, shots = choose_template(settings, work), select_shots(settings, work)
        return PromptRecord(prompts.hash_prompts(work.test, template, "chat", shots.select_for))
    return describe_prompts(settings, work, resolve_base(settings.base or "", work.folder))


def most_tokens(settings: PromptedConfig, work: ContenderContext) -> tuple[int, int, int]:
    """Return the maximum tokens that the remaining work can bill: training, input, output."""
    template, shots = choose_template(settings, work), select_shots(settings, work)
    rendered = ((e, prompts.render_messages(e, template, shots.select_for(e))) for e in work.test)
    return (0, *count_max_answering_tokens(settings, work, rendered))


def _get_provider(settings: PromptedConfig) -> str:
    """Return the provider's id; OpenAI by default."""
    return settings.provider or "openai"
