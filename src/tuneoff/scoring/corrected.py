"""Corrects a judge's mean score by people's labels of some of the judged rows.

PPI++ (Angelopoulos, Duchi and Zrnic 2023, arXiv 2311.01453) for a mean. The labelled rows measure
the judge's error; the other rows have the judge's score alone:

    mean(people - w · judge, over labelled rows) + w · mean(judge, over all other rows).

The weight w minimizes the variance, within [0, 1]. At 0 only people count; a judge no better than
chance gets about that. With any w the estimate is unbiased if the labelled rows were drawn at
random. The rows of a cluster (a database) are summed, labelled and others together, before the
variance is taken. Student's t has Satterthwaite's degrees of freedom.

If a judge is seldom wrong, a few labels may show no error at all. The interval therefore counts two
more labels, half a label in each of four corners (Agresti and Coull, The American Statistician
1998; of differences Agresti and Min, Statistics in Medicine 2005). The estimate itself does not
count them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuneoff.results import CorrectedScore
from tuneoff.scoring.intervals import (
    SIGNIFICANCE_LEVEL,
    clip_bounds,
    combine_variances,
    compute_mean_variance,
    compute_seed_variances,
    compute_t_quantile,
)
from tuneoff.scoring.paired import MIN_UNITS
from tuneoff.scoring.power import POWER

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Places = NDArray[np.intp]

# Fewer labelled rows give no figure: benchmarks/corrected_scores.py measures from this number on.
MIN_LABELS = 20
# (people's, judge's) values of the extra labels, each with weight 1/2.
_CORNERS = ((1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.0, 0.0))
_CORNERS_OF_DIFFERENCES = ((1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0))
_CORNER_WEIGHT = 0.5
# The difference that the needed number of labels should show.
TARGET_DIFFERENCE = 0.05


@dataclass(frozen=True, slots=True)
class _JudgedRows:
    """Judged rows as arrays."""

    people: Array
    """People's values of the labelled rows."""
    judged: Array
    """The judge's values of the labelled rows."""
    others: Array
    """The judge's values of the other rows."""
    units: Places
    """The cluster number of each labelled row."""
    other_units: Places
    """The cluster number of each other row."""
    corners: Array
    """The values of the extra labels."""

    @property
    def labelled_count(self) -> int:
        """Return the number of labelled rows."""
        return len(self.people)


def correct_mean(
    judged: Mapping[str, float],
    labels: Mapping[str, float],
    clusters: Mapping[str, str] | None = None,
    seeds: Sequence[Sequence[float]] = (),
    *,
    of_differences: bool = False,
) -> CorrectedScore:
    """Return the estimate of people's mean over all judged rows, with its 95% interval.

    Args:
        judged: the judge's value of every row, in [0, 1]; for a pair, the differences.
        labels: people's values of some rows, drawn at random; rows that were not judged are
            ignored.
        clusters: row id → cluster; a missing row is a cluster of its own. None: rows are
            independent.
        seeds: the judge's score of each seed, of each contender with several.
        of_differences: whether values are differences of two contenders.
    """
    rows = _lay_out(judged, labels, clusters, of_differences)
    n, held = rows.labelled_count, _count_distinct(rows.units)
    counted = None if clusters is None else held
    if n < MIN_LABELS or (clusters is not None and held < MIN_UNITS):
        return CorrectedScore(None, None, None, n, len(judged), clusters=counted)
    slope, weight = _choose_weight(rows)
    variance, freedom = _compute_variance(rows, weight)
    variance, freedom = combine_variances([(variance, freedom), *compute_seed_variances(seeds)])
    residuals, corners = (
        rows.people - weight * rows.judged,
        _compute_residuals(rows.corners, weight),
    )
    rest = weight * float(rows.others.mean()) if len(rows.others) else 0.0
    least = -1.0 if of_differences else 0.0
    value = min(1.0, max(least, float(residuals.mean()) + rest))
    middle = _compute_mean(residuals, corners) + rest
    half = compute_t_quantile(SIGNIFICANCE_LEVEL, freedom) * math.sqrt(variance)
    low, high = clip_bounds(middle - half, middle + half, least)
    needed = _find_rows_needed(rows, slope) if of_differences else None
    return CorrectedScore(
        value, min(low, value), max(high, value), n, len(judged), weight, counted, needed
    )


def _lay_out(
    judged: Mapping[str, float],
    labels: Mapping[str, float],
    clusters: Mapping[str, str] | None,
    of_differences: bool,
) -> _JudgedRows:
    import numpy as np

    labelled = [id for id in judged if id in labels]
    others = [id for id in judged if id not in labels]
    names = [f"id {id}" if clusters is None else clusters.get(id, f"id {id}") for id in judged]
    number = {name: place for place, name in enumerate(dict.fromkeys(names))}
    unit = {id: number[name] for id, name in zip(judged, names, strict=True)}
    return _JudgedRows(
        people=np.array([float(labels[id]) for id in labelled]),
        judged=np.array([float(judged[id]) for id in labelled]),
        others=np.array([float(judged[id]) for id in others]),
        units=np.array([unit[id] for id in labelled], dtype=np.intp),
        other_units=np.array([unit[id] for id in others], dtype=np.intp),
        corners=np.array(_CORNERS_OF_DIFFERENCES if of_differences else _CORNERS),
    )


