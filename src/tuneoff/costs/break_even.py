"""Each own contender against each hosted one: where owning begins to pay, and how that changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Literal

from tuneoff.costs.accounting import PricedContender
from tuneoff.costs.monthly import (
    HostedMonthlyCost,
    OwnedMonthlyCost,
    change_utilization,
    choose_loads,
    find_break_even,
    scale_hour_price,
    scale_request_price,
)
from tuneoff.results import BreakEven, CurvePair, Hosting, Sensitivity

OTHER_UTILIZATIONS = ("0.1", "0.25", "0.5", "0.75", "1")
PRICE_FACTORS = ("0.5", "2")
SensitivityKind = Literal["utilization", "usd_per_hour", "hosted_usd_per_request"]


def compute_break_evens(
    priced: Mapping[str, PricedContender], places: Mapping[str, Hosting | None], utilization: float
) -> tuple[BreakEven, ...]:
    """Return the break-even of each pair in which both have a monthly cost.

    Args:
        utilization: the utilization behind the own contenders' costs.
    """
    monthly = {name: contender.monthly for name, contender in priced.items()}
    owns = {
        name: contender
        for name, contender in monthly.items()
        if isinstance(contender, OwnedMonthlyCost)
    }
    others = {
        name: contender
        for name, contender in monthly.items()
        if isinstance(contender, HostedMonthlyCost) and places[name] == "provider"
    }
    pairs = [(a, b, find_break_even(owns[a], others[b])) for a in owns for b in others]
    crossings = [n for _, _, c in pairs for n in (c.first, c.lasting, c.until) if n is not None]
    points = choose_loads(owns.values(), crossings)
    share = Decimal(str(utilization))
    return tuple(
        BreakEven(
            own=a,
            hosted=b,
            requests_per_month=_to_float(crossing.lasting),
            utilization=utilization,
            first_requests_per_month=_to_float(crossing.first),
            until_requests_per_month=_to_float(crossing.until),
            warning=priced[a].elsewhere,
            curve=_build_curve(owns[a], others[b], points),
            sensitivity=_compute_sensitivity(owns[a], others[b], share),
        )
        for a, b, crossing in pairs
    )


def _build_curve(
    owned: OwnedMonthlyCost, other: HostedMonthlyCost, points: Sequence[Decimal]
) -> tuple[CurvePair, ...]:
    """Return the costs of a pair at these monthly loads."""
    return tuple(CurvePair(float(n), float(owned.usd(n)), float(other.usd(n))) for n in points)


def _compute_sensitivity(
    owned: OwnedMonthlyCost, other: HostedMonthlyCost, share: Decimal
) -> tuple[Sensitivity, ...]:
    """Return where the costs cross at other utilizations and prices."""
    others = [Decimal(each) for each in OTHER_UTILIZATIONS if Decimal(each) != share]
    scenarios: list[tuple[SensitivityKind, Decimal, OwnedMonthlyCost, HostedMonthlyCost]] = [
        ("utilization", used, change_utilization(owned, share, used), other) for used in others
    ]
    for factor in map(Decimal, PRICE_FACTORS):
        scenarios += [
            ("usd_per_hour", factor, scale_hour_price(owned, factor), other),
            ("hosted_usd_per_request", factor, owned, scale_request_price(other, factor)),
        ]
    crossings = [(what, value, find_break_even(a, b)) for what, value, a, b in scenarios]
    return tuple(
        Sensitivity(
            what=what,
            value=float(value),
            requests_per_month=_to_float(crossing.lasting),
            first_requests_per_month=_to_float(crossing.first),
            until_requests_per_month=_to_float(crossing.until),
        )
        for what, value, crossing in crossings
    )


def _to_float(value: Decimal | None) -> float | None:
    """Return a number as a float; None where not known."""
    return None if value is None else float(value)
