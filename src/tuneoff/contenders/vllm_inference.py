"""`backend: vllm` for `local` and `prompted`: answer, measure, and compare with transformers.

vLLM's kernels round differently, so a near-tie is sometimes decided the other way. One GPU does not
hold both engines. So the test set is answered first, then vLLM is ended, and transformers answers a
sample of the same prompts.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tuneoff.contenders.base import ContenderContext
from tuneoff.contenders.latency import (
    build_serving_record,
    collect_timings,
    list_timed_examples,
    load_answers,
    sample_evenly,
)
from tuneoff.contenders.local_inference import choose_stop_texts, encode_prompts, generate_answers
from tuneoff.contenders.shots import AnsweringConfig
from tuneoff.inference import vllm
from tuneoff.inference.stopping import StopCriteria, load_end_tokens
from tuneoff.models.embedding import count_rows
from tuneoff.models.loading import (
    Precision,
    choose_dtype,
    count_positions,
    load_model,
    load_tokenizer,
    release_memory,
)
from tuneoff.progress import SilentProgress
from tuneoff.records import Example, Prediction, ServingRecord

COMPARED_ANSWERS = 16


@dataclass(frozen=True, slots=True)
class ModelWeights:
    """A model on disk."""

    base: str
    """The resolved base, which has the tokenizer."""
    model: str
    """The weights: the base's, or the tuned model's own."""
    adapter: Path | None = None
    """A LoRA adapter, if there is one."""
    precision: Precision = "auto"
    """What they are computed in."""


def check_vllm(settings: AnsweringConfig) -> None:
    """Raise MissingExtraError unless vLLM is installed, where the file asks for it."""
    if settings.backend == "vllm":
        vllm.require_vllm(f"contender {settings.name}: backend: vllm")


def generate_vllm_answers(
    settings: AnsweringConfig,
    work: ContenderContext,
    weights: ModelWeights,
    examples: Sequence[Example],
) -> Iterator[list[Prediction]]:
    """Yield vLLM's greedy answers to the examples, a chunk at a time."""
    engine_request = _build_request(settings, work, weights, examples)
    with vllm.run_vllm(engine_request.engine) as running:
        yield from vllm.generate_with_vllm(running, *engine_request.parts(), work.max_new_tokens)


def measure_serving(
    settings: AnsweringConfig, work: ContenderContext, weights: ModelWeights
) -> ServingRecord:
    """Return vLLM's latency and throughput, and its agreement with transformers on a sample."""
    examples = list_timed_examples(work)
    if not examples:
        return replace(build_serving_record(load_answers(work), {}), backend="vllm")
    engine_request = _build_request(settings, work, weights, examples)
    with vllm.run_vllm(engine_request.engine) as running:
        alone = collect_timings(
            examples, _time_single_requests(running, engine_request, work.max_new_tokens)
        )
    record_with_times = replace(build_serving_record(load_answers(work), alone), backend="vllm")
    try:
        same, compared = measure_agreement(settings, work, weights)
    except Exception as error:  # vLLM's answers and times are valid without it
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        work.progress.say(f"warning: {settings.name}: transformers' answers are missing: {first}")
        return record_with_times
    if not compared:
        return record_with_times
    work.progress.say(
        f"{settings.name}: {same} of {compared} of vLLM's answers are, to the letter, those of "
        "transformers."
    )
    return replace(record_with_times, agreement=same / compared, compared=compared)


def measure_agreement(
    settings: AnsweringConfig, work: ContenderContext, weights: ModelWeights
) -> tuple[int, int]:
    """Return how many stored answers of a sample transformers gives too, and the sample's size."""
    stored = {p.id: p.prediction for p in work.directory.predictions().values() if p.error is None}
    examples = [example for example in work.test if example.id in stored]
    if not examples:
        return 0, 0
    model = _load_in_transformers(weights, _count_gpus(settings))
    tokenizer, quiet = load_tokenizer(weights.base), replace(work, progress=SilentProgress())
    sample = sample_evenly(examples, COMPARED_ANSWERS)
    predictions = [
        p for batch in generate_answers(settings, quiet, model, tokenizer, sample) for p in batch
    ]
    del model
    release_memory()
    return sum(p.prediction.strip() == stored[p.id].strip() for p in predictions), len(predictions)


@dataclass(frozen=True, slots=True)
class _EngineRequest:
    """The engine, its stop criteria and the encoded prompts."""

    engine: vllm.VllmOptions
    ending: StopCriteria
    prompts: list[tuple[str, list[int]]]

    def parts(self) -> tuple[vllm.VllmOptions, StopCriteria, list[tuple[str, list[int]]]]:
        """Return the three as a tuple."""
        return self.engine, self.ending, self.prompts


def _build_request(
    settings: AnsweringConfig,
    work: ContenderContext,
    weights: ModelWeights,
    examples: Sequence[Example],
) -> _EngineRequest:
    """Return the engine, stop criteria and prompts for these examples."""
    tokenizer = load_tokenizer(weights.base)
    prompts = encode_prompts(settings, work, tokenizer, examples)
    longest = max((len(ids) for _, ids in prompts), default=0) + work.max_new_tokens
    engine = vllm.VllmOptions(
        model=weights.model,
        dtype=str(choose_dtype(weights.precision)).removeprefix("torch."),
        cards=_count_gpus(settings),
        longest=min(longest, count_positions(weights.base)),
        adapter=weights.adapter,
        rank=vllm.read_adapter_settings(weights.adapter).r if weights.adapter else 0,
        rows=count_rows(weights.model),
    )
    ends, stop = (
        load_end_tokens(weights.model, tokenizer),
        choose_stop_texts(settings, work, tokenizer),
    )
    return _EngineRequest(engine, StopCriteria(tokenizer, ends, stop), prompts)


def _time_single_requests(
    running: Any, engine_request: _EngineRequest, max_new_tokens: int
) -> Iterator[float]:
    """Yield the seconds of each prompt by itself, with an empty prefix cache each time."""
    engine, ending, prompts = engine_request.parts()
    for prompt in prompts:
        running.reset_prefix_cache()
        started = time.perf_counter()
        for _ in vllm.generate_with_vllm(running, engine, ending, [prompt], max_new_tokens):
            pass
        yield time.perf_counter() - started


def _load_in_transformers(weights: ModelWeights, cards: int) -> Any:
    """Return the same weights in transformers, on as many GPUs."""
    model: Any = load_model(
        weights.model, "none", choose_dtype(weights.precision), over_all=cards > 1
    )
    if weights.adapter is None:
        return model
    import peft

    return peft.PeftModel.from_pretrained(model, str(weights.adapter))


def _count_gpus(settings: AnsweringConfig) -> int:
    """Return the GPUs to use: as many as the file names, but no more than this machine has.

    The file may name another machine.
    """
    import torch

    requested = settings.hardware.count if settings.hardware else 1
    return max(1, min(requested, torch.cuda.device_count()))