def _count_distinct(units: Places) -> int:
    return len(set(units.tolist()))


def _compute_residuals(corners: Array, weight: float) -> Array:
    residuals: Array = corners[:, 0] - weight * corners[:, 1]
    return residuals


def _compute_mean(values: Array, corners: Array) -> float:
    """Return the mean of values and corners; a corner has weight 1/2."""
    total = len(values) + _CORNER_WEIGHT * len(corners)
    return float(values.sum() + _CORNER_WEIGHT * corners.sum()) / total


def _choose_weight(rows: _JudgedRows) -> tuple[float, float]:
    """Return the slope of people's values on the judge's, and the weight with the smallest
    variance.

    Both are within [0, 1].
    """
    people = _compute_mean(rows.people, rows.corners[:, 0])
    judged = _compute_mean(rows.judged, rows.corners[:, 1])
    corners = rows.corners - (people, judged)
    off = rows.judged - judged
    together = float((rows.people - people) @ off) + _CORNER_WEIGHT * float(
        corners[:, 0] @ corners[:, 1]
    )
    spread = float(off @ off) + _CORNER_WEIGHT * float(corners[:, 1] @ corners[:, 1])
    slope = min(1.0, max(0.0, together / spread))
    return slope, slope * len(rows.others) / (rows.labelled_count + len(rows.others))


def _compute_variance(rows: _JudgedRows, weight: float) -> tuple[float, float]:
    """Return the variance of the corrected mean, and its degrees of freedom."""
    import numpy as np

    units = 1 + int(max(rows.units.max(), rows.other_units.max(initial=0)))
    residuals, corners = (
        rows.people - weight * rows.judged,
        _compute_residuals(rows.corners, weight),
    )
    n = rows.labelled_count
    middle, total = _compute_mean(residuals, corners), n + _CORNER_WEIGHT * len(corners)
    off = _sum_by_unit(rows.units, residuals - middle, units) / total * math.sqrt((n - 1) / (n - 2))
    unseen = _CORNER_WEIGHT * float((corners - middle) @ (corners - middle)) / total**2
    parts = [
        (float(off @ off) + unseen, _compute_freedom(rows.units, residuals, units) - (weight > 0))
    ]
    if weight and len(rows.others) > 1:
        others = weight * rows.others
        rest = _sum_by_unit(rows.other_units, others - others.mean(), units) / len(others)
        parts.append((float(rest @ rest), _compute_freedom(rows.other_units, others, units)))
        off = off + rest
    freedom = combine_variances([(part, max(1.0, degrees)) for part, degrees in parts])[1]
    return float(np.square(off).sum()) + unseen, freedom


def _sum_by_unit(places: Places, values: Array, units: int) -> Array:
    """Return each cluster's sum of values, scaled up for large clusters (CR2)."""
    import numpy as np

    share = np.bincount(places, minlength=units) / len(places)
    sums = np.bincount(places, weights=values, minlength=units)
    larger = 1 / np.sqrt(1 - np.minimum(share, 1 - 1 / len(places)))
    return np.asarray(sums * larger, dtype=np.float64)


def _compute_freedom(places: Places, values: Array, units: int) -> float:
    """Return the degrees of freedom of a mean over clusters."""
    return _compute_cluster_variance(places, values, units)[1]


def _compute_cluster_variance(places: Places, values: Array, units: int) -> tuple[float, float]:
    import numpy as np

    sizes = np.bincount(places, minlength=units).astype(np.float64)
    if (sizes > 0).sum() < 2:
        return 0.0, 1.0
    sums = np.bincount(places, weights=values, minlength=units).astype(np.float64)
    held = sizes > 0
    return compute_mean_variance(sums[held], sizes[held], float(values.var()))


def _find_rows_needed(rows: _JudgedRows, slope: float) -> int | None:
    """Return how many labelled rows show a difference of `TARGET_DIFFERENCE` with a power of 80%.

    None if labelling all rows does not.
    """
    import numpy as np
    from scipy.special import ndtri

    every = np.concatenate([rows.judged, rows.others])
    places = np.concatenate([rows.units, rows.other_units])
    units = 1 + int(places.max())
    residuals, corners = rows.people - slope * rows.judged, _compute_residuals(rows.corners, slope)
    middle, n = _compute_mean(residuals, corners), rows.labelled_count
    squares = float(np.square(residuals - middle).sum()) + _CORNER_WEIGHT * float(
        np.square(corners - middle).sum()
    )
    alone = squares / (n + _CORNER_WEIGHT * len(corners) - 2)
    together = _compute_cluster_variance(rows.units, residuals, units)[0] * n
    spread = alone * max(1.0, together / float(residuals.var(ddof=1) or math.inf))
    of_all = slope**2 * _compute_cluster_variance(places, every, units)[0]
    needed = float(n)
    for _ in range(3):  # the quantile depends on the number a little
        least = TARGET_DIFFERENCE / (
            compute_t_quantile(SIGNIFICANCE_LEVEL, max(1.0, needed - 1)) + float(ndtri(POWER))
        )
        left = least**2 - of_all
        needed = spread / left if left > 0 else math.inf
        if not needed <= len(every):
            return None
        needed = max(float(MIN_LABELS), needed)
    return math.ceil(needed)
