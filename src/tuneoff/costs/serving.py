"""What answering costs a month, and from how many requests on owning is cheaper.

An own model is paid by **reservation, not usage**: whole machines, by the hour, all month, used
to a share of what they can do. A provider is paid by the token, a deployment by the hour besides,
and a tuned model that will end is tuned again now and then. People's time, storage and traffic
are in neither. USD as `Decimal`, requests a month, months of 730 hours.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal

from tuneoff.costs.arithmetic import HOUR_SECONDS, answering_usd
from tuneoff.costs.pricebook import Price

HOURS_A_MONTH = 730
THOUSAND = 1000
NOTHING = Decimal(0)
# Costs that cross beyond so many machines do not cross in this world.
MOST_MACHINES = 100_000


@dataclass(frozen=True, slots=True)
class Own:
    """An own model: what one reserved machine costs a month, and how many requests it answers in
    a month at the utilisation that is wanted."""

    machine_usd: Decimal
    machine_requests: Decimal

    def machines(self, requests: Decimal) -> int:
        """How many are reserved for so many requests; one at least."""
        whole, rest = divmod(requests, self.machine_requests)
        return max(1, int(whole) + (rest > 0))

    def usd(self, requests: Decimal) -> Decimal:
        """A month with so many requests."""
        return self.machines(requests) * self.machine_usd


@dataclass(frozen=True, slots=True)
class Hosted:
    """A provider's model: by the request, and a month whatever is asked."""

    request_usd: Decimal
    fixed_usd: Decimal = NOTHING

    def usd(self, requests: Decimal) -> Decimal:
        """A month with so many requests."""
        return self.fixed_usd + requests * self.request_usd


@dataclass(frozen=True, slots=True)
class Crossing:
    """Where owning becomes the cheaper one, in requests a month.

    `first`: it is for the first time; None: never. `lasting`: it is, however many more there
    are; None: it is not. `until`: the last number at which it is, where it is not for good.
    """

    first: Decimal | None = None
    lasting: Decimal | None = None
    until: Decimal | None = None


def own(
    usd_per_hour: Decimal, count: int, requests_per_second: Decimal, utilization: Decimal
) -> Own:
    """An own model on `count` accelerators a machine, of measured saturated throughput.

    Raises:
        ValueError: throughput or utilisation is not above 0.
    """
    if requests_per_second <= 0 or utilization <= 0:
        raise ValueError("throughput and utilisation must be above 0")
    seconds = HOURS_A_MONTH * HOUR_SECONDS
    return Own(
        machine_usd=usd_per_hour * count * HOURS_A_MONTH,
        machine_requests=requests_per_second * utilization * seconds,
    )


def hosted(
    price: Price,
    tokens_in: Decimal,
    tokens_out: Decimal,
    *,
    batch: bool = False,
    tuning_again_usd: Decimal = NOTHING,
) -> Hosted | None:
    """A provider's model for requests of this shape; None where answering has no price.

    Args:
        batch: answers are asked for in batches, which have a price of their own.
        tuning_again_usd: what tuning it again comes to a month.
    """
    fixed = tuning_again_usd
    if price.hosting_usd_per_hour is not None:
        fixed += price.hosting_usd_per_hour * HOURS_A_MONTH
    # Of a million requests, whose tokens are whole numbers.
    each = answering_usd(price, _millions(tokens_in), _millions(tokens_out), batch=batch)
    if each is None:
        # A deployment may be billed by its hours and nothing else.
        return Hosted(NOTHING, fixed) if price.hosting_usd_per_hour is not None else None
    return Hosted(each / 1_000_000, fixed)


def _millions(tokens: Decimal) -> int:
    return round(tokens * 1_000_000)


def tuning_again_usd(training: Decimal, months: int) -> Decimal:
    """A month's share of tuning again every so many months."""
    return training / months


def usd_per_1k(monthly: Own | Hosted, requests: int | None) -> Decimal:
    """1,000 requests, of so many a month; where that is not known those of a machine that is
    used as wanted, or of a provider without what is due whatever is asked."""
    if requests is not None:
        return monthly.usd(Decimal(requests)) / requests * THOUSAND
    if isinstance(monthly, Own):
        return monthly.machine_usd / monthly.machine_requests * THOUSAND
    return monthly.request_usd * THOUSAND


def fixed_usd(monthly: Own | Hosted, requests: int | None) -> Decimal:
    """What is due a month whatever is asked: the machines for so many requests (one where that is
    not known), or the provider's fees."""
    if isinstance(monthly, Own):
        return monthly.usd(Decimal(requests or 0))
    return monthly.fixed_usd


def usd_per_correct(per_1k: Decimal, correct: Decimal) -> Decimal | None:
    """A right answer, of which there is this share; None where none is right."""
    return per_1k / THOUSAND / correct if correct > 0 else None


def break_even(mine: Own, other: Hosted) -> Crossing:
    """From how many requests a month on owning costs no more than the provider.

    Between kC and (k+1)C requests (C: those of one machine) k + 1 machines are reserved, so
    owning costs (k+1)M there, the provider F + hn. Owning for k + 1 machines begins to be
    cheaper at ((k+1)M - F) / h if that lies before (k+1)C.
    """
    machine, capacity = mine.machine_usd, mine.machine_requests
    each, fixed = other.request_usd, other.fixed_usd
    gained = each * capacity - machine  # by one full machine more
    if machine <= fixed:
        first = NOTHING
    elif fixed + each * capacity >= machine:
        first = (machine - fixed) / each
    else:
        return Crossing()
    if gained >= 0 and machine <= fixed:
        return Crossing(first, NOTHING)
    if gained > 0:
        return Crossing(first, _lasting(mine, other, gained))
    if gained == 0:  # it is as cheap at each full machine, and dearer between
        return Crossing(first)
    return Crossing(first, None, capacity * (fixed // -gained))


def _lasting(mine: Own, other: Hosted, gained: Decimal) -> Decimal | None:
    """From where each machine more is cheaper from its first request on: those before it are
    paid for by what full machines have gained."""
    missing = mine.machine_usd - other.fixed_usd
    if missing > gained * MOST_MACHINES:
        return None
    whole, rest = divmod(missing, gained)
    machines = int(whole) + (rest > 0)
    return (machines * mine.machine_usd - other.fixed_usd) / other.request_usd


def used_to(mine: Own, before: Decimal, after: Decimal) -> Own:
    """The same machines, used to another share of what they can do."""
    return replace(mine, machine_requests=mine.machine_requests * after / before)


def dearer_own(mine: Own, factor: Decimal) -> Own:
    """The same machines at so many times the price of an hour."""
    return replace(mine, machine_usd=mine.machine_usd * factor)


def dearer_hosted(other: Hosted, factor: Decimal) -> Hosted:
    """The same model at so many times the price of a request."""
    return replace(other, request_usd=other.request_usd * factor)


def points(owns: Iterable[Own], crossings: Iterable[Decimal]) -> list[Decimal]:
    """Requests a month at which curves are worth drawing: a decade below the first crossing to a
    decade above the last, and where a machine is added."""
    there = [max(each, Decimal(1)) for each in crossings if each > 0] or [Decimal(100_000)]
    low = math.floor(math.log10(min(there)) - 1)
    high = math.ceil(math.log10(max(there)) + 1)
    steps = (high - low) * 8
    found = {Decimal(round(10 ** (low + i / 8))) for i in range(steps + 1)}
    for each in owns:
        for machines in range(1, 9):
            full = Decimal(int(machines * each.machine_requests))
            found |= {full, full + 1}
    return sorted(n for n in found if max(1, 10**low) <= n <= 10**high)
