"""Equivalence and parity: is a difference smaller than a margin that matters? Four outcomes of a
pair.

"No difference found" proves nothing: a small test set finds none. *The same within M points* is
shown by two one-sided tests at 5% each (Schuirmann 1987): the 90% interval lies between -M and M.
*Parity* (non-inferiority) is weaker: a contender is not worse than another by M or more, one-sided
at 5%, so a better one passes. Over several contenders, Holm's step-down adjusts it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tuneoff.results import Comparison, PairOutcome
from tuneoff.scoring.holm import adjust_by_holm
from tuneoff.scoring.paired import Pair, flip_pairs, measure_pairs

DEFAULT_MARGIN = 0.03


def is_within(pair: Comparison, margin: float) -> bool:
    """Return whether the true difference is shown to be smaller than the margin, either way."""
    if pair.low_90 is None or pair.high_90 is None:
        return False
    return pair.low_90 > -margin and pair.high_90 < margin


def add_outcome(pair: Comparison, margin: float | None) -> Comparison:
    """Return a pair with its outcome.

    Args:
        margin: None if scores are not shares; equivalence is then never shown.
    """
    within = None if margin is None else is_within(pair, margin)
    outcome: PairOutcome = "same" if within else "cannot be told"
    if pair.verdict != "tie":
        outcome = pair.verdict
    return replace(pair, outcome=outcome, margin=margin, within_margin=within)


def adjust_not_worse(
    pairs: Sequence[Pair],
    clusters: Mapping[str, str] | None = None,
    margin: float = DEFAULT_MARGIN,
) -> list[float]:
    """Return each pair's p-value of "a is worse than b by the margin or more", adjusted.

    The adjustment is over all pairs. Under 0.05, a is not worse.
    """
    if not pairs:
        return []
    measured = measure_pairs(pairs, "", clusters, "")
    flips = flip_pairs(measured)
    p_values = [pair.p_not_worse(flips, place, margin) for place, pair in enumerate(measured)]
    return [adjusted for adjusted, _ in adjust_by_holm(p_values)]
