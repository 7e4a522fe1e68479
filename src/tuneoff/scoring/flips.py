"""One joint sign-flip test for several pairs of contenders, and the intervals that belong to it.

If neither of two contenders is better, their answers to an example may as well be swapped, and so
may all their answers within a cluster (a database), whose examples are right or wrong together. A
*flip* swaps some of them; all pairs share the signs of each flip. The statistic of a pair is
T = |sum of d| / root of the sum of d², with d its summed difference within each example or cluster;
flips leave the denominator alone.

- The p-value of a pair is the share of flips with a T at least as large as the one found.
- The adjusted p-values are step-down (Westfall and Young 1993; Romano and Wolf, JASA 2005): each
  pair is held, in each flip, against the most extreme of the pairs that are no more extreme than
  it. How extreme a flip is for a pair is its p-value there, so that a pair whose few large clusters
  allow no large T is not drowned by the others; between equal p-values T decides, so that few
  clusters, which have few different p-values, are not mute: the least p over m clusters is 2/2^m,
  however many pairs there are. No pair has a larger p than Holm's method would give it.
- The interval of a pair holds the differences that its own test does not reject. One flip fails to
  reject those between two roots of a quadratic, so the bounds are order statistics of these roots;
  an interval leaves out 0 exactly when its p-value is under its level.

Up to `EXACT_UNITS` units every flip is taken, above it `FLIPS` seeded draws and the flip that swaps
nothing. Units whose differences are the same in every pair are drawn together, as binomial numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuneoff.scoring.intervals import SIGNIFICANT

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

EXACT_UNITS = 16
FLIPS = 10_000
SEED = 0
# Numbers drawn at a time: some megabytes.
_BLOCK_NUMBERS = 2_000_000
# Sums of the same numbers in another order differ by less than this share of them.
_ROUNDING = 1e-9
_DECIMALS = 10
_TIE, _TIE_DECIMALS = 1e-6, 14


@dataclass(frozen=True, slots=True)
class JointFlips:
    """What every flip made of every pair (flips × pairs).

    `extremity`: how extreme the flip is for the pair, from 0 to 1: one minus its p-value there,
    equal ones in the order of T; `found`: how extreme what was found is (pairs). `low`, `high`: the
    differences that the flip does not reject lie between these; infinite where it rejects none.
    `differences`: what the flip made of the mean difference.
    """

    found: Array
    differences: Array
    extremity: Array
    low: Array
    high: Array

    def p_values(self) -> list[float]:
        """Return each pair's own p-value."""
        return [float(share) for share in (self.extremity >= self.found).mean(axis=0)]

    def adjust(self) -> tuple[list[float], list[float]]:
        """Return each pair's p-value adjusted over all pairs, and the level of its own test that
        amounts to it: a pair that the step-down rejects has an own p of at most that."""
        import numpy as np

        order = np.argsort(-self.found, kind="stable")
        adjusted, levels = np.ones(len(order)), np.zeros(len(order))
        highest, stopped = 0.0, None
        for step, pair in enumerate(order):
            largest = self.extremity[:, order[step:]].max(axis=1)
            p = float((largest >= self.found[pair]).mean())
            highest = max(highest, p)
            adjusted[pair] = highest
            if stopped is None and p >= SIGNIFICANT:
                stopped = largest
            critical = _critical(largest if stopped is None else stopped)
            own = self.extremity[:, pair]
            # What the adjustment leaves may be less than any p-value that few units have.
            least = min(SIGNIFICANT, float((own == own.max()).mean()))
            levels[pair] = max(least, float((own >= critical).mean()))
        return adjusted.tolist(), levels.tolist()

    def interval(self, pair: int, level: float, inclusive: bool) -> tuple[float, float] | None:
        """Return the differences whose p is at least `level` (over it, where `inclusive` rejects
        at the level itself); None where no difference can be rejected."""
        import numpy as np

        count = len(self.low)
        # Of so many flips as rejected, at least, the last one still counts.
        rank = math.floor(level * count + 1e-6) + 1 if inclusive else math.ceil(level * count)
        rank = min(max(rank, 1), count) - 1
        low = float(np.partition(self.low[:, pair], rank)[rank])
        high = -float(np.partition(-self.high[:, pair], rank)[rank])
        return (low, high) if math.isfinite(low) and math.isfinite(high) else None

    def p_above(self, pair: int, difference: float, found: float) -> float:
        """Return the one-sided p-value of "the true difference is at most this"."""
        if difference < found:
            return float((self.low[:, pair] <= difference).mean()) / 2
        return 1 - float((self.high[:, pair] >= difference).mean()) / 2


