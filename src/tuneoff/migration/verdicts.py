"""What a finished run says of those that may follow the model that is being left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tuneoff.compare import ScoredRun, read_scored_run
from tuneoff.errors import DataError
from tuneoff.migration.exits import HOSTED
from tuneoff.report import format as f
from tuneoff.results import Comparison
from tuneoff.scoring.equivalence import MARGIN, adjust_not_worse
from tuneoff.scoring.intervals import SIGNIFICANT
from tuneoff.scoring.paired import Pair
from tuneoff.scoring.pairs import compare_all
from tuneoff.scoring.power import describe_floor


def parity_of(run_dir: Path | str, margin: float = MARGIN) -> list[dict[str, Any]]:
    """Say of each other contender of a finished run whether it matches the model that is being left
    (`migrating_from`; of an earlier file, `hosted`): `name`, `difference`, `low`, `high` (own minus
    hosted, 90%), `p_value` (of "it is worse by the margin or more", one-sided, adjusted over the
    contenders), `verdict` (`better`, `matches`, `worse`, `not shown`) and a `sentence`.

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
    score = captured.scores.get(results.primary_metric)
    nothing = score is None or not score.value
    scores = {each.name: run.values[each.name] for each in results.contenders if not each.error}
    tested = compare_all(
        {name: found for name, found in scores.items() if found},
        results.primary_metric, run.clusters, run.cluster, run.seeds,
    )  # fmt: skip
    own = [pair for pair in tested if left in (pair.a, pair.b)]
    pairs = [_own_first(pair, run, left) for pair in own]
    p_values = adjust_not_worse(pairs, run.clusters, margin)
    return [_judged(pair, left, p, margin, nothing) for pair, p in zip(own, p_values, strict=True)]


def _own_first(pair: Comparison, run: ScoredRun, left: str) -> Pair:
    own = pair.a if pair.b == left else pair.b
    return Pair(own, left, run.values[own], run.values[left], run.seeds[own], run.seeds[left])


def _judged(
    pair: Comparison, left: str, p_value: float, margin: float, nothing: bool
) -> dict[str, Any]:
    """`nothing`: none of the captured answers is right, so there is nothing to match."""
    sign, own = (1, pair.a) if pair.b == left else (-1, pair.b)
    bounds = sorted(sign * x for x in (pair.low_90, pair.high_90) if x is not None)
    shown, *limits = (
        f"{round(100 * value, 1) + 0.0:+.1f}" for value in (sign * pair.difference, *bounds)
    )
    points = f"{shown} points" + (f" [{', '.join(limits)}], 90%" if limits else "")
    allowed, hosted = f.points(margin), "the hosted model" if left == HOSTED else left
    better = "a better" if sign > 0 else "b better"
    if pair.verdict == better:
        verdict, said = "better", f"is better than {hosted}"
    elif nothing:
        verdict, said = "not shown", f"cannot match: none of {hosted}'s answers is right"
    elif p_value < SIGNIFICANT:
        verdict, said = "matches", f"matches {hosted}: it loses less than {allowed}"
    elif pair.verdict != "tie":
        verdict, said = "worse", f"is worse than {hosted}"
    else:
        more = (
            describe_floor(pair.units or 0, pair.cluster)
            if pair.low is None
            else ("this test set cannot tell; more test examples would")
        )
        verdict, said = "not shown", f"may lose more than {allowed}: {more}"
    low, high = bounds or (None, None)
    return {
        "name": own,
        "difference": sign * pair.difference,
        "low": low,
        "high": high,
        "p_value": p_value,
        "verdict": verdict,
        "sentence": f"{own} {said} ({points}).",
    }
