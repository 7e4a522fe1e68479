"""An open model, tuned on this machine (LoRA or all parameters) and answering on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tuneoff.config.contenders import LocalConfig
from tuneoff.contenders import latency, vllm_inference
from tuneoff.contenders.base import ContenderContext, choose_template
from tuneoff.contenders.local_inference import describe_prompts, generate_answers
from tuneoff.errors import ContenderError
from tuneoff.inference import vllm
from tuneoff.models.loading import load_tokenizer, resolve_base
from tuneoff.records import Example, Prediction, PromptRecord, ServingRecord


def check(settings: LocalConfig, folder: Path) -> None:
    """Raise ConfigError unless the base exists; a hub id is only looked up when it is loaded."""
    resolve_base(settings.base, folder)
    if settings.backend == "vllm":
        vllm.check_vllm_support(settings)


def ready(settings: LocalConfig, work: ContenderContext) -> None:
    """Raise MissingExtraError unless vLLM is installed, where it should answer."""
    vllm_inference.check_vllm(settings)


def model_name(settings: LocalConfig) -> str:
    """Return base and method, for instance `tiny + LoRA r=8`."""
    if settings.method == "full":
        return f"{settings.base}, all parameters"
    quantized = "" if settings.quantization == "none" else f", {settings.quantization}"
    modules = settings.lora.target_modules
    where = modules if isinstance(modules, str) else "/".join(modules)
    return f"{settings.base} + LoRA r={settings.lora.r} ({where}){quantized}"


def tune(settings: LocalConfig, work: ContenderContext) -> None:
    """Train and save below the contender's folder; do nothing if that was done."""
    from tuneoff.training.fine_tune import tune as train

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
        choose_template(settings, work),
        work.directory,
        on_step,
        work.progress.say,
        most_at_once=work.most_at_once,
        on_checkpoint=work.keep,
    )


def answer(
    settings: LocalConfig, work: ContenderContext, examples: Sequence[Example]
) -> Iterator[list[Prediction]]:
    """Yield the tuned model's greedy answers."""
    from tuneoff.training.model_setup import load_tuned, release_model

    base = resolve_base(settings.base, work.folder)
    work.progress.say(f"{settings.name}: loading {settings.base} as tuned")
    if settings.backend == "vllm":
        yield from vllm_inference.generate_vllm_answers(
            settings, work, _find_weights(settings, base, work), examples
        )
        return
    model = load_tuned(settings, base, work.directory)
    yield from generate_answers(settings, work, model, load_tokenizer(base), examples)
    release_model(settings, base, model)


def serving(settings: LocalConfig, work: ContenderContext) -> ServingRecord:
    """Measure and return the tuned model's latency and throughput."""
    from tuneoff.training.model_setup import load_tuned, release_model

    if not work.measure:
        return latency.load_throughput(settings, work)
    base = resolve_base(settings.base, work.folder)
    if settings.backend == "vllm":
        return vllm_inference.measure_serving(settings, work, _find_weights(settings, base, work))
    model = load_tuned(settings, base, work.directory)
    record = latency.measure_local(settings, work, model, load_tokenizer(base))
    release_model(settings, base, model)
    return record


def _find_weights(
    settings: LocalConfig, base: str, work: ContenderContext
) -> vllm_inference.ModelWeights:
    """Return the tuned weights; raise ContenderError if the contender was not tuned."""
    saved, precision = work.directory.weights(), settings.train.precision
    if saved is None:
        raise ContenderError(f"contender {settings.name}: it was not tuned yet; run it first.")
    if settings.method == "full":
        return vllm_inference.ModelWeights(base, str(saved), None, precision)
    return vllm_inference.ModelWeights(base, base, saved, precision)


def prompt_sha256(settings: LocalConfig, work: ContenderContext) -> str | None:
    """Return the hash of the turns of the test prompts."""
    return prompt_record(settings, work).prompt_sha256


def prompt_record(settings: LocalConfig, work: ContenderContext) -> PromptRecord:
    """Return that hash, and what the base's chat template makes of the turns."""
    return describe_prompts(settings, work, resolve_base(settings.base, work.folder))
