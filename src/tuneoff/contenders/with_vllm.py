"""What `local` and `prompted` do where `backend: vllm`: answer, measure, and say how many answers
are those that transformers gives.

vLLM's kernels round in their own way, so now and then a near-tie goes the other way. One card
does not hold both engines: the test set is answered first, then vLLM is ended, and transformers
answers a sample of the same prompts.
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
    """A model on disk: its resolved base, which has the tokenizer; the weights, which are those of
    the base or all of its own; an adapter; what they are computed in."""

    base: str
    model: str
    adapter: Path | None = None
    precision: Precision = "auto"


def ready(settings: Settings) -> None:
    """vLLM must be installed.

    Raises:
        MissingExtraError: it is not.
    """
    if settings.backend == "vllm":
        vllm.needed(f"contender {settings.name}: backend: vllm")


def answers_of(
    settings: Settings, work: Work, weights: Weights, examples: Sequence[Example]
) -> Iterator[list[Prediction]]:
    """vLLM's greedy answers to examples, a chunk at a time."""
    asked = _asked(settings, work, weights, examples)
    with vllm.running(asked.engine) as running:
        yield from vllm.answer(running, *asked.parts(), work.max_new_tokens)


def serving(settings: Settings, work: Work, weights: Weights) -> ServingRecord:
    """vLLM's latency and throughput, and how many answers of a sample transformers gives too."""
    examples = asked_alone(work)
    if not examples:
        return replace(record(answered(work), {}), backend="vllm")
    asked = _asked(settings, work, weights, examples)
    with vllm.running(asked.engine) as running:
        alone = timed(examples, _alone(running, asked, work.max_new_tokens))
    found = replace(record(answered(work), alone), backend="vllm")
    try:
        same, compared = agreement(settings, work, weights)
    except Exception as error:  # what vLLM answered and how fast stands without it
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        work.progress.say(f"warning: {settings.name}: transformers' answers are missing: {first}")
        return found
    if not compared:
        return found
    work.progress.say(
        f"{settings.name}: {same} of {compared} of vLLM's answers are, to the letter, those of "
        "transformers."
    )
    return replace(found, agreement=same / compared, compared=compared)


def agreement(settings: Settings, work: Work, weights: Weights) -> tuple[int, int]:
    """How many of a sample of the stored answers transformers gives too, and of how many."""
    stored = {p.id: p.prediction for p in work.directory.predictions().values() if p.error is None}
    examples = [example for example in work.test if example.id in stored]
    if not examples:
        return 0, 0
    model = _loaded(weights, _cards(settings))
    tokenizer, quiet = load_tokenizer(weights.base), replace(work, progress=Silent())
    sample = spread(examples, COMPARED)
    found = [p for some in answers(settings, quiet, model, tokenizer, sample) for p in some]
    del model
    release_memory()
    return sum(p.prediction.strip() == stored[p.id].strip() for p in found), len(found)


@dataclass(frozen=True, slots=True)
class _Asked:
    engine: vllm.Engine
    ending: Ending
    prompts: list[tuple[str, list[int]]]

    def parts(self) -> tuple[vllm.Engine, Ending, list[tuple[str, list[int]]]]:
        return self.engine, self.ending, self.prompts


def _asked(settings: Settings, work: Work, weights: Weights, examples: Sequence[Example]) -> _Asked:
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


def _alone(running: Any, asked: _Asked, max_new_tokens: int) -> Iterator[float]:
    """The seconds of each prompt by itself; nothing is kept from one to the next."""
    engine, ending, prompts = asked.parts()
    for prompt in prompts:
        running.reset_prefix_cache()
        began = time.perf_counter()
        for _ in vllm.answer(running, engine, ending, [prompt], max_new_tokens):
            pass
        yield time.perf_counter() - began


def _loaded(weights: Weights, cards: int) -> Any:
    """The same weights in transformers, over as many cards."""
    model: Any = load_model(weights.model, "none", dtype_of(weights.precision), over_all=cards > 1)
    if weights.adapter is None:
        return model
    import peft

    return peft.PeftModel.from_pretrained(model, str(weights.adapter))


def _cards(settings: Settings) -> int:
    """As many as the file names, but no more than are seen here: it may name another machine."""
    import torch

    named = settings.hardware.count if settings.hardware else 1
    return max(1, min(named, torch.cuda.device_count()))
