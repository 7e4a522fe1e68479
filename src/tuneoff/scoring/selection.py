"""How far may a contender be behind the best by chance?

The best of k contenders is partly the luckiest. A contender is *as good as the best* unless the
best leads by more standard errors than the largest of the k - 1 leads over it would be in 9 of 10
flips. This is Dunnett's (JASA 1955) one-sided bound for many-to-one comparisons, with the joint
flips in place of the normal distribution. Each of equal contenders is therefore kept in 9 of 10
runs, however many there are, and the cheapest can be chosen. Leads are measured in each pair's own
standard errors, so one contender that is far behind does not excuse the others.
"""

from __future__ import annotations

from collections.abc import Mapping

from tuneoff.scoring.flips import flip_jointly
from tuneoff.scoring.paired import Pair, Values, measure_pairs

BOUND_LEVEL = 0.10


def find_allowance(
    name: str,
    best: str,
    scores: Mapping[str, Values],
    clusters: Mapping[str, str] | None = None,
) -> float:
    """Return by how much the best may lead a contender by chance.

    Args:
        scores: contender → the score of each example, of all contenders that can be chosen.
        clusters: example id → cluster; None: examples are independent.
    """
    import numpy as np

    others = [
        Pair(other, name, answered, scores[name])
        for other, answered in scores.items()
        if other != name and any(id in scores[name] for id in answered)
    ]
    place = next((i for i, pair in enumerate(others) if pair.a == best), None)
    if place is None:
        return 0.0
    measured = measure_pairs(others, "", clusters, "")
    sums = np.stack([one.sums for one in measured], axis=1)
    sizes = np.stack([one.sizes for one in measured], axis=1)
    error = np.sqrt((sums**2).sum(axis=0)) / sizes.sum(axis=0)
    leads = flip_jointly(sums, sizes).differences / np.where(error > 0, error, 1.0)
    bound = float(np.quantile(leads.max(axis=1), 1 - BOUND_LEVEL, method="higher"))
    return max(0.0, bound * float(error[place]))
