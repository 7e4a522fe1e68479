"""Judges each exit from the model that is being left, by a finished run.

The verdict says whether it is as good (`scoring/parity.py`), what it costs a month, until when it
lasts, and whether its training was still improving.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from itertools import combinations
from pathlib import Path
from typing import Any

from tuneoff import environment
from tuneoff.bakeoff.compare import ScoredRun, read_scored_run
from tuneoff.bakeoff.migration.exits import CAPTURED_NAME
from tuneoff.costs.monthly import HOURS_PER_MONTH
from tuneoff.errors import DataError
from tuneoff.report import format as f
from tuneoff.report.comparisons import join_names
from tuneoff.report.parity import describe_parity
from tuneoff.results import ContenderResult, Results
from tuneoff.scoring.equivalence import DEFAULT_MARGIN
from tuneoff.scoring.paired import Pair
from tuneoff.scoring.parity import Parity, judge_parity
from tuneoff.scoring.training_variance import find_seeds

STILL_IMPROVING = "still improving"


def judge_exits(run_dir: Path | str, margin: float | None = None) -> list[dict[str, Any]]:
    """Return the verdict of a finished run on each exit.

    The exits are all contenders but the model that is being left (`migrating_from`; in an earlier
    file, `hosted`).

    Args:
        margin: a share of 1; a smaller loss does not matter. Default: the run's own.

    Returns:
        Of each `name`, `metric`, `difference`, `low`, `high` (own minus hosted, 90%), `p_value` (of
            "it is worse by the margin or more", one-sided, adjusted over the contenders; null where
            scores are no shares), `verdict` (`better`, `matches`, `worse`, `not shown`, `failed`),
            `outcome` (`better`, `worse`, `same`, `cannot be told`, `failed`), `holds` (it is
            better, the same, or not worse by the margin, and has not ended), `usd_per_month` (at
            the run's traffic; null: not known), `ends`, `still_improving`, and a `sentence`.

    Raises:
        DataError: the run has no answers of the model that is being left.
    """
    run = read_scored_run(Path(run_dir))
    results = run.results
    if margin is None:
        points = results.requirements.get("margin_points")
        margin = DEFAULT_MARGIN if points is None else points / 100
    left = _find_left(results)
    own, others = _build_pairs(run, left)
    label = "the hosted model" if left == CAPTURED_NAME else left
    judged = judge_parity(own, results.primary_metric, run.clusters, run.cluster, margin, others)
    known = {parity.name: parity for parity in judged}
    return [
        _describe_exit(contender, known.get(contender.name), label, results)
        for contender in results.contenders
        if contender.name != left
    ]


def summarize_exits(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return in a sentence or two which exits hold, and which of them costs least."""
    if not rows:
        return "There is no exit in this run: it has no other contender."
    metric = f.words(rows[0]["metric"])
    holding = [row for row in rows if row["holds"]]
    if not holding:
        return (
            f"By {metric}, none of {len(rows)} exits holds."
            if len(rows) > 1
            else (f"By {metric}, the only exit does not hold.")
        )
    verb = "holds" if len(holding) == 1 else "hold"
    names = join_names([row["name"] for row in holding])
    sentence = f"By {metric}, {len(holding)} of {len(rows)} exits {verb}: {names}."
    priced = [row for row in holding if row["usd_per_month"] is not None]
    if len(holding) < 2 or not priced:
        return sentence
    least = min(priced, key=lambda row: row["usd_per_month"])
    of = "them" if len(priced) == len(holding) else "those whose cost is known"
    usd = f.usd(least["usd_per_month"])
    return f"{sentence} The cheapest of {of} is {least['name']}: {usd} a month."


def _find_left(results: Results) -> str:
    """Return the name of the model that is being left."""
    names = [each.name for each in results.contenders]
    left = str(results.settings.get("migrating_from") or CAPTURED_NAME)
    if left not in names:
        raise DataError(
            f"{results.name}: there is no contender {left!r} in this run (there are: "
            f"{', '.join(names)}); give a run of the file that `tuneoff migrate` wrote."
        )
    captured = next(each for each in results.contenders if each.name == left)
    if captured.error:
        raise DataError(f"{results.name}: {left} failed: {captured.error}")
    return left


def _build_pairs(run: ScoredRun, left: str) -> tuple[list[Pair], list[Pair]]:
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
        if pair.list_common_ids():
            (own if b == left else others).append(pair)
    return own, others


def _describe_exit(
    contender: ContenderResult, parity: Parity | None, label: str, results: Results
) -> dict[str, Any]:
    """Return an exit's verdict as plain values.

    `label` is what the model that is being left is called.
    """
    verdict, outcome, words = _judge_exit(contender, parity, label)
    ended = contender.ends is not None and date.fromisoformat(contender.ends) <= environment.today()
    is_improving = contender.training is not None and contender.training.verdict == STILL_IMPROVING
    month, cost = _describe_cost(contender, results)
    facts = [cost, _describe_end(contender, ended)]
    if is_improving:
        facts.append("its training was still improving, so more epochs may help")
    sentence = f"{words}."
    if contender.error is None:
        sentence += f" {facts[0][0].upper()}{facts[0][1:]}; {'; '.join(facts[1:])}."
    pair = parity.pair if parity else None
    return {
        "name": contender.name,
        "metric": results.primary_metric,
        "difference": pair.difference if pair else None,
        "low": pair.low_90 if pair else None,
        "high": pair.high_90 if pair else None,
        "p_value": parity.p_not_worse if parity else None,
        "verdict": verdict,
        "outcome": outcome,
        "holds": verdict in ("better", "matches") and not ended,
        "usd_per_month": month,
        "ends": contender.ends,
        "still_improving": is_improving,
        "sentence": sentence,
    }


def _judge_exit(
    contender: ContenderResult, parity: Parity | None, label: str
) -> tuple[str, str, str]:
    """Return an exit's verdict, its outcome, and both in words without a full stop."""
    name = contender.name
    if contender.error is not None:
        why = contender.error.removeprefix(f"contender {name}: ").rstrip(".")
        return "failed", "failed", f"{name} failed: {why}"
    if parity is None:
        return (
            "not shown",
            "cannot be told",
            (f"{name} cannot be held against {label}: it has no answers to the same examples"),
        )
    verdict = "not shown"
    if parity.outcome == "better" or (parity.outcome == "worse" and not parity.is_not_worse):
        verdict = parity.outcome
    elif parity.is_not_worse:
        verdict = "matches"
    return verdict, parity.outcome, describe_parity(parity, label)


def _describe_cost(contender: ContenderResult, results: Results) -> tuple[float | None, str]:
    """Return an exit's monthly cost at the run's load, None if it is not known, and in words."""
    cost = contender.cost
    each, fixed = cost.serving_usd_per_1k_requests, cost.fixed_usd_per_month
    if each is None or fixed is None:
        why = (cost.serving_basis or "").removeprefix("not priced: ")
        return None, "no price known" + (f" ({why})" if why else "")
    hosting = cost.unit_prices.get("hosting_usd_per_hour")
    if hosting is not None and "input_usd_per_million_tokens" not in cost.unit_prices:
        fee = f.usd(hosting * HOURS_PER_MONTH)
        return None, f"hosting costs {fee} a month, and no price of its tokens is known"
    requests = (results.settings.get("serving") or {}).get("requests_per_month")
    if requests is not None:
        usd = each * requests / 1000
        return usd, f"it costs {f.usd(usd)} a month at {f.count(requests)} requests"
    if contender.place == "own":
        return fixed, f"it costs {f.usd(fixed)} a month, one machine reserved"
    beside = f" and {f.usd(fixed)} a month beside" if fixed else ""
    return None, (
        f"it costs {f.usd(each)} for 1,000 requests{beside} (serving.requests_per_month in the "
        "file would say how many come)"
    )


def _describe_end(contender: ContenderResult, ended: bool) -> str:
    """Return when an exit ends, in words."""
    if contender.ends is not None:
        return f"it {'ended' if ended else 'ends'} on {contender.ends}"
    return "it has no end" if contender.place == "own" else "no end date is known"
