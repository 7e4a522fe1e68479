"""A joint sign-flip (permutation) test of several pairs of contenders, and its intervals.

If neither of two contenders is better, their answers to an example are exchangeable. Within a
cluster (a database) examples are right or wrong together, so all of its answers are exchanged
together. A *flip* exchanges some of them; all pairs share the signs of each flip. The statistic of
a pair is T = |sum of d| / root of the sum of d², where d is its summed difference within each
example or cluster. Flips leave the denominator unchanged.

- The p-value of a pair is the share of flips whose T is at least as large as the observed one.
- The adjusted p-values are step-down (Westfall and Young 1993; Romano and Wolf, JASA 2005): each
  pair is compared, in each flip, with the most extreme of the pairs that are no more extreme than
  it. The extremity of a flip for a pair is based on its p-value there, so a pair with few large
  clusters, which allow no large T, is not drowned by the others. T breaks ties between equal
  p-values, because few clusters have few different p-values: the least p over m clusters is 2/2^m,
  however many pairs there are. No pair has a larger p than Holm's method gives.
- The interval of a pair holds the differences that its own test does not reject. One flip fails to
  reject the differences between two roots of a quadratic, so the bounds are order statistics of
  these roots. An interval excludes 0 exactly when its p-value is under its level.

Up to `EXACT_UNITS` units, every flip is taken. Above it, `FLIPS` seeded draws and the identity
flip. Units with the same differences in every pair are drawn together, as binomial numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuneoff.scoring.intervals import SIGNIFICANCE_LEVEL

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

EXACT_UNITS = 16
FLIPS = 10_000
SEED = 0
# Numbers drawn at a time, some megabytes.
_BLOCK_NUMBERS = 2_000_000
# Relative rounding error of a sum in another order.
_ROUNDING = 1e-9
_DECIMALS = 10
_TIE, _TIE_DECIMALS = 1e-6, 14


@dataclass(frozen=True, slots=True)
class JointFlips:
    """The statistics of every flip of every pair (arrays of flips × pairs)."""

    found: Array
    """The extremity of the observed differences (pairs)."""
    differences: Array
    """The mean difference after the flip."""
    extremity: Array
    """How extreme the flip is for the pair, from 0 to 1: one minus its p-value there, with ties in
    the order of T."""
    low: Array
    """The flip does not reject differences from here to `high`; -inf if it rejects none."""
    high: Array
    """The upper end of these differences; inf if it rejects none."""

    def p_values(self) -> list[float]:
        """Return each pair's own p-value."""
        return [float(share) for share in (self.extremity >= self.found).mean(axis=0)]

    def adjust(self) -> tuple[list[float], list[float]]:
        """Return each pair's adjusted p-value, and the equivalent level of its own test.

        A pair that the step-down rejects has an own p-value of at most that level.
        """
        import numpy as np

        order = np.argsort(-self.found, kind="stable")
        adjusted, levels = np.ones(len(order)), np.zeros(len(order))
        highest, stopped = 0.0, None
        for step, pair in enumerate(order):
            largest = self.extremity[:, order[step:]].max(axis=1)
            p = float((largest >= self.found[pair]).mean())
            highest = max(highest, p)
            adjusted[pair] = highest
            if stopped is None and p >= SIGNIFICANCE_LEVEL:
                stopped = largest
            critical = _find_critical(largest if stopped is None else stopped)
            own = self.extremity[:, pair]
            # The remaining level may be below the least p-value that few units allow.
            least = min(SIGNIFICANCE_LEVEL, float((own == own.max()).mean()))
            levels[pair] = max(least, float((own >= critical).mean()))
        return adjusted.tolist(), levels.tolist()

    def interval(self, pair: int, level: float, inclusive: bool) -> tuple[float, float] | None:
        """Return the differences with a p-value of at least `level`; None if none is rejected.

        Args:
            inclusive: whether a p-value of exactly `level` rejects, too.
        """
        import numpy as np

        count = len(self.low)
        # The last one of the rejecting flips still counts.
        rank = math.floor(level * count + 1e-6) + 1 if inclusive else math.ceil(level * count)
        rank = min(max(rank, 1), count) - 1
        low = float(np.partition(self.low[:, pair], rank)[rank])
        high = -float(np.partition(-self.high[:, pair], rank)[rank])
        return (low, high) if math.isfinite(low) and math.isfinite(high) else None

    def compute_p_above(self, pair: int, difference: float, found: float) -> float:
        """Return the one-sided p-value of "the true difference is at most this"."""
        if difference < found:
            return float((self.low[:, pair] <= difference).mean()) / 2
        return 1 - float((self.high[:, pair] >= difference).mean()) / 2


