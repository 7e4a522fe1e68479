"""The costs section of the report: training, answering, and the break-even of owning.

Every figure is one of `results.json`. Where there is none, its basis says why, and the table shows
that instead of a zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tuneoff.report import format as f
from tuneoff.report import ownership
from tuneoff.results import BreakEven, ContenderResult, Cost, Results, Sensitivity

View = dict[str, Any]
Column = tuple[str, Callable[[Cost], float | None]]
# Max pairs of an own and a hosted model on the page.
MAX_PAIRS = 5
TRAINING_COLUMNS: tuple[Column, ...] = (
    ("training", lambda c: c.training_usd),
    ("training, planned", lambda c: c.training_usd_planned),
    ("answering the test set", lambda c: c.answering_usd),
)
SERVING_COLUMNS: tuple[Column, ...] = (
    ("1,000 requests", lambda c: c.serving_usd_per_1k_requests),
    ("a month, whatever is asked", lambda c: c.fixed_usd_per_month),
    ("a right answer", lambda c: c.usd_per_correct_answer),
)
CHANGES = {
    "utilization": "used to {share} of what it can do",
    "usd_per_hour": "an hour at {times} the price",
    "hosted_usd_per_request": "the provider at {times} the price",
}
FACTORS = {0.5: "half", 2.0: "twice"}


def build_money_view(results: Results, contenders: Sequence[ContenderResult]) -> View:
    """Return the view of the section: costs, their basis, and break-even."""
    shown = [c for c in contenders if c.error is None]
    before = [column for column in TRAINING_COLUMNS if _has_any(shown, column)]
    after = [column for column in SERVING_COLUMNS if _has_any(shown, column)]
    every = any(c.all_trainings and c.all_trainings.usd is not None for c in shown)
    return {
        "columns": [label for label, _ in (*before, *after)] + ["all trainings"] * every,
        "rows": [_build_row(c, before, after, every) for c in shown],
        "notes": [(c.name, lines) for c in shown if (lines := _describe_basis(c.cost))],
        "ratios": ownership.describe_ratios(shown),
        "load": _describe_load(results),
        "judge": _describe_judge(results),
        "pays": _build_break_even(results.break_even),
    }


def _has_any(contenders: Sequence[ContenderResult], column: Column) -> bool:
    """Return whether any contender has a value in a column."""
    return any(column[1](c.cost) is not None for c in contenders)


def _build_row(
    contender: ContenderResult, before: Sequence[Column], after: Sequence[Column], every: bool
) -> View:
    """Return a contender's cells as (text, columns that it spans)."""
    cost, cells = contender.cost, list[tuple[str, int]]()
    if not any(column(cost) is not None for _, column in (*before, *after)):
        wide = max(1, len(before) + len(after) + every)
        return {"name": contender.name, "cells": [(_explain_unpriced(contender), wide)]}
    cells += [(f.usd(column(cost)), 1) for _, column in before]
    if after and all(column(cost) is None for _, column in after):
        cells.append((_explain_unpriced(contender), len(after)))
    else:
        cells += [(f.usd(column(cost)), 1) for _, column in after]
    if every:
        cells.append((f.usd(contender.all_trainings.usd if contender.all_trainings else None), 1))
    return {"name": contender.name, "cells": cells}


def _explain_unpriced(contender: ContenderResult) -> str:
    """Return why a contender's answers have no price: its basis."""
    return contender.cost.serving_basis or f.MISSING


def _describe_basis(cost: Cost) -> list[str]:
    """Return the basis of a contender's costs, as labelled sentences."""
    sentences = []
    if cost.training_basis:
        sentences.append(f"training: {cost.training_basis}.")
    if cost.all_answers_usd is not None:
        sentences.append(f"all answers to the test set: {f.usd(cost.all_answers_usd)}.")
    if cost.serving_basis and cost.serving_usd_per_1k_requests is not None:
        sentences.append(f"answering: {cost.serving_basis}.")
    if cost.price_sources and sentences:
        sentences.append(f"prices: {'; '.join(cost.price_sources)}.")
    return sentences


def _describe_judge(results: Results) -> str:
    """Return the sentence on the judge's cost; empty without one."""
    if results.judge_usd is None:
        return ""
    return f"The judge's answers cost {f.usd(results.judge_usd)} beside all of this."


def _describe_load(results: Results) -> str:
    """Return the load that the costs of answering are for, as a sentence."""
    rules = results.settings.get("serving") or {}
    if not any(c.cost.serving_usd_per_1k_requests is not None for c in results.contenders):
        return ""
    requests = rules.get("requests_per_month")
    if requests:
        return f"1,000 requests: of {f.count(requests)} a month, what is due anyway included."
    return (
        "1,000 requests: of an own model on a machine that is used as serving.utilization says "
        f"({f.percent(rules.get('utilization', 0.5), '%').replace('.0%', '%')}), of a provider's "
        "without what is due anyway; serving.requests_per_month in the file says how many come."
    )


def _build_break_even(pairs: Sequence[BreakEven]) -> View:
    """Return the table of break-even: pairs as columns, rows as measured and with one assumption
    changed."""
    shown = sorted(pairs, key=_get_rank)[:MAX_PAIRS]
    changed = [(s.what, s.value) for s in shown[0].sensitivity] if shown else []
    changed.sort(key=lambda each: list(CHANGES).index(each[0]))
    rows = [("as measured", [_format_break_even(pair) for pair in shown])]
    rows += [
        (_describe_change(*each), [_format_changed(pair, *each) for pair in shown])
        for each in changed
    ]
    return {
        "pairs": [(pair.own, pair.hosted) for pair in shown],
        "rows": rows if shown else [],
        "sentences": [ownership.describe_crossing(pair) for pair in shown],
        "left_out": max(0, len(pairs) - MAX_PAIRS),
    }


def _get_rank(pair: BreakEven) -> tuple[bool, float]:
    """Return the sort key of a pair: the earliest lasting crossing first."""
    first = pair.first_requests_per_month
    lasting = pair.requests_per_month
    return lasting is None and first is None, lasting if lasting is not None else first or 0.0


def _format_break_even(pair: BreakEven | Sensitivity) -> str:
    """Return from when to when owning is cheaper, or that it never is, as a table's cell."""
    first, lasting = pair.first_requests_per_month, pair.requests_per_month
    if first is None:
        return "never"
    begins = f.large(first) if first else "always"
    if lasting is not None:
        return begins if lasting == first else f"{begins}; for good {f.large(lasting)}"
    until = pair.until_requests_per_month
    return f"{begins} where full" if until is None else f"{f.large(first)} to {f.large(until)}"


def _format_changed(pair: BreakEven, what: str, value: float) -> str:
    """Return the cell of a pair with one assumption changed."""
    changed = next((s for s in pair.sensitivity if (s.what, s.value) == (what, value)), None)
    return f.MISSING if changed is None else _format_break_even(changed)


def _describe_change(what: str, value: float) -> str:
    """Return the changed assumption in words."""
    share = f.percent(value).replace(".0%", "%")
    return CHANGES[what].format(share=share, times=FACTORS.get(value, f"{value:g} times"))
