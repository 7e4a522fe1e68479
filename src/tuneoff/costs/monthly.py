"""Monthly cost of answering, and the break-even between owning and a provider.

An own model is paid by **reservation, not usage**: whole machines, by the hour, all month, used to
a share of their throughput. A provider is paid by the token; a deployment by the hour, too; and a
tuned model that will end is tuned again at intervals. People's time, storage and traffic are in
neither. USD as `Decimal`, requests per month, months of 730 hours.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal

from tuneoff.costs.price_book import Price
from tuneoff.costs.token_costs import HOUR_SECONDS, price_answers

HOURS_PER_MONTH = 730
THOUSAND = 1000
ZERO = Decimal(0)
# Costs that cross only beyond this many machines count as never crossing.
MAX_MACHINES = 100_000


@dataclass(frozen=True, slots=True)
class OwnedMonthlyCost:
    """The monthly cost of an own model."""

    machine_usd: Decimal
    """Price of one reserved machine per month."""
    machine_requests: Decimal
    """Requests that it answers per month at the target utilization."""

    def machines(self, requests: Decimal) -> int:
        """Return the machines reserved for these requests; at least one."""
        whole, rest = divmod(requests, self.machine_requests)
        return max(1, int(whole) + (rest > 0))

    def usd(self, requests: Decimal) -> Decimal:
        """Return the cost of a month with these requests."""
        return self.machines(requests) * self.machine_usd


@dataclass(frozen=True, slots=True)
class HostedMonthlyCost:
    """The monthly cost of a provider's model."""

    request_usd: Decimal
    """Price of one request."""
    fixed_usd: Decimal = ZERO
    """Fees per month, whatever the load."""

    def usd(self, requests: Decimal) -> Decimal:
        """Return the cost of a month with these requests."""
        return self.fixed_usd + requests * self.request_usd


@dataclass(frozen=True, slots=True)
class CostCrossing:
    """Where owning becomes cheaper, in requests per month."""

    first: Decimal | None = None
    """The lowest load at which it is cheaper; None: never."""
    lasting: Decimal | None = None
    """The load from which it stays cheaper; None: it does not."""
    until: Decimal | None = None
    """The highest load at which it is cheaper, where it does not stay so."""


def build_owned_cost(
    usd_per_hour: Decimal, count: int, requests_per_second: Decimal, utilization: Decimal
) -> OwnedMonthlyCost:
    """Return the monthly cost of a model on `count` accelerators per machine.

    Args:
        requests_per_second: measured saturated throughput.

    Raises:
        ValueError: throughput or utilization is not above 0.
    """
    if requests_per_second <= 0 or utilization <= 0:
        raise ValueError("throughput and utilisation must be above 0")
    seconds = HOURS_PER_MONTH * HOUR_SECONDS
    return OwnedMonthlyCost(
        machine_usd=usd_per_hour * count * HOURS_PER_MONTH,
        machine_requests=requests_per_second * utilization * seconds,
    )


def build_hosted_cost(
    price: Price,
    tokens_in: Decimal,
    tokens_out: Decimal,
    *,
    batch: bool = False,
    tuning_again_usd: Decimal = ZERO,
) -> HostedMonthlyCost | None:
    """Return the monthly cost of a provider's model for requests of this shape.

    None where answering has no price.

    Args:
        batch: answers are requested in batches, which have a price of their own.
        tuning_again_usd: cost of tuning the model again, per month.
    """
    fixed = tuning_again_usd
    if price.hosting_usd_per_hour is not None:
        fixed += price.hosting_usd_per_hour * HOURS_PER_MONTH
    # Price a million requests, so that their tokens are whole numbers.
    million_usd = price_answers(
        price, _scale_to_million(tokens_in), _scale_to_million(tokens_out), batch=batch
    )
    if million_usd is None:
        # A deployment may be billed by its hours and nothing else.
        return HostedMonthlyCost(ZERO, fixed) if price.hosting_usd_per_hour is not None else None
    return HostedMonthlyCost(million_usd / 1_000_000, fixed)


def _scale_to_million(tokens: Decimal) -> int:
    """Return the tokens of a million requests."""
    return round(tokens * 1_000_000)


def spread_tuning_cost(training: Decimal, months: int) -> Decimal:
    """Return the monthly share of tuning again at this interval."""
    return training / months


