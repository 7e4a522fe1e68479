"""How fast an own model answers: measured once, after it has answered the test set.

Alone: test prompts one at a time, as a single caller would wait for them, for some seconds: at
most half as many as the whole test set took, within bounds. Nothing is kept from one prompt to
the next, so a server that keeps prefixes is no slower.
Saturated: the test set itself, which was answered as many rows at once as fit; that takes no
further time. Answers are not looked at, and not kept.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tuneoff import machine
from tuneoff.contenders import Work
from tuneoff.contenders.answering import answered_alone
from tuneoff.contenders.shots import Settings
from tuneoff.progress import Silent
from tuneoff.records import Example, Prediction, ServingRecord

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Prompts at most, and how many are enough once SECONDS are over.
MOST, ENOUGH = 48, 20
SECONDS = 2.0
# The bounds of when it ends in any case.
LIMITS = (2.5, 15.0)


def measured(
    settings: Settings,
    work: Work,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
) -> ServingRecord:
    """Latency and throughput of a loaded model on the run's own test prompts."""
    answered, asked, most = asked_alone(work)
    quiet = replace(work, progress=Silent())
    alone = bounded(answered_alone(settings, quiet, model, tokenizer, asked), most)
    return record(answered, alone)


def asked_alone(work: Work) -> tuple[list[Prediction], list[Example], float]:
    """The test set's answers, the examples to ask alone, and after how many seconds to stop."""
    answered = [p for p in work.directory.predictions().values() if p.error is None]
    known = {prediction.id for prediction in answered}
    asked = spread([example for example in work.test if example.id in known], MOST)
    taken = math.fsum(p.seconds for p in answered if p.seconds is not None)
    return answered, asked, limit(taken)


def record(answered: Sequence[Prediction], alone: Sequence[float]) -> ServingRecord:
    """What was measured, with the machine it was measured on."""
    saturated = [p.seconds for p in answered if p.seconds is not None]
    taken = math.fsum(saturated)
    return ServingRecord(
        machine=machine.describe(),
        accelerator=machine.accelerator(),
        alone=len(alone),
        seconds_p50=statistics.median(alone) if alone else None,
        seconds_p95=percentile(alone, 0.95) if len(alone) >= ENOUGH else None,
        saturated=len(saturated),
        requests_per_second=len(saturated) / taken if taken else None,
    )


def limit(answering_seconds: float) -> float:
    """After how many seconds no further prompt is asked."""
    return min(max(answering_seconds / 2, LIMITS[0]), LIMITS[1])


def bounded(
    timed: Iterator[float], most: float, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Seconds of answers one after another, until there are enough of them or time is up. The
    first one prepares kernels and caches, and counts only where there is no other."""
    began, found = clock(), list[float]()
    for seconds in timed:
        found.append(seconds)
        taken = clock() - began
        if taken >= most or (taken >= SECONDS and len(found) > ENOUGH):
            break
    return found[1:] or found


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that so large a share of them does not exceed."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


def spread(examples: Sequence[Example], most: int) -> list[Example]:
    """At most so many examples, at even distances."""
    take = min(most, len(examples))
    return [examples[i * len(examples) // take] for i in range(take)]
