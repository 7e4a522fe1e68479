"""Costs of what was measured, in USD. Sums are `Decimal`; floats appear only in records."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from tuneoff.contender_settings import Hardware
from tuneoff.costs.pricebook import Price
from tuneoff.results import Cost

HOUR_SECONDS = 3600
MILLION = 1_000_000


def tokens_usd(tokens: int, usd_per_million_tokens: Decimal) -> Decimal:
    """Price of so many tokens."""
    return usd_per_million_tokens * tokens / MILLION


def training_usd(price: Price, tokens_billed: int) -> Decimal | None:
    """Price of a training job that is billed so many tokens, all epochs together; None where
    training has no price."""
    per_million = price.training_usd_per_million_tokens
    return None if per_million is None else tokens_usd(tokens_billed, per_million)


@dataclass(frozen=True, slots=True)
class _Rates:
    """USD per million tokens: of prompts, as they are, read from the provider's cache and written
    to it; and of answers."""

    input: Decimal
    cached: Decimal
    written: Decimal
    output: Decimal


def _rates(price: Price, batch: bool) -> _Rates | None:
    """Return the rates that answers are billed at; None where the model has no price for them.

    What has no price of its own costs what prompts cost. A batch without a price is billed as
    single requests are; its cache writes are dearer than its prompts by as much as theirs.
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
    return _Rates(
        inputs,
        inputs if cached is None else cached,
        inputs if written is None else written,
        outputs,
    )


def answering_usd(
    price: Price,
    tokens_in: int,
    tokens_out: int,
    cached_tokens_in: int = 0,
    batch: bool = False,
    written_tokens_in: int = 0,
) -> Decimal | None:
    """Return the price of answers; None where the model has no price for answering.

    Args:
        tokens_in: all prompt tokens, as providers report them: those that were read from the
            cache, or written to it, are among them.
        cached_tokens_in: how many of those cost the price of cached input.
        batch: they were asked for in a batch, for which there is a price of its own.
        written_tokens_in: how many of `tokens_in` cost the price of cache writes.
    """
    rates = _rates(price, batch)
    if rates is None:
        return None
    return (
        tokens_usd(tokens_in - cached_tokens_in - written_tokens_in, rates.input)
        + tokens_usd(cached_tokens_in, rates.cached)
        + tokens_usd(written_tokens_in, rates.written)
        + tokens_usd(tokens_out, rates.output)
    )


def known_usd(
    price: Price | None,
    training: int,
    tokens_in: int,
    tokens_out: int,
    cached_tokens_in: int = 0,
    batch: bool = False,
    written_tokens_in: int = 0,
) -> Decimal:
    """Price of a step's tokens; what has none costs nothing that is known."""
    if price is None:
        return Decimal()
    trained = training_usd(price, training) if training else None
    answered = None
    if tokens_in or tokens_out:
        answered = answering_usd(
            price, tokens_in, tokens_out, cached_tokens_in, batch, written_tokens_in
        )
    return (trained or Decimal()) + (answered or Decimal())


def max_usd(
    price: Price | None, training: int, tokens_in: int, tokens_out: int, batch: bool = False
) -> Decimal:
    """Return the most that a step of so many tokens can be billed, as far as prices are known.

    Nobody knows before which prompt tokens will be read from the cache or written to it, so each
    one counts at the dearest of the three rates.
    """
    if price is None:
        return Decimal()
    rates = _rates(price, batch)
    answered = Decimal()
    if rates is not None:
        dearest = max(rates.input, rates.cached, rates.written)
        answered = tokens_usd(tokens_in, dearest) + tokens_usd(tokens_out, rates.output)
    trained = training_usd(price, training)
    return (trained or Decimal()) + answered


def hours_usd(seconds: float, hardware: Hardware) -> Decimal | None:
    """Price of so many seconds on a piece of hardware; None without a price."""
    if hardware.usd_per_hour is None:
        return None
    hours = Decimal(str(seconds)) / HOUR_SECONDS
    return hours * Decimal(str(hardware.usd_per_hour)) * hardware.count


def total_usd(cost: Cost) -> float | None:
    """Training and answering together; None where neither has a price."""
    known = [usd for usd in (cost.training_usd, cost.answering_usd) if usd is not None]
    return float(sum(Decimal(str(usd)) for usd in known)) if known else None


def own_cost(
    hardware: Hardware | None,
    source: str,
    training_seconds: float | None,
    answering_seconds: float | None,
) -> Cost:
    """Cost of an own model by its hours on `hardware`, whatever machine they were
    measured on; nothing is priced when the bake-off file names no hardware, or it has no price.

    Args:
        source: where the price of its hour comes from.
    """
    if hardware is None or hardware.usd_per_hour is None:
        return Cost()
    price = f"${hardware.usd_per_hour:g}/h" + (f" × {hardware.count}" * (hardware.count > 1))
    training = None if training_seconds is None else hours_usd(training_seconds, hardware)
    answering = None if answering_seconds is None else hours_usd(answering_seconds, hardware)
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
