"""Expected bills of providers' models: exact token counts times dated prices."""

from __future__ import annotations

import datetime
from decimal import Decimal

from tuneoff import providers
from tuneoff.billing import CACHED_FROM
from tuneoff.contender_settings import HostedSettings, PromptedSettings
from tuneoff.contenders.asking import max_output_tokens
from tuneoff.costs.arithmetic import answering_usd, training_usd
from tuneoff.costs.pricebook import STALE_DAYS, Price, PriceBook, lifetime
from tuneoff.planning.counting import Tallies, Tally
from tuneoff.planning.schema import PlannedContender, PlannedTraining
from tuneoff.records import SPLITS
from tuneoff.spending import asks_nothing, explain_doubts, price_for, without_full_price


def planned_hosted(
    settings: HostedSettings,
    tallies: Tallies,
    prices: PriceBook,
    day: datetime.date,
    max_new_tokens: int,
) -> PlannedContender:
    """Return the plan of a model tuned through a provider's API that answers the test set."""
    train, validation, test = (tallies[split] for split in SPLITS)
    schedule: providers.Schedule = providers.module_of(settings.provider).schedule(
        settings.epochs, train.examples, validation.examples > 0
    )
    per_epoch, validated = train.of_all(train.whole), validation.of_all(validation.whole)
    billed = schedule.billed(per_epoch, validated)
    price, warnings = _price(settings, settings.model, prices, day, tuned=True)
    warnings += explain_doubts(settings, prices, day, max_new_tokens)
    usd = training_usd(price, billed) if price else None
    if train.cut:
        warnings.append(f"{train.cut} examples are longer than the model is trained on; cut there.")
    per_million = price.training_usd_per_million_tokens if price else None
    rate = f" × ${per_million:f} per million ({_origin(price)})" if price and per_million else ""
    training = PlannedTraining(
        examples=train.examples,
        epochs=schedule.epochs,
        tokens_per_epoch=per_epoch,
        tokens_billed=billed,
        seconds=None,
        memory_bytes=None,
        usd=_float(usd),
        basis=f"{_counted(schedule, per_epoch, validated)}{rate}",
    )
    return PlannedContender(
        name=settings.name,
        id=settings.id,
        training=training,
        answering_usd=_answering(settings, settings.model, price, test, warnings),
        ends=price.ends if price else None,
        warnings=tuple(warnings),
        samples=settings.samples,
    )


def _counted(schedule: providers.Schedule, per_epoch: int, validated: int) -> str:
    """Return the billed tokens as a formula."""
    trained = f"{per_epoch:,} tokens × {schedule.epochs} epochs"
    if not schedule.validations:
        return trained
    return f"({trained} + {validated:,} validation tokens × {schedule.validations})"


def planned_answers(
    settings: PromptedSettings,
    tallies: Tallies,
    prices: PriceBook,
    day: datetime.date,
    max_new_tokens: int,
) -> PlannedContender:
    """Return the plan of a provider's model that only answers the test set."""
    model = settings.model or ""
    price, warnings = _price(settings, model, prices, day, tuned=False)
    warnings += explain_doubts(settings, prices, day, max_new_tokens)
    return PlannedContender(
        name=settings.name,
        id=settings.id,
        answering_usd=_answering(settings, model, price, tallies["test"], warnings),
        ends=price.ends if price else None,
        warnings=tuple(warnings),
        samples=settings.samples,
    )


def _price(
    settings: HostedSettings | PromptedSettings,
    model: str,
    prices: PriceBook,
    day: datetime.date,
    tuned: bool,
) -> tuple[Price | None, list[str]]:
    """Return the price of a contender's model, and warnings about it."""
    if asks_nothing(settings):
        return None, []
    price, unpriced = price_for(settings, prices, day), without_full_price(settings, prices, day)
    sentences = [] if unpriced is None else [unpriced]
    if price is None:
        provider = settings.provider or "openai"
        return None, [*sentences, *_ended(provider, model, prices, day, tuned)]
    warnings = [*sentences, *lifetime(price, model, day, trains=tuned)]
    if price.stale:
        warnings.append(
            f"the price of {model} was read on {price.retrieved}, more than {STALE_DAYS} days "
            f"before; look again: {price.source}."
        )
    return price, warnings


def _ended(
    provider: str, model: str, prices: PriceBook, day: datetime.date, tuned: bool
) -> list[str]:
    """Return sentences about the end of a model that has no price."""
    end = prices.end_of(provider, model, tuned)
    if end is None:
        return []
    price = Price(ends=end.ends, training_ends=end.training_ends, replacement=end.replacement)
    return lifetime(price, model, day, trains=tuned)


def _answering(
    settings: HostedSettings | PromptedSettings,
    model: str,
    price: Price | None,
    test: Tally,
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
    reasoning = max_output_tokens(settings, 0)
    usd = answering_usd(
        price,
        times * test.of_all(test.prompt),
        times * (test.of_all(test.completion) + reasoning * test.examples),
        batch=settings.batch,
        written_tokens_in=times * test.of_all(test.cacheable),
    )
    if reasoning:
        warnings.append(
            f"each answer is counted with {reasoning:,} tokens of reasoning (reasoning_tokens), "
            "the most that it may take."
        )
    write = price.cache_write_usd_per_million_tokens
    if write is not None and test.cacheable:
        warnings.append(
            f"prompts of {CACHED_FROM:,} tokens and more are counted as written to the provider's "
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
    return _float(usd)


def _origin(price: Price) -> str:
    """Return the source of a price and the day it was read."""
    return price.source + (f", read {price.retrieved}" if price.retrieved else "")


def _float(usd: Decimal | None) -> float | None:
    """Return USD as a float; None where not known."""
    return None if usd is None else float(usd)
