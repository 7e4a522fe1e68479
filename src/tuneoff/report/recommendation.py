"""Recommends a contender, from scores and paired tests, with reasons for and against it.

The best by the primary metric wins, of those that meet the requirements, unless others are as good:
no difference can be shown to them, and they are not behind by more than chance explains
(`scoring/selection.py`). That no difference can be shown is not enough, for a small test set shows
none. Of those as good, one without an end date comes first, then the cheapest: by serving and
training cost if all have one, else by how little was trained (prompted before LoRA before full).
Costs within 2% are equal. The model that is being left is never chosen. Every sentence is made from
the numbers of the results; when owning pays is in `ownership.py`.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Collection, Sequence

from tuneoff.config.schema import Requirements
from tuneoff.report import format as f
from tuneoff.report import ownership
from tuneoff.report.charts import learning_curve
from tuneoff.report.comparisons import (
    describe_comparison,
    find_comparison,
    format_numbers,
    get_metric_value,
)
from tuneoff.report.headline import find_caveats
from tuneoff.results import Baseline, BreakEven, Comparison, ContenderResult, Recommendation
from tuneoff.scoring.base import MetricKind


def find_violated_requirement(contender: ContenderResult, required: Requirements) -> str | None:
    """Return the violated requirement, as a clause; None if all are met."""
    provider = contender.place == "provider"
    if required.data_stays_here and contender.place != "own":
        why = (
            "its examples and prompts go to a provider"
            if provider
            else ("where it answers is not known")
        )
        return f"data_stays_here is required, and {why}"
    if required.managed and not provider:
        why = "somebody has to run it" if contender.place == "own" else ("who runs it is not known")
        return f"managed is required, and {why}"
    seconds, which = _get_latency(contender)
    most = required.max_latency_seconds
    if most is not None and seconds is not None and seconds > most:
        return f"max_latency_seconds is {most:g}, and {which} {f.seconds(seconds)}"
    return None


def list_unchecked(contender: ContenderResult, required: Requirements) -> list[str]:
    """Return sentences on requirements that could not be checked."""
    if required.max_latency_seconds is None or _get_latency(contender)[0] is not None:
        return []
    why = ": it answered in batches, which take up to a day" if contender.serving.batch else ""
    return [
        f"max_latency_seconds is {required.max_latency_seconds:g}, and how long {contender.name} "
        f"takes to answer was not measured{why}."
    ]


def _get_latency(contender: ContenderResult) -> tuple[float | None, str]:
    """Return the seconds of an answer, and which figure it is: the 95th percentile where known."""
    serving = contender.serving
    load = f.at_once(serving.concurrency)
    when = f", with {load}," if load else ""
    if serving.seconds_p95 is not None:
        return serving.seconds_p95, f"one answer in twenty{when} takes longer than"
    return serving.seconds_p50, f"half of its answers{when} take longer than"


Group = Sequence[ContenderResult]
# Costs are equal up to this ratio.
EQUAL_COST_RATIO = 1.02
ROUNDING = 1e-9
# The lead that chance may give the second over the first, among the named contenders.
Allowance = Callable[[str, str, Sequence[str]], float]
COMPARATIVES = {"least": "less", "the fewest": "fewer", "best": "better"}


def recommend(
    contenders: Group,
    comparisons: Sequence[Comparison],
    primary_metric: str,
    requirements: Requirements | None = None,
    break_even: Sequence[BreakEven] = (),
    day: datetime.date | None = None,
    *,
    allowance: Allowance,
    kind: MetricKind = "yes/no",
    leaving: str | None = None,
    not_worse: Collection[str] | None = None,
    baselines: Sequence[Baseline] = (),
) -> Recommendation:
    """Return the recommendation for a run's contenders, from its pairs on the primary metric.

    Args:
        day: the day of the choice: a model that has ended then cannot be chosen.
        allowance: the lead that chance may give the best (`scoring/selection.py`).
        kind: whether the metric says right or wrong of each example.
        leaving: the contender that is to be replaced (`migrating_from`).
        not_worse: the contenders with parity shown (`scoring/parity.py`); left out, a pair's own
            interval decides.
        baselines: what a choice must be better than.
    """
    pairs = [pair for pair in comparisons if pair.metric == primary_metric]
    when_not = [f"{c.name} failed and is not compared: {c.error}" for c in contenders if c.error]
    scored = [
        c for c in contenders if not c.error and get_metric_value(c, primary_metric) is not None
    ]
    # Reported figures come without answers to test, so they cannot win over measured ones.
    paired = {name for pair in pairs for name in (pair.a, pair.b)}
    measured = [c for c in scored if c.id != "recorded" or c.name in paired] or scored
    if not measured:
        why = f"No contender has a score for {f.words(primary_metric)}."
        return Recommendation(None, (why, *ownership.describe_ratios(contenders)), tuple(when_not))
    required = requirements or Requirements()
    values = {c.name: get_metric_value(c, primary_metric) for c in scored}
    share = f.is_share(*(values[c.name] for c in measured))
    breaches = {
        c.name: _explain_left(c, leaving)
        or _explain_ended(c, day)
        or find_violated_requirement(c, required)
        for c in measured
    }
    left_out = [
        f"{c.name} ({f.score(values[c.name], share)}) is left out: {breaches[c.name]}."
        for c in measured
        if breaches[c.name]
    ]
    fit = [c for c in measured if not breaches[c.name]]
    if not fit:
        why = "No contender can be chosen."
        return Recommendation(None, (why, *left_out), tuple(when_not))
    if not any(values[c.name] for c in fit):
        nobody = "No contender that may be chosen" if left_out else "No contender"
        why = (
            f"{nobody} got a single test example right ({f.words(primary_metric)}): nothing "
            "here can be chosen between; look at the answers below."
        )
        return Recommendation(None, (why, *left_out), tuple(when_not))
    choice, because, against = _choose_contender(
        fit, pairs, primary_metric, len(measured), share, allowance
    )
    replaced = find_comparison(pairs, choice.name, leaving) if leaving else None
    if replaced is not None:
        tie = replaced.verdict == "tie"
        n = choice.scores[primary_metric].n
        because.append(
            _describe_tie(replaced, n, share) if tie else f"{describe_comparison(replaced, share)}."
        )
    others = [c for c in scored if c.name != leaving]
    pro, contra = ownership.find_reasons(choice, others, pairs, break_even, primary_metric)
    against += _find_cheaper(choice, fit, pairs, primary_metric, share)
    when_not += [
        *against,
        *list_unchecked(choice, required),
        *contra,
        *_describe_limits(choice, measured),
    ]
    curves = [learning_curve.describe_curve(c, primary_metric, share) for c in measured]
    when_not += [told for told in curves if told]
    when_not += [
        f"{c.name} reports {f.score(values[c.name], share)} elsewhere; without its "
        "answers no test can compare it."
        for c in scored
        if c not in measured
    ]
    scores = [value for value in values.values() if value is not None]
    holds = None if not_worse is None else choice.name in not_worse
    caveats = find_caveats(
        choice, scores, primary_metric, share, kind, baselines, leaving, replaced, holds
    )
    return Recommendation(
        choice.name, tuple(dict.fromkeys((*because, *left_out, *pro))), tuple(when_not), caveats
    )


def _choose_contender(
    fit: Group,
    pairs: Sequence[Comparison],
    metric: str,
    of: int,
    share: bool,
    allowance: Allowance,
) -> tuple[ContenderResult, list[str], list[str]]:
    """Return the best, or the cheapest of those as good, with reasons for and against it."""
    best = max(fit, key=lambda c: get_metric_value(c, metric) or 0.0)
    comparisons = {c.name: find_comparison(pairs, best.name, c.name) for c in fit}
    ties = {name: p for name, p in comparisons.items() if p and p.verdict == "tie"}
    tied = [c for c in fit if c.name in ties]
    behind = {c.name: abs(ties[c.name].difference) for c in tied}
    names = [c.name for c in fit]
    allowed = {c.name: allowance(c.name, best.name, names) for c in tied}
    near = [best, *(c for c in tied if behind[c.name] <= allowed[c.name] + ROUNDING)]
    choice, reason = _find_cheapest(near, metric)
    because = [_describe_result(choice, metric, of, share)]
    because += [_describe_tie(p, choice.scores[metric].n, share) for p in ties.values()]
    if tied:
        because.append(_explain_choice(choice, best, near, len(tied), reason))
    if choice is not best:
        lost = f.difference(behind[choice.name] + allowed[choice.name], share)
        because.append(f"That may give away up to {lost} against {best.name} (90% sure).")
    far = [c for c in tied if c not in near]
    against = [told for told in (_explain_undecided(choice, c, pairs, metric) for c in far) if told]
    if choice.id == "prompted" and any(c.training for c in near):
        because.append("Do not fine-tune: the prompted base is as good.")
    elif choice.training:
        prompted = [c.name for c in near if c.id == "prompted"]
        against += [f"{name} is as good and needs no fine-tuning." for name in prompted]
    return choice, because + _describe_beaten(choice.name, pairs, share), against


def _describe_tie(pair: Comparison, n: int, share: bool) -> str:
    """Return the sentence on a pair without a shown difference."""
    if pair.outcome == "same":
        return f"{describe_comparison(pair, share)}."
    return (
        f"No difference can be shown with {f.count(n)} examples between {pair.a} and {pair.b}: "
        f"{format_numbers(pair, share)}."
    )


def _explain_choice(
    choice: ContenderResult, best: ContenderResult, near: Group, tied: int, reason: str
) -> str:
    """Return why the choice was made among those without a shown difference."""
    if len(near) > tied:
        return f"Of these, {choice.name} {reason}."
    if len(near) > 1:
        names = f"{', '.join(c.name for c in near[:-1])} and {near[-1].name}"
        return f"Chance explains the difference between {names}; of these, {choice.name} {reason}."
    return f"{best.name} is ahead by more than chance explains."


def _explain_undecided(
    choice: ContenderResult, other: ContenderResult, pairs: Sequence[Comparison], metric: str
) -> str | None:
    """Return what speaks for a contender not shown to be worse but too far behind; None if nothing
    does."""
    cheaper, reason = _find_cheapest([choice, other], metric)
    for superlative, comparative in COMPARATIVES.items():
        reason = reason.replace(superlative, comparative)
    pair = find_comparison(pairs, choice.name, other.name)
    if cheaper is choice or (pair and pair.verdict != "tie"):
        return None
    return (
        f"{other.name} was not shown to be worse than {choice.name}, and {reason}; more "
        "test examples would tell."
    )


def _find_cheapest(group: Group, metric: str) -> tuple[ContenderResult, str]:
    """Return the cheapest of equals, and the first rule that distinguishes it."""
    free = [c.training is None and c.id == "prompted" for c in group]
    training = [0.0 if none else c.cost.training_usd for c, none in zip(group, free, strict=True)]
    rules: list[tuple[str, list[float | None]]] = [
        ("has no end date", [float(c.ends is not None) for c in group]),
        ("costs least to serve", [c.cost.serving_usd_per_1k_requests for c in group]),
        ("costs least to train", training),
        ("trains the fewest parameters", _measure_training(group, "trainable_parameters")),
        ("was trained on the fewest tokens", _measure_training(group, "tokens_templated")),
        ("has the best score", [-(get_metric_value(c, metric) or 0.0) for c in group]),
    ]
    left, reason = list(range(len(group))), ""
    for why, values in rules:
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            continue
        least = min(known[place] for place in left)
        most = least * EQUAL_COST_RATIO if least > 0 else least
        kept = [place for place in left if known[place] <= most]
        if len(kept) < len(left):
            left, reason = kept, reason or why
    return group[left[0]], reason or "comes first in the file"


def _measure_training(group: Group, field: str) -> list[float | None]:
    """Return how much was trained: 0 for a prompted contender, infinity where it is unknown."""
    counts = [getattr(c.training, field, None) for c in group]
    return [
        0.0 if c.training is None and c.id == "prompted" else math.inf if n is None else float(n)
        for c, n in zip(group, counts, strict=True)
    ]


def _describe_result(choice: ContenderResult, metric: str, of: int, share: bool) -> str:
    """Return the sentence on the choice's score."""
    score = choice.scores[metric]
    bounds = f.interval(score.low, score.high, share)
    over = f"over {f.count(score.n)} test examples" if score.n else ""
    shown = f"{f.words(metric)} {f.score(score.value, share)} {bounds} {over}"
    if score.by_seed:
        seeds = f.by_seed(score.by_seed, share)
        shown += f", the mean of {len(score.by_seed)} seeds ({seeds})"
    alone = "; there was nothing to compare it with" if of == 1 else ""
    return f"{choice.name}: {' '.join(shown.split())}{alone}."


