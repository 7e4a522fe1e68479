"""How fast a contender answers: 20 to 48 test prompts one at a time, as a single caller would wait
for them; for every contender the same prompts, in the same order.

An own model is asked them once more, after it has answered the test set, and its answers are not
looked at. Nothing is kept from one prompt to the next, so a server that keeps prefixes is no
slower. A provider is asked them first of all: these are its answers to the test set, so nothing is
asked, or paid for, twice.

The throughput of an own model is that of the test set itself, which was answered as many rows at
once as fit; that takes no further time.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tuneoff import machine
from tuneoff.contender_settings import HostedSettings, PromptedSettings
from tuneoff.contenders import Work
from tuneoff.contenders.answering import answered_alone
from tuneoff.contenders.shots import Settings
from tuneoff.progress import Silent
from tuneoff.records import Example, Prediction, ServingRecord

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Answers that count at most, and how many are enough once they took SECONDS together; beyond
# LIMIT_SECONDS none is asked for any more.
MOST, ENOUGH = 48, 20
SECONDS, LIMIT_SECONDS = 2.0, 120.0


@dataclass(frozen=True, slots=True)
class Times:
    """How long requests took; the 95th percentile only where there are enough of them."""

    count: int
    p50: float | None
    p95: float | None


def measured(
    settings: Settings,
    work: Work,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
) -> ServingRecord:
    """Times a loaded model on the run's own test prompts; returns latency and throughput."""
    asked, quiet = asked_alone(work), replace(work, progress=Silent())
    seconds = answered_alone(settings, quiet, model, tokenizer, asked)
    return record(answered(work), timed(asked, seconds))


def as_answered(settings: Settings, work: Work) -> ServingRecord:
    """Returns the throughput alone, for which no model is loaded."""
    return replace(record(answered(work), {}), backend=settings.backend)


def of_provider(settings: HostedSettings | PromptedSettings, work: Work) -> ServingRecord | None:
    """Returns how long the answers took that a provider was asked for one at a time; None where
    there are none."""
    alone, _ = divided(answered(work), settings.concurrency)
    if not alone:
        return None
    seconds = {row.id: row.seconds or 0.0 for row in alone}
    return replace(record([], seconds, own=False), backend="provider")


def answered(work: Work) -> list[Prediction]:
    """Returns the test set's answers so far."""
    return [p for p in work.directory.predictions().values() if p.error is None]


def asked_alone(work: Work) -> list[Example]:
    """Returns the examples on which an own model is timed: those that it could answer."""
    known = {prediction.id for prediction in answered(work)}
    return [example for example in choose_prompts(work.test) if example.id in known]


def asked_first(work: Work, examples: Sequence[Example]) -> Sequence[Example]:
    """Returns the examples with those first on which a provider's model is timed. In a replay these
    are those that were timed then, in that order, for the first one does not count."""
    left = {example.id: example for example in examples}
    if work.replay is not None:
        chosen = timed_then(work)
    else:
        chosen = [example.id for example in choose_prompts(work.test)] if work.measure else []
    first = [left.pop(id) for id in chosen if id in left]
    return [*first, *left.values()]


def timed_then(work: Work) -> list[str]:
    """Returns the examples that a recorded run asked for one at a time, in that order."""
    before = work.replay.predictions() if work.replay is not None else {}
    return [id for id, row in before.items() if row.concurrency == 1]


def choose_prompts(test: Sequence[Example]) -> list[Example]:
    """Returns the examples to be timed, in their order: one to begin with and as many as are
    enough, at even distances over the test set, then those between that make the most."""
    first = spread(test, 1 + ENOUGH)
    chosen = {example.id for example in first}
    between = [example for example in test if example.id not in chosen]
    return first + spread(between, MOST - ENOUGH)


def spread(examples: Sequence[Example], most: int) -> list[Example]:
    """Returns at most so many examples, at even distances."""
    take = min(most, len(examples))
    return [examples[i * len(examples) // take] for i in range(take)]


def asks_on(seconds: Collection[float]) -> bool:
    """Says whether one more prompt is to be timed, after those that took so many seconds."""
    taken = math.fsum(seconds)
    enough = len(seconds) > ENOUGH and taken >= SECONDS
    return not enough and taken < LIMIT_SECONDS and len(seconds) <= MOST


def timed(asked: Iterable[Example], seconds: Iterator[float]) -> dict[str, float]:
    """Returns the seconds of examples by id, taken one after another until they are enough."""
    found = dict[str, float]()
    for example, each in zip(asked, seconds, strict=False):
        found[example.id] = each
        if not asks_on(found.values()):
            break
    return found


def divided(
    rows: Iterable[Prediction], concurrency: int
) -> tuple[list[Prediction], list[Prediction]]:
    """Divides a provider's timed answers: those asked for one at a time, and those under load.

    Args:
        concurrency: that of rows which do not say it, for they are of an earlier version.
    """
    known = [row for row in rows if row.seconds is not None]
    alone = [row for row in known if (row.concurrency or concurrency) == 1]
    return alone, [row for row in known if (row.concurrency or concurrency) > 1]


def counted(seconds: Iterable[float]) -> list[float]:
    """Returns the seconds that count: the first answer prepares kernels and caches, or a
    connection, and counts only where there is no other."""
    found = list(seconds)
    return found[1:] or found


def times(seconds: Sequence[float]) -> Times:
    """Returns what is said of requests that took so many seconds."""
    p50 = statistics.median(seconds) if seconds else None
    p95 = percentile(seconds, 0.95) if len(seconds) >= ENOUGH else None
    return Times(len(seconds), p50, p95)


def record(
    answers: Sequence[Prediction], alone: Mapping[str, float], *, own: bool = True
) -> ServingRecord:
    """Returns what was measured, with the machine it was measured on; one that computed nothing
    (not `own`) is not asked for its accelerator, for which torch would be loaded."""
    saturated = [p.seconds for p in answers if p.seconds is not None]
    taken, found = math.fsum(saturated), times(counted(alone.values()))
    return ServingRecord(
        machine=machine.describe(),
        accelerator=machine.accelerator() if own else None,
        alone=found.count,
        seconds_p50=found.p50,
        seconds_p95=found.p95,
        saturated=len(saturated),
        requests_per_second=len(saturated) / taken if taken else None,
        alone_seconds=alone,
    )


def percentile(values: Sequence[float], share: float) -> float:
    """Returns the smallest of the values that so large a share of them does not exceed."""
    return sorted(values)[math.ceil(share * len(values)) - 1]
