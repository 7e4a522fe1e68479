"""Money is exact, adds up, and never falls when there are more tokens or hours."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneoff.config.contenders import Hardware
from tuneoff.costs.price_book import Price
from tuneoff.costs.token_costs import (
    price_answers,
    price_hours,
    price_max_tokens,
    price_tokens,
    price_training,
)

OTHERS = (
    "cache_write_usd_per_million_tokens",
    "batch_input_usd_per_million_tokens",
    "batch_output_usd_per_million_tokens",
)
TOKENS = st.integers(0, 10**12)
USD = st.decimals(0, 1000, places=4)


@given(TOKENS, TOKENS, USD)
def test_tokens_add_up_and_never_cost_less(a: int, b: int, usd: Decimal) -> None:
    assert price_tokens(a + b, usd) == price_tokens(a, usd) + price_tokens(b, usd)
    assert price_tokens(a + b, usd) >= price_tokens(a, usd) >= 0


@given(TOKENS, TOKENS, st.data(), USD, USD, USD)
def test_answers(
    tokens_in: int, tokens_out: int, data: st.DataObject, usd_in: Decimal, usd_out: Decimal,
    usd_cached: Decimal,
) -> None:  # fmt: skip
    """Reading from the cache never costs more than a prompt, and nothing more than the most."""
    cached = data.draw(st.integers(0, tokens_in))
    written = data.draw(st.integers(0, tokens_in - cached))
    batch = data.draw(st.booleans())
    prices = {name: data.draw(st.none() | USD) for name in OTHERS}
    price = Price(
        input_usd_per_million_tokens=usd_in,
        output_usd_per_million_tokens=usd_out,
        cached_input_usd_per_million_tokens=min(usd_cached, usd_in),
    )
    plain = price_answers(price, tokens_in, tokens_out)
    some = price_answers(price, tokens_in, tokens_out, cached)
    assert plain is not None
    assert some is not None
    assert some <= plain == price_tokens(tokens_in, usd_in) + price_tokens(tokens_out, usd_out)
    price = replace(price, **prices)
    billed = price_answers(price, tokens_in, tokens_out, cached, batch, written)
    assert billed is not None
    assert billed <= price_max_tokens(price, 0, tokens_in, tokens_out, batch) * (
        1 + Decimal("1e-20")
    )


def test_batch_and_what_has_no_price() -> None:
    price = Price(
        input_usd_per_million_tokens=Decimal(2),
        output_usd_per_million_tokens=Decimal(8),
        cached_input_usd_per_million_tokens=Decimal("0.5"),
        batch_input_usd_per_million_tokens=Decimal(1),
        batch_output_usd_per_million_tokens=Decimal(4),
    )
    assert price_answers(price, 10**6, 10**6, 0, batch=True) == 5
    assert price_answers(price, 10**6, 10**6, 5 * 10**5, batch=True) == 5
    assert price_answers(price, 10**6, 10**6, 5 * 10**5) == Decimal("9.25")
    written = replace(price, cache_write_usd_per_million_tokens=Decimal("2.5"))
    assert price_answers(written, 10**6, 0, 4 * 10**5, written_tokens_in=10**5) == Decimal("1.45")
    assert price_answers(written, 10**6, 0, 0, True, 10**6) == Decimal("1.25")
    # Half a price of batches is no reason to count nothing.
    half = replace(price, batch_output_usd_per_million_tokens=None)
    assert price_answers(half, 10**6, 10**6, batch=True) == 9
    assert price_max_tokens(written, 10**6, 10**6, 10**6) == Decimal("10.5")
    assert price_max_tokens(None, 1, 1, 1) == price_max_tokens(Price(), 1, 1, 1) == 0
    assert price_answers(Price(), 1, 1) is None
    assert price_training(price, 10**6) is None


@pytest.mark.parametrize(("hours", "usd"), [(7, "3.325"), (9, "4.275")])
def test_the_seeds_open_arm(hours: int, usd: str) -> None:
    """Reported as $3.32 and $4.27: the article cut the half cent off."""
    found = price_hours(hours * 3600, Hardware(accelerator="A40", usd_per_hour=0.475))
    assert found == Decimal(usd)