def _describe_beaten(choice: str, pairs: Sequence[Comparison], share: bool) -> list[str]:
    """Return sentences on the two nearest contenders that the choice beats."""
    beaten = [p for p in pairs if (p.a if p.verdict == "a better" else p.b) == choice]
    beaten = [p for p in beaten if p.verdict != "tie"]
    return [
        f"{describe_comparison(p, share)}."
        for p in sorted(beaten, key=lambda p: abs(p.difference))[:2]
    ]


def _explain_left(contender: ContenderResult, leaving: str | None) -> str | None:
    """Return the reason not to choose the model that is being left; None for any other."""
    return "it is the model that is being left" if contender.name == leaving else None


def _explain_ended(contender: ContenderResult, day: datetime.date | None) -> str | None:
    """Return the reason not to choose a model that has ended; None for any other."""
    if day is None or contender.ends is None or datetime.date.fromisoformat(contender.ends) > day:
        return None
    return f"it ended on {contender.ends}"


def _find_cheaper(
    choice: ContenderResult, fit: Group, pairs: Sequence[Comparison], metric: str, share: bool
) -> list[str]:
    """Return a sentence on the best contender that is worse than the choice but cheaper."""
    price = choice.cost.serving_usd_per_1k_requests
    if price is None:
        return []
    for other in sorted(fit, key=lambda c: -(get_metric_value(c, metric) or 0.0)):
        pair, less = (
            find_comparison(pairs, choice.name, other.name),
            other.cost.serving_usd_per_1k_requests,
        )
        if pair and pair.verdict != "tie" and less is not None and less < price:
            points = f.difference(abs(pair.difference), share)
            return [
                f"Where {points} matter less than money: {other.name} costs {f.usd(less)} for "
                f"1,000 requests, {choice.name} {f.usd(price)}."
            ]
    return []


def _describe_limits(choice: ContenderResult, measured: Group) -> list[str]:
    """Return sentences on the choice's end date, and on trainings that were still improving."""
    sentences = [f"{choice.name} ends on {choice.ends}."] if choice.ends else []
    names = [c.name for c in measured if c.training and c.training.verdict == "still improving"]
    if len(names) == 1:
        sentences.append(
            f"{names[0]} was still improving when its training ended; with more epochs it may do "
            "better."
        )
    elif names:
        sentences.append(
            f"{', '.join(names[:-1])} and {names[-1]} were still improving when their training "
            "ended; with more epochs they may do better."
        )
    return sentences
