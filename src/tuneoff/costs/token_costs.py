"""Costs of what was measured, in USD. Sums are `Decimal`; floats appear only in records."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from tuneoff.config.contenders import Hardware
from tuneoff.costs.price_book import Price
from tuneoff.results import Cost

HOUR_SECONDS = 3600
MILLION = 1_000_000


def price_tokens(tokens: int, usd_per_million_tokens: Decimal) -> Decimal:
    """Return the price of these tokens."""
    return usd_per_million_tokens * tokens / MILLION


def price_training(price: Price, tokens_billed: int) -> Decimal | None:
    """Return the price of a training job, given its billed tokens over all epochs.

    None where training has no price.
    """
    per_million = price.training_usd_per_million_tokens
    return None if per_million is None else price_tokens(tokens_billed, per_million)


@dataclass(frozen=True, slots=True)
class _TokenRates:
    """Rates in USD per million tokens."""

    input: Decimal
    """Prompt tokens."""
    cached: Decimal
    """Prompt tokens read from the provider's cache."""
    written: Decimal
    """Prompt tokens written to the provider's cache."""
    output: Decimal
    """Answer tokens."""


def _select_rates(price: Price, batch: bool) -> _TokenRates | None:
    """Return the rates that answers are billed at; None where the model has no price for them.

    Cached and written tokens without a price of their own cost as much as other prompt tokens. A
    batch without a price is billed as single requests are; its cache writes cost more than its
    prompts by the same factor as theirs.
    """
    inputs, outputs = price.input_usd_per_million_tokens, price.output_usd_per_million_tokens
    cached = price.cached_input_usd_per_million_tokens
    written = price.cache_write_usd_per_million_tokens
    if batch and price.batch_input_usd_per_million_tokens is not None:
        batch_inputs = price.batch_input_usd_per_million_tokens
        if written is not None and inputs:
            written = written * batch_inputs / inputs
        inputs, cached = batch_inputs, None
    if batch and price.batch_output_usd_per_million_tokens is not None:
        outputs = price.batch_output_usd_per_million_tokens
    if inputs is None or outputs is None:
        return None
    return _TokenRates(
        inputs,
        inputs if cached is None else cached,
        inputs if written is None else written,
        outputs,
    )


def price_answers(
    price: Price,
    tokens_in: int,
    tokens_out: int,
    cached_tokens_in: int = 0,
    batch: bool = False,
    written_tokens_in: int = 0,
) -> Decimal | None:
    """Return the price of answers; None where the model has no price for answering.

    Args:
        tokens_in: all prompt tokens, as providers report them, including those read from the cache
            or written to it.
        cached_tokens_in: tokens of `tokens_in` billed at the price of cached input.
        batch: they were requested in a batch, which has a price of its own.
        written_tokens_in: tokens of `tokens_in` billed at the price of cache writes.
    """
    rates = _select_rates(price, batch)
    if rates is None:
        return None
    return (
        price_tokens(tokens_in - cached_tokens_in - written_tokens_in, rates.input)
        + price_tokens(cached_tokens_in, rates.cached)
        + price_tokens(written_tokens_in, rates.written)
        + price_tokens(tokens_out, rates.output)
    )


def price_known_tokens(
    price: Price | None,
    training: int,
    tokens_in: int,
    tokens_out: int,
    cached_tokens_in: int = 0,
    batch: bool = False,
    written_tokens_in: int = 0,
) -> Decimal:
    """Return the price of a step's tokens; tokens without a price count as 0."""
    if price is None:
        return Decimal()
    trained = price_training(price, training) if training else None
    answered = None
    if tokens_in or tokens_out:
        answered = price_answers(
            price, tokens_in, tokens_out, cached_tokens_in, batch, written_tokens_in
        )
    return (trained or Decimal()) + (answered or Decimal())


def price_max_tokens(
    price: Price | None, training: int, tokens_in: int, tokens_out: int, batch: bool = False
) -> Decimal:
    """Return the maximum price of a step with these tokens, as far as prices are known.

    Nobody knows beforehand which prompt tokens will be read from the cache or written to it, so
    each one counts at the highest of the three rates.
    """
    if price is None:
        return Decimal()
    rates = _select_rates(price, batch)
    answered = Decimal()
    if rates is not None:
        dearest = max(rates.input, rates.cached, rates.written)
        answered = price_tokens(tokens_in, dearest) + price_tokens(tokens_out, rates.output)
    trained = price_training(price, training)
    return (trained or Decimal()) + answered


def price_hours(seconds: float, hardware: Hardware) -> Decimal | None:
    """Return the price of this time on a piece of hardware; None without a price."""
    if hardware.usd_per_hour is None:
        return None
    hours = Decimal(str(seconds)) / HOUR_SECONDS
    return hours * Decimal(str(hardware.usd_per_hour)) * hardware.count


def sum_usd(cost: Cost) -> float | None:
    """Return the price of training and answering together; None where neither has a price."""
    known = [usd for usd in (cost.training_usd, cost.answering_usd) if usd is not None]
    return float(sum(Decimal(str(usd)) for usd in known)) if known else None


def build_own_cost(
    hardware: Hardware | None,
    source: str,
    training_seconds: float | None,
    answering_seconds: float | None,
) -> Cost:
    """Return the cost of a local model by its hours on `hardware`.

    It does not matter on which machine they were measured. Nothing is priced where the bake-off
    file names no hardware, or the hardware has no price.

    Args:
        source: where the price of its hour comes from.
    """
    if hardware is None or hardware.usd_per_hour is None:
        return Cost()
    price = f"${hardware.usd_per_hour:g}/h" + (f" × {hardware.count}" * (hardware.count > 1))
    training = None if training_seconds is None else price_hours(training_seconds, hardware)
    answering = None if answering_seconds is None else price_hours(answering_seconds, hardware)
    basis = None
    if training_seconds is not None:
        on = f" ({hardware.accelerator})" if hardware.accelerator else ""
        basis = f"{training_seconds / HOUR_SECONDS:.2f} h × {price}{on}"
    return Cost(
        training_usd=None if training is None else float(training),
        training_basis=basis,
        answering_usd=None if answering is None else float(answering),
        price_sources=(source,),
        unit_prices={"usd_per_hour": hardware.usd_per_hour},
    )