def flip_jointly(sums: Array, sizes: Array) -> JointFlips:
    """Return the joint flips of pairs of contenders.

    Args:
        sums: units × pairs, the summed difference of each example or cluster.
        sizes: units × pairs, the number of examples that both contenders answered; at least one in
            each column.
    """
    import numpy as np

    sums, sizes, times = _join_equal_units(sums, sizes)
    scale = times @ np.abs(sums)
    total, examples = _snap(times @ sums, 0.0, scale), times @ sizes
    root = np.sqrt(times @ sums**2)
    root[root == 0] = 1.0  # no difference: T is 0 in every flip
    blocks = [(signs @ sums, signs @ sizes) for signs in _draw_signs(times)]
    flipped = np.concatenate([block[0] for block in blocks])
    counted = np.concatenate([block[1] for block in blocks])
    for exact in (0.0, total, -total):
        flipped = _snap(flipped, exact, scale)
    with np.errstate(divide="ignore", invalid="ignore"):
        first = (total - flipped) / (examples - counted)
        second = (total + flipped) / (examples + counted)
    # If nothing or everything is exchanged, no difference is rejected.
    same = np.abs(counted) == examples
    extremity = _compute_extremity(np.round(np.abs(flipped) / root, _DECIMALS))
    return JointFlips(
        found=extremity[0],
        differences=flipped / examples,
        extremity=extremity,
        low=np.where(same, -np.inf, np.minimum(first, second)),
        high=np.where(same, np.inf, np.maximum(first, second)),
    )


def _join_equal_units(sums: Array, sizes: Array) -> tuple[Array, Array, Array]:
    """Return the different units in ascending order, and their counts; few units as they are."""
    import numpy as np

    if len(sums) <= EXACT_UNITS:
        return sums, sizes, np.ones(len(sums))
    # Compared as bytes, which is much faster than number by number. Adding 0.0 turns -0 into 0.
    both = np.ascontiguousarray(np.hstack([sums, sizes]) + 0.0)
    as_bytes = both.view(np.dtype((np.void, both.itemsize * both.shape[1]))).ravel()
    _, first, times = np.unique(as_bytes, return_index=True, return_counts=True)
    units = both[first]
    order = np.lexsort(units.T[::-1])
    pairs = sums.shape[1]
    return units[order, :pairs], units[order, pairs:], times[order].astype(np.float64)


def _draw_signs(times: Array) -> Iterator[Array]:
    """Yield blocks of flips × units: the sum of the signs of the equal units.

    The first flip exchanges nothing.
    """
    import numpy as np

    count = len(times)
    if times.sum() <= EXACT_UNITS:
        bits = np.arange(2**count)[:, None] >> np.arange(count) & 1
        yield (1 - 2 * bits).astype(np.float64)
        return
    yield times[None, :]
    rng = np.random.Generator(np.random.PCG64(SEED))
    size = max(1, _BLOCK_NUMBERS // count)
    for start in range(0, FLIPS, size):
        shape = (min(size, FLIPS - start), count)
        yield times - 2.0 * rng.binomial(times.astype(np.int64), 0.5, size=shape)


def _compute_extremity(statistic: Array) -> Array:
    """Return how extreme each flip is for each pair."""
    import numpy as np

    below = [
        np.searchsorted(np.sort(column), column, side="left") / len(column)
        for column in statistic.T
    ]
    # T only breaks ties: p-values differ by more than this.
    extremity = np.stack(below, axis=1) + statistic / (1 + statistic) * _TIE
    return np.asarray(np.round(extremity, _TIE_DECIMALS))


def _snap(values: Array, exact: Array | float, scale: Array) -> Array:
    """Return the values; those within rounding of an exact value become exact."""
    import numpy as np

    return np.where(np.abs(values - exact) <= _ROUNDING * scale, exact, values)


def _find_critical(largest: Array) -> float:
    """Return the least extremity that fewer than 5% of the flips reach."""
    import numpy as np

    values, counts = np.unique(largest, return_counts=True)
    reached = np.cumsum(counts[::-1])[::-1] / len(largest)
    rare = values[reached < SIGNIFICANCE_LEVEL]
    return float(rare[0]) if len(rare) else math.inf
