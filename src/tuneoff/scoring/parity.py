"""The parity test (non-inferiority): is a candidate as good as the reference that it would replace?

Files, runs and exits all use this test. Candidate and reference are compared on the examples that
both answered. The result is the outcome of their pair (`pairs.py`), and whether *parity* is shown:
the candidate is not worse by the margin or more, one-sided at 5%, over several candidates by Holm's
method (`equivalence.py`). If neither is conclusive, the result says how many examples of the same
kind would be.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tuneoff.results import Comparison
from tuneoff.scoring.equivalence import DEFAULT_MARGIN, adjust_not_worse
from tuneoff.scoring.intervals import SIGNIFICANCE_LEVEL
from tuneoff.scoring.margins import count_needed
from tuneoff.scoring.paired import Pair
from tuneoff.scoring.pairs import compare_pairs

ParityOutcome = Literal["better", "worse", "same", "cannot be told"]


@dataclass(frozen=True, slots=True)
class Parity:
    """The result of a candidate's test against a reference."""

    pair: Comparison
    """The figures: a is the candidate, b the reference, the difference is a minus b; `margin` is
    None if scores are not shares."""
    outcome: ParityOutcome
    is_not_worse: bool | None
    """Whether parity is shown; None if scores are not shares."""
    p_not_worse: float | None
    """The one-sided p-value of "it is worse by the margin or more"; None if scores are not shares.
    """
    n: int
    """The number of common examples."""
    needed: int | None = None
    """The number of such examples that would show an equal candidate to be not worse, with 80%
    power. None if the test is conclusive or there are as many already."""
    reference_has_none: bool = False
    """Whether none of the reference's answers is right, so that there is nothing to match."""

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
        """Return whether scores lie in [0, 1], so that a difference reads in points."""
        return self.pair.margin is not None


def judge_parity(
    pairs: Sequence[Pair],
    metric: str,
    clusters: Mapping[str, str] | None = None,
    cluster: str = "cluster",
    margin: float = DEFAULT_MARGIN,
    others: Sequence[Pair] = (),
) -> list[Parity]:
    """Return the parity of candidates (each pair's a) against references (its b), in order.

    Args:
        clusters: example id → cluster, as in `compare_all`.
        cluster: the name of the clusters, for instance `db_id`.
        margin: as a fraction of 1; losing less does not matter.
        others: further pairs that "better" and "worse" are adjusted over, for instance a run's.

    Raises:
        ValueError: a pair has no example in common.
    """
    tested = compare_pairs([*pairs, *others], metric, clusters, cluster, margin)[: len(pairs)]
    shares = [
        pair
        for pair, comparison in zip(pairs, tested, strict=True)
        if comparison.margin is not None
    ]
    not_worse = iter(adjust_not_worse(shares, clusters, margin))
    return [
        _judge_pair(
            pair, comparison, clusters, None if comparison.margin is None else next(not_worse)
        )
        for pair, comparison in zip(pairs, tested, strict=True)
    ]


def list_not_worse(
    scores: Mapping[str, Mapping[str, float]],
    seeds: Mapping[str, Sequence[Mapping[str, float]]],
    leaving: str,
    metric: str,
    clusters: Mapping[str, str] | None,
    margin: float,
) -> set[str]:
    """Return the contenders that are shown to be not worse than the one being left.

    Args:
        scores: contender → score by example.
        seeds: contender → the scores of each seed.
        leaving: the contender that is being left.
    """
    left, left_seeds = scores.get(leaving, {}), seeds.get(leaving, ())
    pairs = [
        Pair(name, leaving, scored, left, seeds[name], left_seeds)
        for name, scored in scores.items()
        if name != leaving
    ]
    judged = judge_parity(
        [pair for pair in pairs if pair.list_common_ids()], metric, clusters, margin=margin
    )
    return {parity.name for parity in judged if parity.is_not_worse}


def _judge_pair(
    pair: Pair, tested: Comparison, clusters: Mapping[str, str] | None, p_not_worse: float | None
) -> Parity:
    common = pair.list_common_ids()
    outcome: ParityOutcome = "same" if tested.outcome == "same" else "cannot be told"
    if tested.verdict != "tie":
        outcome = "better" if tested.verdict == "a better" else "worse"
    is_not_worse = None if p_not_worse is None else p_not_worse < SIGNIFICANCE_LEVEL
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
    """Return the number of examples that would be conclusive, at the observed discordance; or None.

    None if there are as many already, so that more promise nothing, or if no number would do.
    """
    if not margin:
        return None
    # For yes/no scores this is the share of answers that differ.
    squares = math.fsum((pair.scores_a[id] - pair.scores_b[id]) ** 2 for id in common)
    sizes = None
    if clusters is not None:
        sizes = list(Counter(clusters.get(id, f"id {id}") for id in common).values())
    needed = count_needed(margin, squares / len(common), sizes)
    return needed if needed > len(common) else None
