"""Costs reported elsewhere, or computed from hours or tokens that were."""

from __future__ import annotations

import datetime
from decimal import Decimal

from tuneoff.config.contenders import RecordedConfig, ReportedTraining
from tuneoff.costs.price_book import PriceBook, add_hour_price, find_model_price, format_hour_source
from tuneoff.costs.token_costs import HOUR_SECONDS, price_hours, price_training
from tuneoff.results import Cost

# USD, how they were computed, the sources of the price, and unit prices by name.
ComputedCost = tuple[Decimal | None, str, tuple[str, ...], dict[str, float]]


def build_reported_cost(settings: RecordedConfig, prices: PriceBook, day: datetime.date) -> Cost:
    """Return the reported cost of training, and what its hours or tokens would cost.

    They are priced on a day. Where no money is reported, that price replaces it.
    """
    reported = settings.training
    if reported is None:
        return Cost()
    worked_out, how, sources, unit_prices = _compute_cost(settings, reported, prices, day)
    usd, basis = reported.usd, [how] if how else []
    if usd is None:
        usd = worked_out
    else:
        basis.insert(0, "reported")
        if worked_out is not None:
            basis[-1] += f" = ${worked_out:.3f}"
    return Cost(
        training_usd=None if usd is None else float(usd),
        training_basis="; ".join(basis),
        price_sources=(*sources, *([settings.source] if settings.source else [])),
        unit_prices=unit_prices,
    )


def _compute_cost(
    settings: RecordedConfig, reported: ReportedTraining, prices: PriceBook, day: datetime.date
) -> ComputedCost:
    """Compute the cost of reported hours or tokens at the prices of a day."""
    if reported.hours is not None and settings.hardware is not None:
        known, hour = add_hour_price(settings.hardware, prices, day)
        usd = price_hours(reported.hours * HOUR_SECONDS, known)
        if usd is not None:
            times = f" × {known.count}" if known.count > 1 else ""
            on = f" ({known.accelerator})" if known.accelerator else ""
            how = f"{reported.hours:g} h × ${known.usd_per_hour:g}/h{times}{on}"
            return (
                usd,
                how,
                (format_hour_source(hour),),
                {"usd_per_hour": known.usd_per_hour or 0.0},
            )
    if reported.tokens_billed is not None and settings.provider and settings.model:
        price = find_model_price(settings.provider, settings.model, day, tuned=True, prices=prices)
        usd = price_training(price, reported.tokens_billed) if price else None
        if price is not None and usd is not None:
            usd_per_million = price.training_usd_per_million_tokens
            how = f"{reported.tokens_billed:,} tokens × ${usd_per_million:f} per million"
            unit_prices = {"training_usd_per_million_tokens": float(usd_per_million or 0)}
            return usd, how, (price.source,), unit_prices
    hours = f"{reported.hours:g} h" if reported.hours is not None else ""
    tokens = f"{reported.tokens_billed:,} tokens" if reported.tokens_billed else ""
    return None, ", ".join(part for part in (hours, tokens) if part), (), {}
