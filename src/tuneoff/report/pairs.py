"""A comparison of two contenders in words, and as a row of the report's table."""

from __future__ import annotations

from collections.abc import Iterable

from tuneoff.report import format as f
from tuneoff.results import Comparison, ContenderResult
from tuneoff.scoring.paired import LEAST_UNITS
from tuneoff.scoring.power import describe_floor


def metric_value(contender: ContenderResult, metric: str) -> float | None:
    """A contender's score; None where it has none."""
    score = contender.scores.get(metric)
    return score.value if score else None


def find(pairs: Iterable[Comparison], a: str, b: str) -> Comparison | None:
    """The comparison of two contenders, in whichever order it was made."""
    return next((p for p in pairs if (p.a, p.b) in ((a, b), (b, a))), None)


def sentence(pair: Comparison, share: bool = True) -> str:
    """A pair in words, the better one first; no full stop.

    `share`: whether the metric lies in [0, 1], so that a difference reads in points.
    """
    if pair.outcome == "same":
        return f"{pair.a} and {pair.b} are {describe_same(pair)}: {same_numbers(pair, share)}"
    if pair.verdict == "tie":
        return f"no difference can be shown between {pair.a} and {pair.b}: {numbers(pair, share)}"
    a, b = (pair.b, pair.a) if pair.verdict == "b better" else (pair.a, pair.b)
    if pair.within_margin:
        return f"{a} is better than {b}, by less than {margin(pair)}: {numbers(pair, share)}"
    return f"{a} is better than {b} by {numbers(pair, share)}"


def describe_same(pair: Comparison) -> str:
    """Return `the same within 3 points`."""
    return f"the same within {margin(pair)}"


def margin(pair: Comparison) -> str:
    """Return the margin of a pair: `3 points`."""
    return f"{100 * (pair.margin or 0):g} points"


def same_numbers(pair: Comparison, share: bool = True) -> str:
    """Return the difference with the interval by which a pair is the same within its margin."""
    bounds = f.interval(pair.low_90, pair.high_90, share)
    return f"{f.difference(pair.difference, share)}, 90% {bounds}"


def numbers(pair: Comparison, share: bool = True) -> str:
    """Return `12.5 points [8.1, 16.9], p = 0.0003`, seen from the better one (from a in a tie).

    Interval and p are the adjusted ones, which belong together; where the examples are too few for
    an interval, it says so instead of p.
    """
    sign = -1 if pair.verdict == "b better" else 1
    shown = f.difference(sign * pair.difference, share)
    if pair.low is None and pair.units is not None and pair.units < LEAST_UNITS:
        return f"{shown}, but {describe_floor(pair.units, pair.cluster)}"
    bounds = f.interval(*shown_bounds(pair, sign), share)
    return f"{f'{shown} {bounds}'.rstrip()}, {f.p_equals(pair.p_adjusted)}"


def shown_bounds(pair: Comparison, sign: int = 1) -> tuple[float | None, float | None]:
    """Return the bounds that belong to the adjusted p, times a sign: those of the pair alone in
    results of before there were adjusted ones."""
    low, high = pair.low_adjusted, pair.high_adjusted
    if pair.units is None:
        low, high = pair.low, pair.high
    if low is None or high is None:
        return None, None
    return (low, high) if sign > 0 else (-high, -low)
