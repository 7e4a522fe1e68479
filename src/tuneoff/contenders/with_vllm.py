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

from tuneoff.contenders import Work
from tuneoff.contenders.answering import answers, prompts_of, stops_of
from tuneoff.contenders.measuring import answered, asked_alone, record, spread, timed
from tuneoff.contenders.shots import Settings
from tuneoff.generation import vllm
from tuneoff.generation.ending import Ending, saved_ends
from tuneoff.models.embedding import count_rows
from tuneoff.models.loading import (
    Precision,
    dtype_of,
    load_model,
    load_tokenizer,
    positions_of,
    release_memory,
)
from tuneoff.progress import Silent
from tuneoff.records import Example, Prediction, ServingRecord

COMPARED = 16


@dataclass(frozen=True, slots=True)
class Weights:
    """A model on disk."""

    base: str
    """The resolved base, which has the tokenizer."""
    model: str
    """The weights: the base's, or the tuned model's own."""
    adapter: Path | None = None
    """A LoRA adapter, if there is one."""
    precision: Precision = "auto"
    """What they are computed in."""


def ready(settings: Settings) -> None:
    """Raise MissingExtraError unless vLLM is installed, where the file asks for it."""
    if settings.backend == "vllm":
        vllm.needed(f"contender {settings.name}: backend: vllm")


def answers_of(
    settings: Settings, work: Work, weights: Weights, examples: Sequence[Example]
) -> Iterator[list[Prediction]]:
    """Yield vLLM's greedy answers to the examples, a chunk at a time."""
    engine_request = _asked(settings, work, weights, examples)
    with vllm.running(engine_request.engine) as running:
        yield from vllm.answer(running, *engine_request.parts(), work.max_new_tokens)


def serving(settings: Settings, work: Work, weights: Weights) -> ServingRecord:
    """Return vLLM's latency and throughput, and its agreement with transformers on a sample."""
    examples = asked_alone(work)
    if not examples:
        return replace(record(answered(work), {}), backend="vllm")
    engine_request = _asked(settings, work, weights, examples)
    with vllm.running(engine_request.engine) as running:
        alone = timed(examples, _alone(running, engine_request, work.max_new_tokens))
    record_with_times = replace(record(answered(work), alone), backend="vllm")
    try:
        same, compared = agreement(settings, work, weights)
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


def agreement(settings: Settings, work: Work, weights: Weights) -> tuple[int, int]:
    """Return how many stored answers of a sample transformers gives too, and the sample's size."""
    stored = {p.id: p.prediction for p in work.directory.predictions().values() if p.error is None}
    examples = [example for example in work.test if example.id in stored]
    if not examples:
        return 0, 0
    model = _loaded(weights, _cards(settings))
    tokenizer, quiet = load_tokenizer(weights.base), replace(work, progress=Silent())
    sample = spread(examples, COMPARED)
    predictions = [p for batch in answers(settings, quiet, model, tokenizer, sample) for p in batch]
    del model
    release_memory()
    return sum(p.prediction.strip() == stored[p.id].strip() for p in predictions), len(predictions)


@dataclass(frozen=True, slots=True)
class _Asked:
    """The engine, its stop criteria and the encoded prompts."""

    engine: vllm.Engine
    ending: Ending
    prompts: list[tuple[str, list[int]]]

    def parts(self) -> tuple[vllm.Engine, Ending, list[tuple[str, list[int]]]]:
        """Return the three as a tuple."""
        return self.engine, self.ending, self.prompts


def _asked(settings: Settings, work: Work, weights: Weights, examples: Sequence[Example]) -> _Asked:
    """Return the engine, stop criteria and prompts for these examples."""
    tokenizer = load_tokenizer(weights.base)
    prompts = prompts_of(settings, work, tokenizer, examples)
    longest = max((len(ids) for _, ids in prompts), default=0) + work.max_new_tokens
    engine = vllm.Engine(
        model=weights.model,
        dtype=str(dtype_of(weights.precision)).removeprefix("torch."),
        cards=_cards(settings),
        longest=min(longest, positions_of(weights.base)),
        adapter=weights.adapter,
        rank=vllm.adapter_settings(weights.adapter).r if weights.adapter else 0,
        rows=count_rows(weights.model),
    )
    ends, stop = saved_ends(weights.model, tokenizer), stops_of(settings, work, tokenizer)
    return _Asked(engine, Ending(tokenizer, ends, stop), prompts)


def _alone(running: Any, engine_request: _Asked, max_new_tokens: int) -> Iterator[float]:
    """Yield the seconds of each prompt by itself, with an empty prefix cache each time."""
    engine, ending, prompts = engine_request.parts()
    for prompt in prompts:
        running.reset_prefix_cache()
        started = time.perf_counter()
        for _ in vllm.answer(running, engine, ending, [prompt], max_new_tokens):
            pass
        yield time.perf_counter() - started


def _loaded(weights: Weights, cards: int) -> Any:
    """Return the same weights in transformers, on as many GPUs."""
    model: Any = load_model(weights.model, "none", dtype_of(weights.precision), over_all=cards > 1)
    if weights.adapter is None:
        return model
    import peft

    return peft.PeftModel.from_pretrained(model, str(weights.adapter))


def _cards(settings: Settings) -> int:
    """Return the GPUs to use: as many as the file names, but no more than this machine has.

    The file may name another machine.
    """
    import torch

    requested = settings.hardware.count if settings.hardware else 1
    return max(1, min(requested, torch.cuda.device_count()))
