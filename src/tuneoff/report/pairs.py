"""A comparison of two contenders in words, and as a row of the report's table."""

from __future__ import annotations

from collections.abc import Iterable

from tuneoff.records import Comparison, ContenderResult
from tuneoff.report import format as f


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
    if pair.verdict == "tie":
        return f"no difference can be shown between {pair.a} and {pair.b}: {numbers(pair, share)}"
    a, b = (pair.b, pair.a) if pair.verdict == "b better" else (pair.a, pair.b)
    return f"{a} is better than {b} by {numbers(pair, share)}"


def numbers(pair: Comparison, share: bool = True) -> str:
    """`12.5 points [8.1, 16.9], p = 0.0003`, seen from the better one (from a in a tie)."""
    sign = -1 if pair.verdict == "b better" else 1
    low, high = sorted((sign * pair.low, sign * pair.high))
    shown = f.difference(sign * pair.difference, share)
    return f"{shown} {f.interval(low, high, share)}, {f.p_equals(pair.p_adjusted)}"
