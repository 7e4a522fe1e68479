"""Is a difference smaller than a margin that would matter? Four outcomes of a pair.

That no difference was found proves nothing: a small test set finds none. Two one-sided tests at 5%
each (Schuirmann 1987) say that two contenders are *the same within M points*: the 90% interval lies
between -M and M. *Parity* asks less: that a contender is not worse than another by M or more, at 5%
one-sided, so a better one passes; over several contenders Holm's step-down keeps it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tuneoff.results import Comparison, PairOutcome
from tuneoff.scoring.holm import holm
from tuneoff.scoring.paired import Pair, flip_pairs, measure_pairs

MARGIN = 0.03


def is_within(pair: Comparison, margin: float) -> bool:
    """Say whether the true difference is smaller than the margin, either way."""
    if pair.low_90 is None or pair.high_90 is None:
        return False
    return pair.low_90 > -margin and pair.high_90 < margin


def add_outcome(pair: Comparison, margin: float | None) -> Comparison:
    """Return a pair with its outcome; a margin of None (scores are no shares) is never held."""
    within = None if margin is None else is_within(pair, margin)
    outcome: PairOutcome = "same" if within else "cannot be told"
    if pair.verdict != "tie":
        outcome = pair.verdict
    return replace(pair, outcome=outcome, margin=margin, within_margin=within)


def adjust_not_worse(
    pairs: Sequence[Pair],
    clusters: Mapping[str, str] | None = None,
    margin: float = MARGIN,
) -> list[float]:
    """Return, of each pair, the p-value of "a is worse than b by the margin or more", adjusted over
    all pairs; a is not worse where it is under 0.05."""
    if not pairs:
        return []
    measured = measure_pairs(pairs, "", clusters, "")
    flips = flip_pairs(measured)
    found = [each.p_not_worse(flips, place, margin) for place, each in enumerate(measured)]
    return [adjusted for adjusted, _ in holm(found)]
