"""Whether an organisation can still tune new models, as far as dates and its own jobs show.

No job is ever created to find out.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import Any

from tuneoff.costs.price_book import PriceBook

# OpenAI's self-serve fine-tuning, by its deprecations page
# (https://developers.openai.com/api/docs/deprecations, read in November 2026). From this day,
# organisations that never tuned create no jobs.
NEVER_TUNED_FROM = datetime.date(2026, 5, 7)
# From this day, nor do those that asked no tuned model within this number of days before.
IDLE_FROM, IDLE_DAYS = datetime.date(2026, 7, 2), 60
# From this day, nobody does.
CLOSED_FROM = datetime.date(2027, 1, 6)
LAST_DAY = CLOSED_FROM - datetime.timedelta(days=1)


def judge_new_jobs(
    provider: str,
    base_url: str | None,
    has_jobs: bool | None,
    bases: Iterable[str],
    prices: PriceBook,
    today: datetime.date,
) -> dict[str, Any]:
    """Return whether new fine-tuning jobs are possible, until when, and by which rule.

    Args:
        base_url: an address other than the provider's own, about which nothing is known.
        has_jobs: whether the account shows any job; None if the key may not list them.
        bases: the base models of the account's tuned models.

    Returns:
        `possible` (`no`, `perhaps`, `not known`), `until` (the last day), `rule`, `sentence`.
    """
    if provider == "azure":
        return _judge_azure(bases, prices, today)
    if provider != "openai" or base_url is not None:
        where = base_url or provider
        sentence = f"Until when {where} takes new fine-tuning jobs is not known here."
        return _build_verdict("not known", None, "not known", sentence)
    if today >= CLOSED_FROM:
        sentence = f"OpenAI takes no new fine-tuning jobs from anybody since {CLOSED_FROM}."
        return _build_verdict("no", LAST_DAY, "closed", sentence)
    if has_jobs is None:
        return _build_verdict(
            "not known", LAST_DAY, "jobs not seen",
            "Your key may not list fine-tuning jobs, so whether OpenAI takes new ones of yours is "
            f"not known; after {LAST_DAY} it takes none from anybody.",
        )  # fmt: skip
    if not has_jobs:
        return _build_verdict(
            "no", NEVER_TUNED_FROM - datetime.timedelta(days=1), "never tuned",
            "Your key sees no fine-tuning job. OpenAI takes none from organisations that never "
            f"tuned since {NEVER_TUNED_FROM}. If yours did in another project, give a key of that.",
        )  # fmt: skip
    return _build_verdict(
        "perhaps", LAST_DAY, "asked within 60 days",
        f"OpenAI takes new fine-tuning jobs until {LAST_DAY}, and yours only if a tuned model was "
        f"asked within {IDLE_DAYS} days (its rule since {IDLE_FROM}); when yours were asked last "
        "is not known here.",
    )  # fmt: skip


def _judge_azure(bases: Iterable[str], prices: PriceBook, today: datetime.date) -> dict[str, Any]:
    """Return the same for Azure, by the price book's dates for each base.

    `until` is the last day of the base that ends last.
    """
    days = dict[str, datetime.date]()
    for base in sorted(set(bases)):
        end = prices.find_model_end("azure", base, tuned=True)
        if end is not None and end.training_ends is not None:
            days[base] = end.training_ends
    if not days:
        sentence = "Until when Azure takes new fine-tuning jobs of yours is not known here."
        return _build_verdict("not known", None, "not known", sentence)
    last = max(days.values())
    if last <= today:
        since = ", ".join(f"{base} since {day}" for base, day in days.items())
        return _build_verdict(
            "not known", last, "existing customers",
            "Azure's schedule names these days as the earliest on which new fine-tuning jobs may "
            f"end, and they are past: {since}.",
        )  # fmt: skip
    until = ", ".join(f"{base} until {day}" for base, day in days.items())
    return _build_verdict(
        "perhaps", last, "existing customers",
        f"Azure takes new fine-tuning jobs of existing customers at least so long: {until}.",
    )  # fmt: skip


def _build_verdict(
    possible: str, until: datetime.date | None, rule: str, sentence: str
) -> dict[str, Any]:
    """Return the verdict as plain values."""
    last = until.isoformat() if until else None
    return {"possible": possible, "until": last, "rule": rule, "sentence": sentence}
