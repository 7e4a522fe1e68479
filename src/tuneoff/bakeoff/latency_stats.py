"""Latency of a contender's answers, from its measurements or its provider's."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from tuneoff.bakeoff.outcomes import TrainingOutcome, average_known
from tuneoff.contenders.latency import drop_warm_up, split_by_load, summarize_latency
from tuneoff.costs.contender_prices import is_hosted
from tuneoff.records import (
    Prediction,
)
from tuneoff.results import (
    LatencyStats,
)


def build_latency(
    settings: Any, first: TrainingOutcome, predictions: Iterable[Prediction]
) -> LatencyStats:
    """Return a contender's latency, throughput and token counts."""
    answered = [p for p in predictions if p.error is None]
    timed = [p for p in answered if p.sample == 0]  # later samples find their prompts in a cache
    latency = (
        _build_provider_latency(settings, timed)
        if is_hosted(settings)
        else _load_own_latency(first, timed)
    )
    return replace(
        latency,
        tokens_in_mean=average_known([p.tokens_in for p in answered]),
        tokens_out_mean=average_known([p.tokens_out for p in answered]),
    )


def _load_own_latency(first: TrainingOutcome, answered: Iterable[Prediction]) -> LatencyStats:
    """Return an own model's measured latency; without one, the throughput of its answers."""
    record = first.directory.serving()
    if record is None:
        seconds = [p.seconds for p in answered if p.seconds is not None]
        rate = len(seconds) / (math.fsum(seconds) or 1) if seconds else None
        return LatencyStats(requests_per_second=rate)
    return LatencyStats(
        seconds_p50=record.seconds_p50,
        seconds_p95=record.seconds_p95,
        requests=record.alone or None,
        concurrency=1 if record.alone else None,
        requests_per_second=record.requests_per_second,
        backend=record.backend,
        agreement=record.agreement,
        compared=record.compared,
    )


def _build_provider_latency(settings: Any, answered: Iterable[Prediction]) -> LatencyStats:
    """Return a provider's latency, one request at a time and under the run's own load. The latter
    stands for both if no request was timed alone, or only the one that opens the connection."""
    alone, loaded = split_by_load(answered, settings.concurrency)
    under_load = summarize_latency([row.seconds or 0.0 for row in loaded])
    most = max((row.concurrency or settings.concurrency for row in loaded), default=None)
    latency, concurrency = under_load, most
    if len(alone) > 1 or not loaded:
        latency = summarize_latency(drop_warm_up(row.seconds or 0.0 for row in alone))
        concurrency = 1 if alone else None
    return LatencyStats(
        seconds_p50=latency.p50,
        seconds_p95=latency.p95,
        requests=latency.count or None,
        concurrency=concurrency,
        loaded_seconds_p50=under_load.p50,
        loaded_seconds_p95=under_load.p95,
        loaded_requests=under_load.count or None,
        loaded_concurrency=most,
        batch=settings.batch,
    )
