"""When owning pays and when hosting does: the seed experiment's conclusions, with a run's numbers.

The article (L'Huillier 2023) concluded: a hosted model to find out whether fine-tuning is right for
a task at all, or where it has to be managed; an own one to save money, for the best result from the
data, for freedom in infrastructure, and for private data.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from tuneoff.report import format as f
from tuneoff.report.comparisons import find_comparison, format_numbers, get_metric_value
from tuneoff.results import BreakEven, Comparison, ContenderResult

Group = Sequence[ContenderResult]
# Max contenders of the other side that are compared: a reader who must choose reads no more.
MAX_OTHERS = 2


def find_reasons(
    choice: ContenderResult,
    scored: Group,
    pairs: Sequence[Comparison],
    crossings: Sequence[BreakEven],
    metric: str,
) -> tuple[list[str], list[str]]:
    """Return the reasons for and against a choice, from who runs it and what it costs.

    Both are empty if a run has one side only.

    Args:
        scored: every contender with a score, in any order, whatever is required.
    """
    others = [c for c in scored if c.name != choice.name and c.place not in (None, choice.place)]
    others.sort(key=lambda c: -(get_metric_value(c, metric) or 0.0))
    if choice.place == "own":
        return _find_own_reasons(choice, others, crossings, metric)
    if choice.place == "provider":
        return _find_hosted_reasons(choice, scored, others, pairs, crossings, metric)
    return [], []


def describe_ratios(contenders: Iterable[ContenderResult]) -> list[str]:
    """Return sentences: one side's training cost as a multiple of the other's, on the same data."""
    known = [c for c in contenders if c.cost.training_usd and c.error is None]
    own = [c for c in known if c.place == "own"]
    hosted = [c for c in known if c.place == "provider"]
    return [_describe_ratio(h, o) for h in hosted for o in own if h.data == o.data]


def describe_crossing(pair: BreakEven) -> str:
    """Return the load from which owning pays, as a sentence with its assumptions."""
    at = f" (at {pair.utilization:.0%} utilisation)."
    mind = f" {pair.warning}" if pair.warning else ""
    cheaper = f"owning {pair.own} is cheaper than {pair.hosted}"
    lasting, first = pair.requests_per_month, pair.first_requests_per_month
    if lasting and first is not None and first < lasting:
        while_full = f"from {f.large(first)} on while its machines are full enough"
        return f"From {f.large(lasting)} requests a month on ({while_full}), {cheaper}{at}{mind}"
    if lasting is not None and lasting > 0:
        return f"From {f.large(lasting)} requests a month on, {cheaper}{at}{mind}"
    if lasting is not None:
        return f"O{cheaper[1:]} whatever is asked{at}{mind}"
    if first is None:
        return f"At no number of requests a month {cheaper}{at}{mind}"
    until = pair.until_requests_per_month
    if until is None:
        full = "and only while its machines are full"
        return f"From {f.large(first)} requests a month on, {full}, {cheaper}{at}{mind}"
    between = f"between {f.large(first)} and {f.large(until)} requests a month"
    return f"O{cheaper[1:]} {between}{at}{mind}"


def _find_own_reasons(
    choice: ContenderResult, others: Group, crossings: Sequence[BreakEven], metric: str
) -> tuple[list[str], list[str]]:
    """Return the reasons for and against an own model."""
    pro, contra = list[str](), list[str]()
    for other in others[:MAX_OTHERS]:
        _add_training_reason(choice, other, pro, contra)
        pair = _find_pair(crossings, choice.name, other.name)
        if pair is not None:
            pays = pair.requests_per_month is not None
            (pro if pays else contra).append(describe_crossing(pair))
            if pair.first_requests_per_month:
                fewest = f.large(pair.first_requests_per_month)
                contra.append(f"Below {fewest} requests a month {other.name} costs less.")
    if others:
        best = others[0]
        pro.append(
            f"{choice.name} is yours: its weights do not end and run where you want, and examples "
            "and prompts stay with you."
        )
        if get_metric_value(best, metric):
            contra.append(
                "Where nobody is to run machines, or it is only to be seen whether fine-tuning is "
                f"right for this task: {best.name} ({_format_score(best, metric)})."
            )
    return pro, contra


def _find_hosted_reasons(
    choice: ContenderResult,
    scored: Group,
    others: Group,
    pairs: Sequence[Comparison],
    crossings: Sequence[BreakEven],
    metric: str,
) -> tuple[list[str], list[str]]:
    """Return the reasons for and against a hosted model."""
    pro, contra = list[str](), list[str]()
    if choice.training is not None:
        pro += _find_validation(choice, scored, pairs)
    if others:
        pro.append(f"{choice.name} is managed: nobody has to run machines for it.")
    elif choice.training is not None and not any(c.place == "own" for c in scored):
        contra.append(
            "No open model was compared: now that fine-tuning was tried, one of your own (id: "
            "local) may do as well for less, and keeps data here."
        )
    for other in others[:MAX_OTHERS]:
        _add_training_reason(choice, other, pro, contra)
        pair = _find_pair(crossings, other.name, choice.name)
        if pair is not None:
            pays = pair.first_requests_per_month is not None
            (contra if pays else pro).append(describe_crossing(pair))
    if others and get_metric_value(others[0], metric):
        contra.append(
            f"Where data must stay with you, or weights be yours: {others[0].name} "
            f"({_format_score(others[0], metric)})."
        )
    return pro, contra


def _find_validation(
    choice: ContenderResult, scored: Group, pairs: Sequence[Comparison]
) -> Iterator[str]:
    """Yield a sentence if fine-tuning is better than the best prompted contender."""
    for other in scored:
        pair = find_comparison(pairs, choice.name, other.name)
        if other.id == "prompted" and pair is not None and pair.verdict != "tie":
            better = pair.a if pair.verdict == "a better" else pair.b
            if better == choice.name:
                yield (
                    f"Fine-tuning is right for this task: it brings {format_numbers(pair)} over "
                    f"{other.name}."
                )
                return


def _add_training_reason(
    choice: ContenderResult, other: ContenderResult, pro: list[str], contra: list[str]
) -> None:
    """Add the ratio of training costs to the reasons for or against, if they are comparable."""
    ours, theirs = choice.cost.training_usd, other.cost.training_usd
    if ours and theirs and choice.data == other.data:
        (pro if ours <= theirs else contra).append(_describe_ratio(other, choice))


def _describe_ratio(hosted: ContenderResult, own: ContenderResult) -> str:
    """Return the ratio of two training costs as a sentence, the more expensive one first."""
    a, b = hosted, own
    if (a.cost.training_usd or 0) < (b.cost.training_usd or 0):
        a, b = b, a
    times = (a.cost.training_usd or 0) / (b.cost.training_usd or 1)
    shown = f"{times:.1f}" if times < 99.95 else f.large(times)
    more = f"{shown} times as much as" if times >= 1.05 else "as much as"
    of = f" ({a.data})" if a.data else ""
    return (
        f"Training {a.name}{of} cost {more} {b.name}: {f.usd(a.cost.training_usd)} against "
        f"{f.usd(b.cost.training_usd)}."
    )


def _find_pair(crossings: Iterable[BreakEven], own: str, hosted: str) -> BreakEven | None:
    """Return the break-even of a pair; None without one."""
    return next((each for each in crossings if (each.own, each.hosted) == (own, hosted)), None)


def _format_score(contender: ContenderResult, metric: str) -> str:
    """Return a contender's score in words."""
    value = get_metric_value(contender, metric)
    return f"{f.words(metric)} {f.score(value, f.is_share(value))}"
