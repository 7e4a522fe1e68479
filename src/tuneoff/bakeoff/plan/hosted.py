"""Expected bills of providers' models: exact token counts times dated prices."""

from __future__ import annotations

import datetime
from decimal import Decimal

from tuneoff.bakeoff.budget import explain_doubts
from tuneoff.bakeoff.plan.schema import PlannedContender, PlannedTraining
from tuneoff.bakeoff.plan.token_counts import SplitTallies, TokenTally
from tuneoff.config.contenders import HostedConfig, PromptedConfig
from tuneoff.contenders.hosted_inference import count_max_output_tokens
from tuneoff.costs.contender_prices import (
    explain_missing_price,
    find_contender_price,
    is_free_local_server,
)
from tuneoff.costs.price_book import STALE_DAYS, Price, PriceBook, explain_lifetime
from tuneoff.costs.token_costs import price_answers, price_training
from tuneoff.providers import base
from tuneoff.records import SPLITS
from tuneoff.tokenization.openai import MIN_CACHED_PROMPT


def plan_hosted(
    settings: HostedConfig,
    tallies: SplitTallies,
    prices: PriceBook,
    day: datetime.date,
    max_new_tokens: int,
) -> PlannedContender:
    """Return the plan of a model tuned through a provider's API that answers the test set."""
    train, validation, test = (tallies[split] for split in SPLITS)
    schedule: base.Schedule = base.load_provider_module(settings.provider).schedule(
        settings.epochs, train.examples, validation.examples > 0
    )
    per_epoch, validated = (
        train.scale_to_split(train.whole),
        validation.scale_to_split(validation.whole),
    )
    billed = schedule.billed(per_epoch, validated)
    price, warnings = _find_price(settings, settings.model, prices, day, tuned=True)
    warnings += explain_doubts(settings, prices, day, max_new_tokens)
    usd = price_training(price, billed) if price else None
    if train.cut:
        warnings.append(f"{train.cut} examples are longer than the model is trained on; cut there.")
    per_million = price.training_usd_per_million_tokens if price else None
    rate = (
        f" × ${per_million:f} per million ({_format_origin(price)})"
        if price and per_million
        else ""
    )
    training = PlannedTraining(
        examples=train.examples,
        epochs=schedule.epochs,
        tokens_per_epoch=per_epoch,
        tokens_billed=billed,
        seconds=None,
        memory_bytes=None,
        usd=_to_float(usd),
        basis=f"{_format_tokens(schedule, per_epoch, validated)}{rate}",
    )
    return PlannedContender(
        name=settings.name,
        id=settings.id,
        training=training,
        answering_usd=_price_answering(settings, settings.model, price, test, warnings),
        ends=price.ends if price else None,
        warnings=tuple(warnings),
        samples=settings.samples,
    )


def _format_tokens(schedule: base.Schedule, per_epoch: int, validated: int) -> str:
    """Return the billed tokens as a formula."""
    trained = f"{per_epoch:,} tokens × {schedule.epochs} epochs"
    if not schedule.validations:
        return trained
    return f"({trained} + {validated:,} validation tokens × {schedule.validations})"


def plan_answers(
    settings: PromptedConfig,
    tallies: SplitTallies,
    prices: PriceBook,
    day: datetime.date,
    max_new_tokens: int,
) -> PlannedContender:
    """Return the plan of a provider's model that only answers the test set."""
    model = settings.model or ""
    price, warnings = _find_price(settings, model, prices, day, tuned=False)
    warnings += explain_doubts(settings, prices, day, max_new_tokens)
    return PlannedContender(
        name=settings.name,
        id=settings.id,
        answering_usd=_price_answering(settings, model, price, tallies["test"], warnings),
        ends=price.ends if price else None,
        warnings=tuple(warnings),
        samples=settings.samples,
    )


def _find_price(
    settings: HostedConfig | PromptedConfig,
    model: str,
    prices: PriceBook,
    day: datetime.date,
    tuned: bool,
) -> tuple[Price | None, list[str]]:
    """Return the price of a contender's model, and warnings about it."""
    if is_free_local_server(settings):
        return None, []
    price, unpriced = (
        find_contender_price(settings, prices, day),
        explain_missing_price(settings, prices, day),
    )
    sentences = [] if unpriced is None else [unpriced]
    if price is None:
        provider = settings.provider or "openai"
        return None, [*sentences, *_explain_end(provider, model, prices, day, tuned)]
    warnings = [*sentences, *explain_lifetime(price, model, day, trains=tuned)]
    if price.stale:
        warnings.append(
            f"the price of {model} was read on {price.retrieved}, more than {STALE_DAYS} days "
            f"before; look again: {price.source}."
        )
    return price, warnings


def _explain_end(
    provider: str, model: str, prices: PriceBook, day: datetime.date, tuned: bool
) -> list[str]:
    """Return sentences about the end of a model that has no price."""
    end = prices.find_model_end(provider, model, tuned)
    if end is None:
        return []
    price = Price(ends=end.ends, training_ends=end.training_ends, replacement=end.replacement)
    return explain_lifetime(price, model, day, trains=tuned)


def _price_answering(
    settings: HostedConfig | PromptedConfig,
    model: str,
    price: Price | None,
    test: TokenTally,
    warnings: list[str],
) -> float | None:
    """Return the USD of answering the test set with all samples; None without a price.

    Prompts that are long enough count as written to the provider's cache. Answers count as long as
    the references, with the maximum reasoning.
    """
    times = settings.samples
    if times > 1:
        warnings.append(
            f"each test example is asked {times} times (samples); the cost of answering is for all "
            f"{times * test.examples:,} answers."
        )
    if price is None:
        return None
    reasoning = count_max_output_tokens(settings, 0)
    usd = price_answers(
        price,
        times * test.scale_to_split(test.prompt),
        times * (test.scale_to_split(test.completion) + reasoning * test.examples),
        batch=settings.batch,
        written_tokens_in=times * test.scale_to_split(test.cacheable),
    )
    if reasoning:
        warnings.append(
            f"each answer is counted with {reasoning:,} tokens of reasoning (reasoning_tokens), "
            "the most that it may take."
        )
    write = price.cache_write_usd_per_million_tokens
    if write is not None and test.cacheable:
        warnings.append(
            f"prompts of {MIN_CACHED_PROMPT:,} tokens and more are counted as written to the "
            "provider's "
            f"cache, at ${write:f} per million; what it reads from there costs less."
        )
    limit = price.long_prompt_tokens
    if limit is not None and test.longest_prompt > limit:
        warnings.append(
            f"the longest test prompt has {test.longest_prompt:,} tokens, and prompts of more than "
            f"{limit:,} cost more than the price book says; that is not counted, nor part of the "
            "most."
        )
    hour = price.hosting_usd_per_hour
    if usd is None and hour is not None:
        warnings.append(f"answers of {model} are billed by the hour, ${hour:f}; not counted.")
    return _to_float(usd)


def _format_origin(price: Price) -> str:
    """Return the source of a price and the day it was read."""
    return price.source + (f", read {price.retrieved}" if price.retrieved else "")


def _to_float(usd: Decimal | None) -> float | None:
    """Return USD as a float; None where not known."""
    return None if usd is None else float(usd)
