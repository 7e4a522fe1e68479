"""The price of a contender, or the sentence that says why it has none.

A contender pays a provider or it does not (`is_hosted`); a model ends on a day (`explain_ended`);
a price may be missing (`explain_missing_price`). A server on this machine has no price.
"""

from __future__ import annotations

import datetime
from typing import Any, TypedDict

from tuneoff import environment
from tuneoff.config.contenders import HostedConfig, PromptedConfig
from tuneoff.config.schema import BakeOff
from tuneoff.costs.price_book import (
    Price,
    PriceBook,
    build_price_book,
    explain_no_price,
    find_model_price,
)
from tuneoff.costs.price_file import Method
from tuneoff.errors import ConfigError
from tuneoff.providers.http_errors import is_loopback
from tuneoff.scoring.questions import ScoringModel

PaidConfig = HostedConfig | PromptedConfig


class _PriceVariant(TypedDict):
    """Which of a model's prices is meant."""

    tuned: bool
    method: Method


def is_hosted(settings: Any) -> bool:
    """Return whether a contender's work is done by a provider."""
    return isinstance(settings, HostedConfig) or (
        isinstance(settings, PromptedConfig) and settings.model is not None
    )


def explain_refusal_today(settings: Any, prices: PriceBook) -> str | None:
    """Explain why a run that begins today would refuse a contender; None where it would not.

    A refusal for a missing price can be answered with --yes.
    """
    if not is_hosted(settings):
        return None
    today = environment.today()
    return explain_ended(settings, prices, today) or explain_missing_price(settings, prices, today)


def build_judge_name(settings: ScoringModel) -> str:
    """Return the name of a judge or grader in the ledger; no contender can have this name."""
    return f"judge:{settings.model}"


def find_judge_price(settings: ScoringModel, prices: PriceBook) -> tuple[Price | None, str | None]:
    """Return a judge's price of today, or a sentence that it has none.

    Both are None for a judge that needs no price.
    """
    if is_free_local_server(settings):
        return None, None
    price = find_model_price(
        settings.provider, settings.model, override=settings.price, prices=prices
    )
    if price is not None and price.input_usd_per_million_tokens is not None:
        return price, None
    return None, (
        f"the judge {settings.model} has no price in the book, so what it costs is not "
        "counted; give it a `price:`."
    )


def explain_ended(
    settings: Any, prices: PriceBook, day: datetime.date, tuned: bool = False
) -> str | None:
    """Explain that a provider no longer offers a contender's model on a day, or no longer tunes it.

    None where there is nothing to say. A model that is `tuned` already needs no more tuning.
    """
    if not is_hosted(settings) or is_outside_price_book(settings):
        return None
    provider = settings.provider or "openai"
    end = prices.find_model_end(provider, settings.model, isinstance(settings, HostedConfig))
    if end is None:
        return None
    instead = f"; its provider names {end.replacement} instead" if end.replacement else ""
    if end.ends is not None and end.ends <= day:
        return (
            f"contender {settings.name}: {provider}'s {settings.model} ended on "
            f"{end.ends}{instead}. Take another model."
        )
    to_tune = isinstance(settings, HostedConfig) and not tuned
    if to_tune and end.training_ends and end.training_ends <= day:
        return (
            f"contender {settings.name}: {provider} takes no new fine-tuning jobs for "
            f"{settings.model} since {end.training_ends}{instead}. Take another model, or tune an "
            "open one (id: local)."
        )
    return None


def check_not_ended(
    settings: Any, prices: PriceBook, day: datetime.date, tuned: bool = False
) -> None:
    """Raise ConfigError for a model that has `explain_ended`."""
    sentence = explain_ended(settings, prices, day, tuned)
    if sentence is not None:
        raise ConfigError(sentence)


def is_outside_price_book(settings: Any) -> bool:
    """Return whether the price book's end dates do not apply, because another server answers.

    On Azure each resource has an address of its own, and a prompted model has whatever name its
    owner gave it there.
    """
    url = getattr(settings, "base_url", None)
    if url is None:
        return False
    return settings.provider != "azure" or settings.id != "hosted" or is_loopback(url)


def is_free_local_server(settings: PaidConfig | ScoringModel) -> bool:
    """Return whether it is the user's own server on this machine, without a price."""
    own = settings.base_url is not None and is_loopback(settings.base_url)
    return own and settings.price is None


def find_contender_price(
    settings: PaidConfig, prices: PriceBook, day: datetime.date
) -> Price | None:
    """Return the price of a contender's model on a day; None where there is none."""
    provider, model, kind = _identify_price(settings)
    return find_model_price(provider, model, day, settings.price, **kind, prices=prices)


def explain_missing_price(
    settings: PaidConfig, prices: PriceBook, day: datetime.date
) -> str | None:
    """Explain which price a contender's model lacks on a day, and what to do; None if none."""
    if is_free_local_server(settings):
        return None
    price = find_contender_price(settings, prices, day)
    if price is None:
        provider, model, kind = _identify_price(settings)
        return explain_no_price(settings.name, provider, model, day, **kind, prices=prices)
    # A deployment may be billed by its hours, and nothing else.
    answering = () if price.hosting_usd_per_hour is not None else ("input", "output")
    needed = (("training",) if isinstance(settings, HostedConfig) else ()) + answering
    names = [f"{what}_usd_per_million_tokens" for what in needed]
    lacking = [name for name in names if getattr(price, name) is None]
    if not lacking:
        return None
    return (
        f"contender {settings.name}: its price lacks {', '.join(lacking)} (from {price.source}); "
        "add it to `price:` in the file, or run with --yes."
    )


def _identify_price(settings: PaidConfig) -> tuple[str, str, _PriceVariant]:
    """Return the provider, the model, and which of the model's prices is meant."""
    tuned = isinstance(settings, HostedConfig)
    method: Method = "lora"
    if isinstance(settings, HostedConfig) and settings.method == "full":
        method = "full"
    return settings.provider or "openai", str(settings.model), {"tuned": tuned, "method": method}


def _find_counted_price(
    settings: PaidConfig, prices: PriceBook, day: datetime.date
) -> Price | None:
    """Return the price at which a contender's steps are counted; None where they are not."""
    return None if is_free_local_server(settings) else find_contender_price(settings, prices, day)


def load_price_book(bakeoff: BakeOff) -> PriceBook:
    """Return the price book behind the file's own `prices:`.

    Raises:
        ConfigError: that file cannot be read.
    """
    return build_price_book(bakeoff.path(bakeoff.prices) if bakeoff.prices else None)
