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

from tuneoff.results import Corrected
from tuneoff.scoring.intervals import (
    SIGNIFICANT,
    clip,
    mean_variance,
    quantile,
    seed_variances,
    total_variance,
)
from tuneoff.scoring.paired import LEAST_UNITS
from tuneoff.scoring.power import POWER

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Places = NDArray[np.intp]

# Fewer labelled rows give no figure: benchmarks/corrected_scores.py measures from this number on.
LEAST_LABELS = 20
# (people's, judge's) values of the extra labels, each with weight 1/2.
_CORNERS = ((1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.0, 0.0))
_CORNERS_OF_DIFFERENCES = ((1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0))
_HALF = 0.5
# The difference that the needed number of labels should show.
POINTS = 0.05


@dataclass(frozen=True, slots=True)
class _Rows:
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
    def labelled(self) -> int:
        """Return the number of labelled rows."""
        return len(self.people)


def correct_mean(
    judged: Mapping[str, float],
    labels: Mapping[str, float],
    clusters: Mapping[str, str] | None = None,
    seeds: Sequence[Sequence[float]] = (),
    *,
    of_differences: bool = False,
) -> Corrected:
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
    n, held = rows.labelled, _count_distinct(rows.units)
    counted = None if clusters is None else held
    if n < LEAST_LABELS or (clusters is not None and held < LEAST_UNITS):
        return Corrected(None, None, None, n, len(judged), clusters=counted)
    slope, weight = _tune(rows)
    variance, freedom = _variance(rows, weight)
    variance, freedom = total_variance([(variance, freedom), *seed_variances(seeds)])
    residuals, corners = rows.people - weight * rows.judged, _residuals(rows.corners, weight)
    rest = weight * float(rows.others.mean()) if len(rows.others) else 0.0
    least = -1.0 if of_differences else 0.0
    value = min(1.0, max(least, float(residuals.mean()) + rest))
    middle = _mean_with(residuals, corners) + rest
    half = quantile(SIGNIFICANT, freedom) * math.sqrt(variance)
    low, high = clip(middle - half, middle + half, least)
    needed = _find_rows_needed(rows, slope) if of_differences else None
    return Corrected(
        value, min(low, value), max(high, value), n, len(judged), weight, counted, needed
    )


def _lay_out(
    judged: Mapping[str, float],
    labels: Mapping[str, float],
    clusters: Mapping[str, str] | None,
    of_differences: bool,
) -> _Rows:
    import numpy as np

    labelled = [id for id in judged if id in labels]
    others = [id for id in judged if id not in labels]
    names = [f"id {id}" if clusters is None else clusters.get(id, f"id {id}") for id in judged]
    number = {name: place for place, name in enumerate(dict.fromkeys(names))}
    unit = {id: number[name] for id, name in zip(judged, names, strict=True)}
    return _Rows(
        people=np.array([float(labels[id]) for id in labelled]),
        judged=np.array([float(judged[id]) for id in labelled]),
        others=np.array([float(judged[id]) for id in others]),
        units=np.array([unit[id] for id in labelled], dtype=np.intp),
        other_units=np.array([unit[id] for id in others], dtype=np.intp),
        corners=np.array(_CORNERS_OF_DIFFERENCES if of_differences else _CORNERS),
    )


def _count_distinct(units: Places) -> int:
    return len(set(units.tolist()))


def _residuals(corners: Array, weight: float) -> Array:
    residuals: Array = corners[:, 0] - weight * corners[:, 1]
    return residuals


def _mean_with(values: Array, corners: Array) -> float:
    """Return the mean of values and corners; a corner has weight 1/2."""
    total = len(values) + _HALF * len(corners)
    return float(values.sum() + _HALF * corners.sum()) / total


