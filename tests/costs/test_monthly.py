"""Serving: costs a month, where they cross, and what moves the crossing."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tuneoff.costs import monthly as serving
from tuneoff.costs.monthly import CostCrossing, HostedMonthlyCost, OwnedMonthlyCost, find_break_even
from tuneoff.costs.price_book import Price

USD = st.decimals("0.01", 10_000, places=2)
FEE = st.decimals(0, 5_000, places=2)
EACH = st.decimals("0.000001", 1, places=6)
CAPACITY = st.decimals(1, 10**8, places=1)
TINY = Decimal("1e-12")
# So near that no machine is bought in between, which would be another crossing.
JUST_BELOW = Decimal("0.999999999999")


def owned(machine_usd: str, machine_requests: str) -> OwnedMonthlyCost:
    return OwnedMonthlyCost(Decimal(machine_usd), Decimal(machine_requests))


def test_an_own_model_by_hand() -> None:
    """An A40 at $0.475 all month is $346.75; 2 requests/s at half use are 2,628,000 requests."""
    found = serving.build_owned_cost(Decimal("0.475"), 1, Decimal(2), Decimal("0.5"))
    assert found == owned("346.750", "2628000.0")
    assert [found.machines(Decimal(n)) for n in (0, 1, 2_628_000, 2_628_001, 10**7)] == [
        1, 1, 1, 2, 4,
    ]  # fmt: skip
    assert serving.compute_usd_per_1k(found, None) == Decimal("346.75") / 2628
    assert serving.compute_usd_per_1k(found, 100_000) == Decimal("3.4675")
    assert (
        serving.compute_fixed_usd(found, None)
        == serving.compute_fixed_usd(found, 5)
        == Decimal("346.75")
    )
    assert serving.compute_fixed_usd(found, 3_000_000) == Decimal("693.5")
    twice = serving.build_owned_cost(Decimal("0.475"), 2, Decimal(2), Decimal("0.5"))
    assert twice.machine_usd == 2 * found.machine_usd


@pytest.mark.parametrize(("rate", "share"), [("0", "0.5"), ("2", "0")])
def test_nothing_is_owned_without_throughput(rate: str, share: str) -> None:
    with pytest.raises(ValueError, match="above 0"):
        serving.build_owned_cost(Decimal(1), 1, Decimal(rate), Decimal(share))


def test_a_providers_model_by_hand() -> None:
    price = Price(
        input_usd_per_million_tokens=Decimal("0.8"),
        output_usd_per_million_tokens=Decimal("3.2"),
        batch_input_usd_per_million_tokens=Decimal("0.4"),
        batch_output_usd_per_million_tokens=Decimal("1.6"),
    )
    shape = Decimal("121.5"), Decimal("20.25")
    found = serving.build_hosted_cost(price, *shape)
    assert found == HostedMonthlyCost(Decimal("0.000162"), Decimal(0))
    assert serving.compute_usd_per_1k(found, None) == Decimal("0.162")
    halved = serving.build_hosted_cost(price, *shape, batch=True)
    assert halved == HostedMonthlyCost(Decimal("0.000081"), Decimal(0))
    again = serving.spread_tuning_cost(Decimal(12), 6)
    assert again == 2
    assert serving.build_hosted_cost(price, *shape, tuning_again_usd=again) == HostedMonthlyCost(
        Decimal("0.000162"), Decimal(2)
    )
    assert serving.build_hosted_cost(Price(), *shape) is None


def test_hosting_by_the_hour() -> None:
    """Azure's $1.70 an hour is $1,241 a month, used or not, beside tokens or alone."""
    alone = serving.build_hosted_cost(
        Price(hosting_usd_per_hour=Decimal("1.7")), Decimal(9), Decimal(9)
    )
    assert alone == HostedMonthlyCost(Decimal(0), Decimal(1241))
    price = Price(
        hosting_usd_per_hour=Decimal("1.7"),
        input_usd_per_million_tokens=Decimal(1),
        output_usd_per_million_tokens=Decimal(2),
    )
    both = serving.build_hosted_cost(price, Decimal(100), Decimal(50))
    assert both == HostedMonthlyCost(Decimal("0.0002"), Decimal(1241))
    assert serving.compute_usd_per_1k(both, None) == Decimal("0.2")
    assert serving.compute_usd_per_1k(both, 10_000) == Decimal("124.3")
    assert serving.compute_fixed_usd(both, None) == 1241


def test_a_right_answer() -> None:
    assert serving.compute_usd_per_correct(Decimal(2), Decimal("0.8")) == Decimal("0.0025")
    assert serving.compute_usd_per_correct(Decimal(2), Decimal(0)) is None


