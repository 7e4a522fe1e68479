"""Is a candidate as good as what it would follow? The one judgement, for files, runs and exits.

A candidate is held against a reference on the examples that both answered. What is said of it is
the outcome of their pair (`pairs.py`), and whether *parity* is shown: that it is not worse by the
margin or more, one-sided at 5%, over several candidates by Holm's method (`equivalence.py`). Where
neither tells anything, it says how many examples of the same kind would.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tuneoff.results import Comparison
from tuneoff.scoring.equivalence import MARGIN, adjust_not_worse
from tuneoff.scoring.intervals import SIGNIFICANT
from tuneoff.scoring.margins import count_needed
from tuneoff.scoring.paired import Pair
from tuneoff.scoring.pairs import compare_pairs

ParityOutcome = Literal["better", "worse", "same", "cannot be told"]


@dataclass(frozen=True, slots=True)
class Parity:
    """What is known of a candidate that is held against a reference.

    `pair` has the figures: its a is the candidate, its b the reference, its difference a minus b;
    `margin` is None there where scores are no shares, and so are `p_not_worse`, the one-sided
    p-value of "it is worse by the margin or more", and `is_not_worse`. `reference_has_none`: none
    of the reference's answers is right, so there is nothing to match. `n` counts the common
    examples; `needed` those of the same kind that would show an equal candidate to be not worse,
    four times in five, where these show nothing and are fewer.
    """

    pair: Comparison
    outcome: ParityOutcome
    is_not_worse: bool | None
    p_not_worse: float | None
    n: int
    needed: int | None = None
    reference_has_none: bool = False

    @property
    def name(self) -> str:
        """Return the candidate's name."""
        return self.pair.a

    @property
    def reference(self) -> str:
        """Return the reference's name."""
        return self.pair.b

    @property
    def is_share(self) -> bool:
        """Say whether scores lie in [0, 1], so that a difference reads in points."""
        return self.pair.margin is not None


def judge_parity(
    pairs: Sequence[Pair],
    metric: str,
    clusters: Mapping[str, str] | None = None,
    cluster: str = "cluster",
    margin: float = MARGIN,
    others: Sequence[Pair] = (),
) -> list[Parity]:
    """Judge candidates (each pair's a) against references (its b), in order.

    Args:
        clusters: what each example belongs to, as in `compare_all`.
        cluster: what the clusters are, for instance `db_id`.
        margin: a share of 1; to lose less would not matter.
        others: more pairs that better and worse are adjusted over, for instance a run's.

    Raises:
        ValueError: a pair has no example in common.
    """
    tested = compare_pairs([*pairs, *others], metric, clusters, cluster, margin)[: len(pairs)]
    shares = [pair for pair, each in zip(pairs, tested, strict=True) if each.margin is not None]
    not_worse = iter(adjust_not_worse(shares, clusters, margin))
    return [
        _judge(pair, each, clusters, None if each.margin is None else next(not_worse))
        for pair, each in zip(pairs, tested, strict=True)
    ]


def list_not_worse(
    scores: Mapping[str, Mapping[str, float]],
    seeds: Mapping[str, Sequence[Mapping[str, float]]],
    leaving: str,
    metric: str,
    clusters: Mapping[str, str] | None,
    margin: float,
) -> set[str]:
    """Return the contenders that are shown not to be worse, by the margin, than the one that is
    being left; scores and those of each training are by contender and example."""
    left, left_seeds = scores.get(leaving, {}), seeds.get(leaving, ())
    pairs = [
        Pair(name, leaving, found, left, seeds[name], left_seeds)
        for name, found in scores.items()
        if name != leaving
    ]
    judged = judge_parity(
        [each for each in pairs if each.common()], metric, clusters, margin=margin
    )
    return {parity.name for parity in judged if parity.is_not_worse}


def _judge(
    pair: Pair, tested: Comparison, clusters: Mapping[str, str] | None, p_not_worse: float | None
) -> Parity:
    common = pair.common()
    outcome: ParityOutcome = "same" if tested.outcome == "same" else "cannot be told"
    if tested.verdict != "tie":
        outcome = "better" if tested.verdict == "a better" else "worse"
    is_not_worse = None if p_not_worse is None else p_not_worse < SIGNIFICANT
    has_none = p_not_worse is not None and not any(pair.scores_b[id] for id in common)
    if has_none and outcome != "better":
        outcome, is_not_worse = "cannot be told", False
    is_open = outcome == "cannot be told" and is_not_worse is False and not has_none
    return Parity(
        pair=tested,
        outcome=outcome,
        is_not_worse=is_not_worse,
        p_not_worse=p_not_worse,
        n=len(common),
        needed=_count_needed(pair, common, clusters, tested.margin or 0) if is_open else None,
        reference_has_none=has_none,
    )


def _count_needed(
    pair: Pair, common: Sequence[str], clusters: Mapping[str, str] | None, margin: float
) -> int | None:
    """Return how many examples would tell, if as many answers differ as in these; None where these
    are as many, so that more of them promise nothing, or no number would do."""
    if not margin:
        return None
    # Of yes/no scores this is the share of the answers that differ.
    squares = math.fsum((pair.scores_a[id] - pair.scores_b[id]) ** 2 for id in common)
    sizes = None
    if clusters is not None:
        sizes = list(Counter(clusters.get(id, f"id {id}") for id in common).values())
    needed = count_needed(margin, squares / len(common), sizes)
    return needed if needed > len(common) else None
