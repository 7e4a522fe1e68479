"""What a provider's models will be billed: exact token counts times dated prices."""

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
    """A model tuned through a provider's API, and then answering the test set."""
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
    """A provider's model that only answers the test set."""
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
    """The price of a contender's model, and what is to be said about it."""
    if asks_nothing(settings):
        return None, []
    price, unpriced = price_for(settings, prices, day), without_full_price(settings, prices, day)
    said = [] if unpriced is None else [unpriced]
    if price is None:
        provider = settings.provider or "openai"
        return None, [*said, *_ended(provider, model, prices, day, tuned)]
    warnings = [*said, *lifetime(price, model, day, trains=tuned)]
    if price.stale:
        warnings.append(
            f"the price of {model} was read on {price.retrieved}, more than {STALE_DAYS} days "
            f"before; look again: {price.source}."
        )
    return price, warnings


def _ended(
    provider: str, model: str, prices: PriceBook, day: datetime.date, tuned: bool
) -> list[str]:
    """A model without a price may have none because it ended."""
    end = prices.end_of(provider, model, tuned)
    if end is None:
        return []
    gone = Price(ends=end.ends, training_ends=end.training_ends, replacement=end.replacement)
    return lifetime(gone, model, day, trains=tuned)


def _answering(
    settings: HostedSettings | PromptedSettings,
    model: str,
    price: Price | None,
    test: Tally,
    warnings: list[str],
) -> float | None:
    """Return the USD of answering the test set as often as it is asked; None without a price.

    Prompts that are long enough are counted as written to the provider's cache, answers as long as
    the references, with all the reasoning that they may have.
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
    return price.source + (f", read {price.retrieved}" if price.retrieved else "")


def _float(usd: Decimal | None) -> float | None:
    return None if usd is None else float(usd)
