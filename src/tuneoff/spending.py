"""What a run may spend, settled before anything is paid: prices, models that have ended, the
most that all steps together can cost.

A run pays today's prices, whatever `as_of` says. A server on this machine has no price.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any, TypedDict

from tuneoff.config import BakeOff, HostedSettings, JudgeSettings, PromptedSettings
from tuneoff.contenders import Contender, Work, load_contender
from tuneoff.costs.ledger import Ledger, Purse
from tuneoff.costs.pricebook import Price, PriceBook, no_price, price_of
from tuneoff.costs.pricefile import Method
from tuneoff.errors import ConfigError
from tuneoff.prepare import price_book
from tuneoff.providers.sdk import is_here
from tuneoff.rundir import NOWHERE, RunDir

Paid = HostedSettings | PromptedSettings


class _Kind(TypedDict):
    tuned: bool
    method: Method


def paid(settings: Any) -> bool:
    """Whether a contender's work is done by a provider."""
    return isinstance(settings, HostedSettings) or (
        isinstance(settings, PromptedSettings) and settings.model is not None
    )


def with_guards(
    bakeoff: BakeOff,
    chosen: Iterable[Any],
    work: Mapping[str, Work],
    ledger: Ledger,
    yes: bool,
    forgotten: str | None = None,
    kind_of: Callable[[Any], Contender] | None = None,
) -> dict[str, Work]:
    """The same work, where a provider is paid with a guard that knows the money.

    Args:
        yes: a model without a price may be used all the same; it is not counted.
        forgotten: the contender that begins anew.
        kind_of: who does a contender's work, if not this process.

    Raises:
        ConfigError: a key is missing, a model has no price, or has ended.
        BudgetError: all that is left to do could pass the budget.
    """
    prices, found, most = price_book(bakeoff), dict(work), Decimal(0)
    for settings in chosen:
        mine = work[settings.name]
        if settings.name == forgotten:
            mine = replace(mine, directory=NOWHERE)
        kind = kind_of(settings) if kind_of else load_contender(settings.id)
        kind.ready(settings, mine)
        if not paid(settings) or _is_done(mine):
            continue
        if mine.replay is not None:
            ledger.adopt(RunDir(mine.replay.path.parent.parent).events, settings.name)
            continue
        tuned = bool(mine.directory.job().get("job_id"))
        refuse_ended(settings, prices, datetime.date.today(), tuned)
        price = _price(settings, prices, yes)
        purse = ledger.purse(settings.name, price)
        found[settings.name] = replace(work[settings.name], guard=purse)
        bound: Any = kind
        training, asked, answered = bound.most_tokens(settings, mine)
        most += purse.usd(training, asked, answered, batch=settings.batch)
    if most:
        ledger.refuse_over(most, "what is left to do")
    return found


def judges(bakeoff: BakeOff) -> list[JudgeSettings]:
    """The judges among a file's metrics."""
    return [each for each in bakeoff.task.metrics or () if isinstance(each, JudgeSettings)]


def judge_name(settings: JudgeSettings) -> str:
    """Whose spending a judge's is, in the ledger; no contender can have this name."""
    return f"judge:{settings.model}"


def judge_purse(bakeoff: BakeOff, ledger: Ledger) -> tuple[Purse | None, str | None]:
    """What a file's judge is paid from, at today's prices; None where there is none, or it has no
    price, which a sentence then says."""
    for settings in judges(bakeoff):
        if asks_nothing(settings):
            return None, None
        price = price_of(
            settings.provider,
            settings.model,
            override=settings.price,
            prices=price_book(bakeoff),
        )
        if price is None or price.input_usd_per_million_tokens is None:
            return None, (
                f"the judge {settings.model} has no price in the book, so what it costs is not "
                "counted; give it a `price:`."
            )
        return ledger.purse(judge_name(settings), price), None
    return None, None


def refuse_ended(settings: Any, prices: PriceBook, day: datetime.date, tuned: bool = False) -> None:
    """Raises ConfigError for a model that its provider no longer offers, or no longer tunes,
    unless it is `tuned` already."""
    if not paid(settings) or settings.base_url is not None:
        return
    provider = settings.provider or "openai"
    end = prices.end_of(provider, settings.model)
    if end is None:
        return
    instead = f"; its provider names {end.replacement} instead" if end.replacement else ""
    if end.ends is not None and end.ends <= day:
        raise ConfigError(
            f"contender {settings.name}: {provider}'s {settings.model} ended on "
            f"{end.ends}{instead}. Take another model."
        )
    to_tune = isinstance(settings, HostedSettings) and not tuned
    if to_tune and end.training_ends and end.training_ends <= day:
        raise ConfigError(
            f"contender {settings.name}: {provider} takes no new fine-tuning jobs for "
            f"{settings.model} since {end.training_ends}{instead}. Take another model, or tune an "
            "open one (id: local)."
        )


def _is_done(work: Work) -> bool:
    return len(work.directory.predictions()) >= len(work.test)


def asks_nothing(settings: Paid | JudgeSettings) -> bool:
    """Whether it is a server of one's own, on this machine, that no price was given for."""
    own = settings.base_url is not None and is_here(settings.base_url)
    return own and settings.price is None


def price_for(settings: Paid, prices: PriceBook, day: datetime.date) -> Price | None:
    """The price of a contender's model on a day; None where there is none."""
    provider, model, kind = _identity(settings)
    return price_of(provider, model, day, settings.price, **kind, prices=prices)


def without_price(settings: Paid, prices: PriceBook, day: datetime.date) -> str:
    """One sentence about a contender whose model has none, and what to do."""
    provider, model, kind = _identity(settings)
    return no_price(settings.name, provider, model, day, **kind, prices=prices)


def _identity(settings: Paid) -> tuple[str, str, _Kind]:
    """Provider and model, and which of the model's prices is meant."""
    tuned = isinstance(settings, HostedSettings)
    method: Method = "lora"
    if isinstance(settings, HostedSettings) and settings.method == "full":
        method = "full"
    return settings.provider or "openai", str(settings.model), {"tuned": tuned, "method": method}


def _price(settings: Paid, prices: PriceBook, yes: bool) -> Price | None:
    if asks_nothing(settings):
        return None
    today = datetime.date.today()
    price = price_for(settings, prices, today)
    if yes:
        return price
    if price is None:
        raise ConfigError(without_price(settings, prices, today))
    # A deployment may be billed by its hours, and nothing else.
    answering = () if price.hosting_usd_per_hour is not None else ("input", "output")
    needed = (("training",) if isinstance(settings, HostedSettings) else ()) + answering
    names = [f"{what}_usd_per_million_tokens" for what in needed]
    lacking = [name for name in names if getattr(price, name) is None]
    if lacking:
        raise ConfigError(
            f"contender {settings.name}: its price lacks {', '.join(lacking)} (from "
            f"{price.source}); add it to `price:` in the file, or run with --yes."
        )
    return price
