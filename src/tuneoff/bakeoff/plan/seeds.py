"""What several seeds would take and bring, for own models that are trained once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tuneoff.bakeoff.plan.schema import MoreSeeds, PlannedContender
from tuneoff.config.contenders import LocalConfig
from tuneoff.contenders.variants import list_variants
from tuneoff.scoring.power import find_way_detectable

SEEDS = (0, 1, 2)


def plan_seeds(
    contenders: Sequence[Any],
    planned: Sequence[PlannedContender],
    n: int,
    cluster_sizes: Sequence[int] | None,
) -> MoreSeeds | None:
    """Return what `SEEDS` would take and bring; None where no contender could have them.

    Args:
        contenders: their settings, in the order of `planned`.
        n: test examples.
        cluster_sizes: examples of each cluster; None when they are independent.
    """
    trained_once = [
        (settings, variant.training)
        for settings, variant in zip(contenders, planned, strict=True)
        if isinstance(settings, LocalConfig) and settings.seeds is None and variant.training
    ]
    if not trained_once:
        return None
    more = len(SEEDS) - 1
    # A plan's figures are of all trainings, fractions of the learning curve included.
    times = [
        more / sum(variant.fraction for variant in list_variants(settings))
        for settings, _ in trained_once
    ]
    seconds = [training.seconds for _, training in trained_once]
    usd = [training.usd for _, training in trained_once]
    detectable = find_way_detectable(n, cluster_sizes, len(planned), len(SEEDS))
    return MoreSeeds(
        contenders=tuple(settings.name for settings, _ in trained_once),
        seeds=SEEDS,
        trainings=more * len(trained_once),
        seconds=_sum_weighted(seconds, times),
        usd=_sum_weighted(usd, times),
        smallest_detectable_difference=detectable.few,
        smallest_detectable_difference_of_many=detectable.many,
    )


def _sum_weighted(values: Sequence[float | None], times: Sequence[float]) -> float | None:
    """Return the weighted sum; None where one of the values is not known."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    return sum(value * factor for value, factor in zip(known, times, strict=True))
