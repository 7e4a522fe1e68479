"""What a finished run says of those that may follow the model that is being left."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

from tuneoff.compare import ScoredRun, read_scored_run
from tuneoff.errors import DataError
from tuneoff.migration.exits import HOSTED
from tuneoff.report.parity import describe_parity
from tuneoff.scoring.equivalence import MARGIN
from tuneoff.scoring.paired import Pair
from tuneoff.scoring.parity import Parity, judge_parity
from tuneoff.scoring.way_of_training import find_seeds


def parity_of(run_dir: Path | str, margin: float = MARGIN) -> list[dict[str, Any]]:
    """Say of each other contender of a finished run whether it matches the model that is being left
    (`migrating_from`; of an earlier file, `hosted`): `name`, `difference`, `low`, `high` (own minus
    hosted, 90%), `p_value` (of "it is worse by the margin or more", one-sided, adjusted over the
    contenders; null where scores are no shares), `verdict` (`better`, `matches`, `worse`, `not
    shown`), `outcome` (`better`, `worse`, `same`, `cannot be told`) and a `sentence`.

    It matches when that p-value is under 5%; whether it is better, or worse, is what the run says.

    Raises:
        DataError: there are no answers of the model that is being left in this run.
    """
    run = read_scored_run(Path(run_dir))
    results = run.results
    names = [each.name for each in results.contenders]
    left = results.settings.get("migrating_from") or HOSTED
    if left not in names:
        raise DataError(
            f"{results.name}: there is no contender {left!r} in this run (there are: "
            f"{', '.join(names)}); give a run of the file that `tuneoff migrate` wrote."
        )
    captured = next(each for each in results.contenders if each.name == left)
    if captured.error:
        raise DataError(f"{results.name}: {left} failed: {captured.error}")
    own, others = _pairs(run, left)
    label = "the hosted model" if left == HOSTED else left
    judged = judge_parity(own, results.primary_metric, run.clusters, run.cluster, margin, others)
    return [_say(parity, label) for parity in judged]


def _pairs(run: ScoredRun, left: str) -> tuple[list[Pair], list[Pair]]:
    """Return the run's pairs: each contender with the one that is left, and all others."""
    there = [
        each.name for each in run.results.contenders if not each.error and run.values[each.name]
    ]
    between = find_seeds(run.ways, run.seeds)
    own, others = list[Pair](), list[Pair]()
    for a, b in combinations(there, 2):
        if a == left:
            a, b = b, a
        pair = Pair(
            a, b, run.values[a], run.values[b], run.seeds[a], run.seeds[b], between[a], between[b]
        )
        if pair.common():
            (own if b == left else others).append(pair)
    return own, others


def _say(parity: Parity, label: str) -> dict[str, Any]:
    """Return a judged contender as plain values; `label` is what the model being left is called."""
    verdict = "not shown"
    if parity.outcome == "better" or (parity.outcome == "worse" and not parity.is_not_worse):
        verdict = parity.outcome
    elif parity.is_not_worse:
        verdict = "matches"
    return {
        "name": parity.name,
        "difference": parity.pair.difference,
        "low": parity.pair.low_90,
        "high": parity.pair.high_90,
        "p_value": parity.p_not_worse,
        "verdict": verdict,
        "outcome": parity.outcome,
        "sentence": f"{describe_parity(parity, label)}.",
    }