def compute_usd_per_1k(
    monthly: OwnedMonthlyCost | HostedMonthlyCost, requests: int | None
) -> Decimal:
    """Return the cost of 1,000 requests at this monthly load.

    Without a load: an owned machine at its target utilization; a provider without fixed fees.
    """
    if requests is not None:
        return monthly.usd(Decimal(requests)) / requests * THOUSAND
    if isinstance(monthly, OwnedMonthlyCost):
        return monthly.machine_usd / monthly.machine_requests * THOUSAND
    return monthly.request_usd * THOUSAND


def compute_fixed_usd(
    monthly: OwnedMonthlyCost | HostedMonthlyCost, requests: int | None
) -> Decimal:
    """Return the monthly cost due at any load: reserved machines, or the provider's fees.

    Without a load, one machine is reserved.
    """
    if isinstance(monthly, OwnedMonthlyCost):
        return monthly.usd(Decimal(requests or 0))
    return monthly.fixed_usd


def compute_usd_per_correct(per_1k: Decimal, correct: Decimal) -> Decimal | None:
    """Return the cost of a correct answer, given their share; None where none is correct."""
    return per_1k / THOUSAND / correct if correct > 0 else None


def find_break_even(owned: OwnedMonthlyCost, other: HostedMonthlyCost) -> CostCrossing:
    """Return from how many requests per month owning costs no more than the provider.

    Between kC and (k+1)C requests (C: the requests of one machine) k + 1 machines are reserved, so
    owning costs (k+1)M there, the provider F + hn. With k + 1 machines, owning becomes cheaper at
    ((k+1)M - F) / h if that lies before (k+1)C.
    """
    machine, capacity = owned.machine_usd, owned.machine_requests
    request_usd, fixed = other.request_usd, other.fixed_usd
    gained = request_usd * capacity - machine  # per additional full machine
    if machine <= fixed:
        first = ZERO
    elif fixed + request_usd * capacity >= machine:
        first = (machine - fixed) / request_usd
    else:
        return CostCrossing()
    if gained >= 0 and machine <= fixed:
        return CostCrossing(first, ZERO)
    if gained > 0:
        return CostCrossing(first, _find_lasting(owned, other, gained))
    if gained == 0:  # equal at each full machine, and more expensive in between
        return CostCrossing(first)
    return CostCrossing(first, None, capacity * (fixed // -gained))


def _find_lasting(
    owned: OwnedMonthlyCost, other: HostedMonthlyCost, gained: Decimal
) -> Decimal | None:
    """Return the load from which each additional machine is cheaper from its first request on.

    The savings of full machines then pay for a new one. None where that takes too many machines.
    """
    missing = owned.machine_usd - other.fixed_usd
    if missing > gained * MAX_MACHINES:
        return None
    whole, rest = divmod(missing, gained)
    machines = int(whole) + (rest > 0)
    return (machines * owned.machine_usd - other.fixed_usd) / other.request_usd


def change_utilization(
    owned: OwnedMonthlyCost, before: Decimal, after: Decimal
) -> OwnedMonthlyCost:
    """Return the same machines at another utilization."""
    return replace(owned, machine_requests=owned.machine_requests * after / before)


def scale_hour_price(owned: OwnedMonthlyCost, factor: Decimal) -> OwnedMonthlyCost:
    """Return the same machines with the hourly price times `factor`."""
    return replace(owned, machine_usd=owned.machine_usd * factor)


def scale_request_price(other: HostedMonthlyCost, factor: Decimal) -> HostedMonthlyCost:
    """Return the same model with the price of a request times `factor`."""
    return replace(other, request_usd=other.request_usd * factor)


def choose_loads(owns: Iterable[OwnedMonthlyCost], crossings: Iterable[Decimal]) -> list[Decimal]:
    """Return the monthly loads at which to draw the cost curves.

    They range from a decade below the first crossing to a decade above the last, and include each
    load where a machine is added.
    """
    marks = [max(owned, Decimal(1)) for owned in crossings if owned > 0] or [Decimal(100_000)]
    low = math.floor(math.log10(min(marks)) - 1)
    high = math.ceil(math.log10(max(marks)) + 1)
    steps = (high - low) * 8
    loads = {Decimal(round(10 ** (low + i / 8))) for i in range(steps + 1)}
    for owned in owns:
        for machines in range(1, 9):
            full = Decimal(int(machines * owned.machine_requests))
            loads |= {full, full + 1}
    return sorted(n for n in loads if max(1, 10**low) <= n <= 10**high)