@pytest.mark.parametrize(
    ("mine", "other", "expected"),
    [
        # One machine at $100 for 1,000 requests, $0.2 each: from 500, but at 1,001 it costs $200
        # against $200.20 at once, so it stays so.
        (("100", "1000"), ("0.2", "0"), ("500", "500", None)),
        # At $0.15: from 667 (a thousand are $150), dearer again with the second machine ($200
        # against $150) until 1,333, and from then on for good ($300 against $300 at 2,000).
        (("100", "1000"), ("0.15", "0"), ("666.67", "1333.33", None)),
        # A request of a full machine costs as much as the provider's.
        (("100", "1000"), ("0.1", "0"), ("1000", None, None)),
        (("100", "1000"), ("0.05", "0"), (None, None, None)),
        # A hosting fee of $120 pays for one machine, and for two while they are full enough.
        (("100", "1000"), ("0.05", "120"), ("0", None, "2000")),
        (("100", "1000"), ("0", "250"), ("0", None, "2000")),
        (("100", "1000"), ("0.2", "100"), ("0", "0", None)),
        (("0", "1000"), ("0", "0"), ("0", "0", None)),
    ],
)
def test_where_costs_cross_by_hand(
    mine: tuple[str, str], other: tuple[str, str], expected: tuple[str | None, ...]
) -> None:
    found = find_break_even(owned(*mine), HostedMonthlyCost(*map(Decimal, other)))
    shown = [
        None if n is None else n.quantize(Decimal("0.01"))
        for n in (found.first, found.lasting, found.until)
    ]
    assert shown == [None if n is None else Decimal(n).quantize(Decimal("0.01")) for n in expected]


# They cross for good two requests after the 649th machine was bought.
@example(*map(Decimal, ("996.98", "9957.5", "0.100278", "0.01", "0.255")))
@given(USD, CAPACITY, EACH, FEE, st.decimals(0, 20, places=3))
def test_the_curves_cross_where_it_says(
    machine: Decimal, capacity: Decimal, each: Decimal, fee: Decimal, times: Decimal
) -> None:
    mine, other = OwnedMonthlyCost(machine, capacity), HostedMonthlyCost(each, fee)
    found = find_break_even(mine, other)

    def gap(requests: Decimal) -> Decimal:
        """What owning costs more, relative to what it costs."""
        return (mine.usd(requests) - other.usd(requests)) / mine.usd(requests)

    somewhere = times * capacity
    if found.first is None:
        assert gap(somewhere) > 0
        assert (found.lasting, found.until) == (None, None)
        return
    if found.first > 0:
        assert abs(gap(found.first)) < TINY, "it is where they cost the same"
        assert gap(found.first * JUST_BELOW) > 0
    else:
        assert gap(Decimal(0)) <= 0
    if found.lasting is not None:
        assert found.lasting >= found.first
        assert gap(found.lasting + somewhere) < TINY
        if found.lasting > 0:
            assert abs(gap(found.lasting)) < TINY
            assert gap(found.lasting * JUST_BELOW) > 0
    if found.until is not None:
        assert found.lasting is None
        assert gap(found.until) < TINY
        assert gap(found.until + somewhere + 1) > 0


@given(USD, CAPACITY, EACH, FEE, st.decimals(0, 10**9, places=1), st.decimals(0, 10**9, places=1))
def test_more_requests_never_cost_less(
    machine: Decimal, capacity: Decimal, each: Decimal, fee: Decimal, a: Decimal, b: Decimal
) -> None:
    for monthly in (OwnedMonthlyCost(machine, capacity), HostedMonthlyCost(each, fee)):
        assert monthly.usd(a + b) >= monthly.usd(max(a, b)) >= 0
    mine = OwnedMonthlyCost(machine, capacity)
    assert mine.machines(a) * capacity >= a
    assert mine.machines(a) == 1 or (mine.machines(a) - 1) * capacity < a


@given(USD, CAPACITY, EACH, FEE)
def test_what_makes_owning_dearer_moves_it_up(
    machine: Decimal, capacity: Decimal, each: Decimal, fee: Decimal
) -> None:
    mine, other = OwnedMonthlyCost(machine, capacity), HostedMonthlyCost(each, fee)

    def first(mine: OwnedMonthlyCost, other: HostedMonthlyCost) -> Decimal:
        found = find_break_even(mine, other).first
        return Decimal("Infinity") if found is None else found

    here = first(mine, other)
    assert first(serving.scale_hour_price(mine, Decimal(2)), other) >= here
    assert first(mine, serving.scale_request_price(other, Decimal(2))) <= here
    half = serving.change_utilization(mine, Decimal("0.5"), Decimal("0.25"))
    assert half.machine_requests == capacity / 2
    assert first(half, other) >= here


def test_points_reach_past_the_crossings_and_show_the_steps() -> None:
    mine = owned("100", "1000")
    found = serving.choose_loads([mine], [Decimal(500), Decimal(5000)])
    assert (min(found), max(found)) == (10, 100_000)
    assert {Decimal(1000), Decimal(1001), Decimal(8001)} <= set(found)
    assert found == sorted(set(found))
    assert len(serving.choose_loads([], [])) > 10
    assert len(serving.choose_loads([mine], [Decimal("0.01")])) > 5, "less than a request a month"


def test_money_is_decimal() -> None:
    mine = serving.build_owned_cost(Decimal("0.475"), 1, Decimal("2.5"), Decimal("0.5"))
    other = HostedMonthlyCost(Decimal("0.0002"), Decimal(3))
    figures = [
        mine.usd(Decimal(7)),
        other.usd(Decimal(7)),
        serving.compute_usd_per_1k(mine, 9),
        serving.compute_usd_per_1k(other, None),
        serving.compute_fixed_usd(mine, 9),
        serving.compute_fixed_usd(other, 9),
        serving.compute_usd_per_correct(Decimal(1), Decimal("0.3")),
        find_break_even(mine, other).first,
    ]
    assert {type(figure) for figure in figures} == {Decimal}
    assert (
        find_break_even(owned("100", "10"), HostedMonthlyCost(Decimal("0.001"))) == CostCrossing()
    )
