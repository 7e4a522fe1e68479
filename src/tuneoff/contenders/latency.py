"""Latency and throughput of a contender: 20 to 48 test prompts, sent one at a time as a single
caller would. Every contender gets the same prompts in the same order.

An own model is asked them again after it has answered the test set, and these answers are
discarded. No cache is kept between prompts, so a server with a prefix cache is no slower. A
provider is asked them first: they are its answers to the test set, so nothing is paid for twice.

An own model's throughput is that of the test set, which was answered in batches as large as fit. It
takes no further time.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tuneoff import environment
from tuneoff.config.contenders import HostedConfig, PromptedConfig
from tuneoff.contenders.base import ContenderContext
from tuneoff.contenders.local_inference import time_single_requests
from tuneoff.contenders.shots import AnsweringConfig
from tuneoff.progress import SilentProgress
from tuneoff.records import Example, Prediction, ServingRecord

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Number of timed answers: at most `MAX_TIMED`; `MIN_TIMED` of them suffice once they took
# `MIN_SECONDS` together. No prompt begins after `MAX_SECONDS`.
MAX_TIMED, MIN_TIMED = 48, 20
MIN_SECONDS, MAX_SECONDS = 2.0, 120.0


@dataclass(frozen=True, slots=True)
class Latency:
    """Latency statistics in seconds; the 95th percentile needs `MIN_TIMED` requests."""

    count: int
    p50: float | None
    p95: float | None


def measure_local(
    settings: AnsweringConfig,
    work: ContenderContext,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
) -> ServingRecord:
    """Time a loaded model on the run's test prompts; return latency and throughput."""
    examples, quiet = list_timed_examples(work), replace(work, progress=SilentProgress())
    seconds = time_single_requests(settings, quiet, model, tokenizer, examples)
    return build_serving_record(load_answers(work), collect_timings(examples, seconds))


def load_throughput(settings: AnsweringConfig, work: ContenderContext) -> ServingRecord:
    """Return the throughput alone, which needs no loaded model."""
    return replace(build_serving_record(load_answers(work), {}), backend=settings.backend)


def load_provider_latency(
    settings: HostedConfig | PromptedConfig, work: ContenderContext
) -> ServingRecord | None:
    """Return the latency of a provider's answers requested one at a time; None without any."""
    alone, _ = split_by_load(load_answers(work), settings.concurrency)
    if not alone:
        return None
    seconds = {row.id: row.seconds or 0.0 for row in alone}
    return replace(build_serving_record([], seconds, own=False), backend="provider")


def load_answers(work: ContenderContext) -> list[Prediction]:
    """Return the test set's answers so far, without failed ones."""
    return [p for p in work.directory.predictions().values() if p.error is None]


def list_timed_examples(work: ContenderContext) -> list[Example]:
    """Return the examples on which an own model is timed: those that it could answer."""
    answered_ids = {prediction.id for prediction in load_answers(work)}
    return [example for example in choose_prompts(work.test) if example.id in answered_ids]


def order_timed_first(work: ContenderContext, examples: Sequence[Example]) -> Sequence[Example]:
    """Return the examples with the timed ones first.

    In a replay these are the examples that were timed in the recorded run, in that order, because
    the first one does not count.
    """
    left = {example.id: example for example in examples}
    if work.replay is not None:
        chosen = list_recorded_timed(work)
    else:
        chosen = [example.id for example in choose_prompts(work.test)] if work.measure else []
    first = [left.pop(id) for id in chosen if id in left]
    return [*first, *left.values()]


def list_recorded_timed(work: ContenderContext) -> list[str]:
    """Return the ids of examples that a recorded run requested one at a time, in order."""
    before = work.replay.predictions() if work.replay is not None else {}
    return [id for id, row in before.items() if row.concurrency == 1]


def choose_prompts(test: Sequence[Example]) -> list[Example]:
    """Return the examples to time, in order.

    First come one for warm-up and as many as suffice, evenly spaced over the test set. The examples
    between them follow, up to the maximum.
    """
    first = sample_evenly(test, 1 + MIN_TIMED)
    chosen = {example.id for example in first}
    between = [example for example in test if example.id not in chosen]
    return first + sample_evenly(between, MAX_TIMED - MIN_TIMED)


def sample_evenly(examples: Sequence[Example], max_count: int) -> list[Example]:
    """Return at most `max_count` examples, evenly spaced."""
    take = min(max_count, len(examples))
    return [examples[i * len(examples) // take] for i in range(take)]


def needs_more_timing(seconds: Collection[float]) -> bool:
    """Return whether another prompt should be timed after those that took these seconds."""
    taken = math.fsum(seconds)
    enough = len(seconds) > MIN_TIMED and taken >= MIN_SECONDS
    return not enough and taken < MAX_SECONDS and len(seconds) <= MAX_TIMED


def collect_timings(examples: Iterable[Example], seconds: Iterator[float]) -> dict[str, float]:
    """Return seconds by example id, measured one after another until they suffice."""
    seconds_by_id = dict[str, float]()
    for example, took in zip(examples, seconds, strict=False):
        seconds_by_id[example.id] = took
        if not needs_more_timing(seconds_by_id.values()):
            break
    return seconds_by_id


def split_by_load(
    rows: Iterable[Prediction], concurrency: int
) -> tuple[list[Prediction], list[Prediction]]:
    """Split a provider's timed answers into those requested one at a time and those under load.

    Args:
        concurrency: assumed for rows that do not say it; they are of an earlier version.
    """
    known = [row for row in rows if row.seconds is not None]
    alone = [row for row in known if (row.concurrency or concurrency) == 1]
    return alone, [row for row in known if (row.concurrency or concurrency) > 1]


def drop_warm_up(seconds: Iterable[float]) -> list[float]:
    """Return the seconds without the first, unless it is the only one.

    The first answer prepares kernels and caches, or a connection.
    """
    all_seconds = list(seconds)
    return all_seconds[1:] or all_seconds


def summarize_latency(seconds: Sequence[float]) -> Latency:
    """Return latency statistics of requests that took these seconds."""
    p50 = statistics.median(seconds) if seconds else None
    p95 = compute_percentile(seconds, 0.95) if len(seconds) >= MIN_TIMED else None
    return Latency(len(seconds), p50, p95)


def build_serving_record(
    answers: Sequence[Prediction], alone: Mapping[str, float], *, own: bool = True
) -> ServingRecord:
    """Return the measurements with the machine they were made on.

    Args:
        own: computed on this machine. Otherwise its accelerator is not queried, because that would
            load torch.
    """
    saturated = [p.seconds for p in answers if p.seconds is not None]
    taken, latency = math.fsum(saturated), summarize_latency(drop_warm_up(alone.values()))
    return ServingRecord(
        machine=environment.describe_machine(),
        accelerator=environment.get_accelerator() if own else None,
        alone=latency.count,
        seconds_p50=latency.p50,
        seconds_p95=latency.p95,
        saturated=len(saturated),
        requests_per_second=len(saturated) / taken if taken else None,
        alone_seconds=alone,
    )


def compute_percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that a share of the values does not exceed."""
    return sorted(values)[math.ceil(share * len(values)) - 1]
