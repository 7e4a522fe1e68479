"""Holm's step-down adjustment of p-values (Scandinavian Journal of Statistics 1979)."""

from __future__ import annotations

from collections.abc import Sequence

from tuneoff.scoring.intervals import SIGNIFICANCE_LEVEL


def adjust_by_holm(p_values: Sequence[float]) -> list[tuple[float, float]]:
    """Return each p-value adjusted by Holm's step-down method, and the level left to it."""
    adjusted = [(0.0, 0.0)] * len(p_values)
    highest, level = 0.0, 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        left = len(p_values) - rank
        if highest < SIGNIFICANCE_LEVEL:  # no earlier null hypothesis was kept
            level = SIGNIFICANCE_LEVEL / left
        highest = max(highest, min(1.0, left * p_values[place]))
        adjusted[place] = (highest, level)
    return adjusted
