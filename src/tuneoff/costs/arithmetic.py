"""Costs of what was measured, in USD. Sums are `Decimal`; floats appear only in records."""

from __future__ import annotations

from decimal import Decimal

from tuneoff.config import Hardware
from tuneoff.records import Cost

HOUR_SECONDS = 3600


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
    training_seconds: float | None,
    answering_seconds: float | None,
) -> Cost:
    """Cost of an own model by its hours on `hardware`, whatever machine they were
    measured on; nothing is priced when the bake-off file names no hardware."""
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
        price_sources=("the bake-off file",),
    )
