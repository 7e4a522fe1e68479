"""An open model, tuned on this machine (LoRA or all parameters) and answering on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tuneoff.contender_settings import LocalSettings
from tuneoff.contenders import Work, measuring, template_for, with_vllm
from tuneoff.contenders.answering import answers, describe_prompts
from tuneoff.errors import ContenderError
from tuneoff.generation import vllm
from tuneoff.models.loading import load_tokenizer, resolve_base
from tuneoff.records import Example, Prediction, PromptRecord, ServingRecord


def check(settings: LocalSettings, folder: Path) -> None:
    """Raise ConfigError unless the base exists; a hub id is only looked up when it is loaded."""
    resolve_base(settings.base, folder)
    if settings.backend == "vllm":
        vllm.refuse(settings)


def ready(settings: LocalSettings, work: Work) -> None:
    """Raise MissingExtraError unless vLLM is installed, where it should answer."""
    with_vllm.ready(settings)


def model_name(settings: LocalSettings) -> str:
    """Return base and method, for instance `tiny + LoRA r=8`."""
    if settings.method == "full":
        return f"{settings.base}, all parameters"
    quantized = "" if settings.quantization == "none" else f", {settings.quantization}"
    modules = settings.lora.target_modules
    where = modules if isinstance(modules, str) else "/".join(modules)
    return f"{settings.base} + LoRA r={settings.lora.r} ({where}){quantized}"


def tune(settings: LocalSettings, work: Work) -> None:
    """Train and save below the contender's folder; do nothing if that was done."""
    from tuneoff.training.tune import tune as train

    if work.directory.weights() is not None and work.directory.training() is not None:
        return
    step = None

    def on_step(done: int, total: int, note: str) -> None:
        nonlocal step
        step = step or work.progress.stage(f"{settings.name}: training", total)
        step(done, note)

    work.progress.say(f"{settings.name}: loading {settings.base}")
    train(
        settings,
        resolve_base(settings.base, work.folder),
        work.train,
        work.validation,
        template_for(settings, work),
        work.directory,
        on_step,
        work.progress.say,
        most_at_once=work.most_at_once,
        on_checkpoint=work.keep,
    )


def answer(
    settings: LocalSettings, work: Work, examples: Sequence[Example]
) -> Iterator[list[Prediction]]:
    """Yield the tuned model's greedy answers."""
    from tuneoff.training.method import finished, trained

    base = resolve_base(settings.base, work.folder)
    work.progress.say(f"{settings.name}: loading {settings.base} as tuned")
    if settings.backend == "vllm":
        yield from with_vllm.answers_of(settings, work, _weights(settings, base, work), examples)
        return
    model = trained(settings, base, work.directory)
    yield from answers(settings, work, model, load_tokenizer(base), examples)
    finished(settings, base, model)


def serving(settings: LocalSettings, work: Work) -> ServingRecord:
    """Measure and return the tuned model's latency and throughput."""
    from tuneoff.training.method import finished, trained

    if not work.measure:
        return measuring.as_answered(settings, work)
    base = resolve_base(settings.base, work.folder)
    if settings.backend == "vllm":
        return with_vllm.serving(settings, work, _weights(settings, base, work))
    model = trained(settings, base, work.directory)
    record = measuring.measured(settings, work, model, load_tokenizer(base))
    finished(settings, base, model)
    return record


def _weights(settings: LocalSettings, base: str, work: Work) -> with_vllm.Weights:
    """Return the tuned weights; raise ContenderError if the contender was not tuned."""
    saved, precision = work.directory.weights(), settings.train.precision
    if saved is None:
        raise ContenderError(f"contender {settings.name}: it was not tuned yet; run it first.")
    if settings.method == "full":
        return with_vllm.Weights(base, str(saved), None, precision)
    return with_vllm.Weights(base, base, saved, precision)


def prompt_sha256(settings: LocalSettings, work: Work) -> str | None:
    """Return the hash of the turns of the test prompts."""
    return prompt_record(settings, work).prompt_sha256


def prompt_record(settings: LocalSettings, work: Work) -> PromptRecord:
    """Return that hash, and what the base's chat template makes of the turns."""
    return describe_prompts(settings, work, resolve_base(settings.base, work.folder))