def flip_jointly(sums: Array, sizes: Array) -> JointFlips:
    """Return what flips make of pairs of contenders.

    Args:
        sums: units × pairs, the summed difference of each example or cluster.
        sizes: units × pairs, its number of examples that both contenders answered; at least one
            in each column.
    """
    import numpy as np

    sums, sizes, times = _join_equal_units(sums, sizes)
    scale = times @ np.abs(sums)
    total, examples = _snap(times @ sums, 0.0, scale), times @ sizes
    root = np.sqrt(times @ sums**2)
    root[root == 0] = 1.0  # no difference: T is 0 in every flip
    blocks = [(signs @ sums, signs @ sizes) for signs in _signs(times)]
    flipped = np.concatenate([block[0] for block in blocks])
    counted = np.concatenate([block[1] for block in blocks])
    for exact in (0.0, total, -total):
        flipped = _snap(flipped, exact, scale)
    with np.errstate(divide="ignore", invalid="ignore"):
        first = (total - flipped) / (examples - counted)
        second = (total + flipped) / (examples + counted)
    # Where nothing, or everything, is swapped, no difference is rejected.
    same = np.abs(counted) == examples
    extremity = _rank(np.round(np.abs(flipped) / root, _DECIMALS))
    return JointFlips(
        found=extremity[0],
        differences=flipped / examples,
        extremity=extremity,
        low=np.where(same, -np.inf, np.minimum(first, second)),
        high=np.where(same, np.inf, np.maximum(first, second)),
    )


def _join_equal_units(sums: Array, sizes: Array) -> tuple[Array, Array, Array]:
    """Return the different units in ascending order, and how often there is each; few units as
    they are."""
    import numpy as np

    if len(sums) <= EXACT_UNITS:
        return sums, sizes, np.ones(len(sums))
    # Compared as bytes, which is much faster than number by number; -0 becomes 0 before.
    both = np.ascontiguousarray(np.hstack([sums, sizes]) + 0.0)
    as_bytes = both.view(np.dtype((np.void, both.itemsize * both.shape[1]))).ravel()
    _, first, times = np.unique(as_bytes, return_index=True, return_counts=True)
    units = both[first]
    order = np.lexsort(units.T[::-1])
    pairs = sums.shape[1]
    return units[order, :pairs], units[order, pairs:], times[order].astype(np.float64)


def _signs(times: Array) -> Iterator[Array]:
    """Yield blocks of flips × units: the sum of the signs of the equal units that each stands for.
    The first flip swaps nothing."""
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


def _rank(statistic: Array) -> Array:
    """Return how extreme each flip is for each pair."""
    import numpy as np

    below = [
        np.searchsorted(np.sort(column), column, side="left") / len(column)
        for column in statistic.T
    ]
    # T breaks ties alone: p-values differ by more than this.
    found = np.stack(below, axis=1) + statistic / (1 + statistic) * _TIE
    return np.asarray(np.round(found, _TIE_DECIMALS))


def _snap(values: Array, exact: Array | float, scale: Array) -> Array:
    """Return values without the rounding by which they miss an exact one."""
    import numpy as np

    return np.where(np.abs(values - exact) <= _ROUNDING * scale, exact, values)


def _critical(largest: Array) -> float:
    """Return the least extremity that fewer than 5% of the flips reach."""
    import numpy as np

    values, counts = np.unique(largest, return_counts=True)
    reached = np.cumsum(counts[::-1])[::-1] / len(largest)
    rare = values[reached < SIGNIFICANT]
    return float(rare[0]) if len(rare) else math.inf