def _tune(rows: _Rows) -> tuple[float, float]:
    """Return the slope of people's values on the judge's, and the weight with the smallest
    variance.

    Both are within [0, 1].
    """
    people = _mean_with(rows.people, rows.corners[:, 0])
    judged = _mean_with(rows.judged, rows.corners[:, 1])
    corners = rows.corners - (people, judged)
    off = rows.judged - judged
    together = float((rows.people - people) @ off) + _HALF * float(corners[:, 0] @ corners[:, 1])
    spread = float(off @ off) + _HALF * float(corners[:, 1] @ corners[:, 1])
    slope = min(1.0, max(0.0, together / spread))
    return slope, slope * len(rows.others) / (rows.labelled + len(rows.others))


def _variance(rows: _Rows, weight: float) -> tuple[float, float]:
    """Return the variance of the corrected mean, and its degrees of freedom."""
    import numpy as np

    units = 1 + int(max(rows.units.max(), rows.other_units.max(initial=0)))
    residuals, corners = rows.people - weight * rows.judged, _residuals(rows.corners, weight)
    n = rows.labelled
    middle, total = _mean_with(residuals, corners), n + _HALF * len(corners)
    off = _by_unit(rows.units, residuals - middle, units) / total * math.sqrt((n - 1) / (n - 2))
    unseen = _HALF * float((corners - middle) @ (corners - middle)) / total**2
    parts = [(float(off @ off) + unseen, _freedom(rows.units, residuals, units) - (weight > 0))]
    if weight and len(rows.others) > 1:
        others = weight * rows.others
        rest = _by_unit(rows.other_units, others - others.mean(), units) / len(others)
        parts.append((float(rest @ rest), _freedom(rows.other_units, others, units)))
        off = off + rest
    freedom = total_variance([(part, max(1.0, degrees)) for part, degrees in parts])[1]
    return float(np.square(off).sum()) + unseen, freedom


def _by_unit(places: Places, values: Array, units: int) -> Array:
    """Return each cluster's sum of values, scaled up for large clusters (CR2)."""
    import numpy as np

    share = np.bincount(places, minlength=units) / len(places)
    sums = np.bincount(places, weights=values, minlength=units)
    larger = 1 / np.sqrt(1 - np.minimum(share, 1 - 1 / len(places)))
    return np.asarray(sums * larger, dtype=np.float64)


def _freedom(places: Places, values: Array, units: int) -> float:
    """Return the degrees of freedom of a mean over clusters."""
    return _mean_of_clusters(places, values, units)[1]


def _mean_of_clusters(places: Places, values: Array, units: int) -> tuple[float, float]:
    import numpy as np

    sizes = np.bincount(places, minlength=units).astype(np.float64)
    if (sizes > 0).sum() < 2:
        return 0.0, 1.0
    sums = np.bincount(places, weights=values, minlength=units).astype(np.float64)
    held = sizes > 0
    return mean_variance(sums[held], sizes[held], float(values.var()))


def _find_rows_needed(rows: _Rows, slope: float) -> int | None:
    """Return how many labelled rows show a difference of `POINTS` with a power of 80%.

    None if labelling all rows does not.
    """
    import numpy as np
    from scipy.special import ndtri

    every = np.concatenate([rows.judged, rows.others])
    places = np.concatenate([rows.units, rows.other_units])
    units = 1 + int(places.max())
    residuals, corners = rows.people - slope * rows.judged, _residuals(rows.corners, slope)
    middle, n = _mean_with(residuals, corners), rows.labelled
    squares = float(np.square(residuals - middle).sum()) + _HALF * float(
        np.square(corners - middle).sum()
    )
    alone = squares / (n + _HALF * len(corners) - 2)
    together = _mean_of_clusters(rows.units, residuals, units)[0] * n
    spread = alone * max(1.0, together / float(residuals.var(ddof=1) or math.inf))
    of_all = slope**2 * _mean_of_clusters(places, every, units)[0]
    needed = float(n)
    for _ in range(3):  # the quantile depends on the number a little
        least = POINTS / (quantile(SIGNIFICANT, max(1.0, needed - 1)) + float(ndtri(POWER)))
        left = least**2 - of_all
        needed = spread / left if left > 0 else math.inf
        if not needed <= len(every):
            return None
        needed = max(float(LEAST_LABELS), needed)
    return math.ceil(needed)
