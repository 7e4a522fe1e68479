"""What a provider's headers say about when to come back."""

from __future__ import annotations

import datetime
import email.utils
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneoff.providers.http_errors import (
    MAX_PAUSE_SECONDS,
    parse_rate_limit_pause,
    parse_retry_after,
)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "1e9"}, MAX_PAUSE_SECONDS),
        ({"retry-after": "inf"}, MAX_PAUSE_SECONDS),
        ({"retry-after": "nan"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Sun, 32 Foo 2026"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),  # over already
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": "", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": "-1"}, 0.0),
    ],
)  # fmt: skip
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert parse_retry_after(headers) == seconds


@pytest.mark.parametrize("zone", [datetime.UTC, datetime.timezone(datetime.timedelta(hours=-7))])
def test_retry_after_as_a_date(zone: datetime.tzinfo) -> None:
    """As HTTP writes it (GMT), and as some proxies do (with an offset)."""
    then = datetime.datetime.fromtimestamp(time.time() + 90, zone)
    written = email.utils.format_datetime(then, usegmt=zone is datetime.UTC)
    found = parse_retry_after({"retry-after": written})
    assert found is not None
    assert 60 < found <= 90


DATES = st.from_regex(
    r"Mon, \d{1,3} (Jan|Feb|Dec) \d{1,9} \d{1,4}:\d{1,3}(:\d{1,12})? (GMT|EST|[+-]\d{1,9})",
    fullmatch=True,
)


@given(st.text(max_size=40) | DATES)
def test_whatever_is_written_is_no_error(written: str) -> None:
    for headers in ({"retry-after": written}, {"retry-after-ms": written}):
        found = parse_retry_after(headers)
        assert found is None or 0 <= found <= MAX_PAUSE_SECONDS
    for what in ("-requests", "-tokens", ""):
        headers = {f"x-ratelimit-remaining{what}": "0", f"x-ratelimit-reset{what}": written}
        found = parse_rate_limit_pause(headers)
        assert found is not None
        assert 0 <= found <= MAX_PAUSE_SECONDS
        assert parse_rate_limit_pause({f"x-ratelimit-remaining{what}": written + "1"}) in (
            None,
            0.0,
        )


def limits(**given: str) -> dict[str, str]:
    return {f"x-ratelimit-{name.replace('_', '-')}": value for name, value in given.items()}


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        (limits(remaining_requests="1", reset_requests="30s"), None),
        (limits(remaining_requests="0", reset_requests="30s"), 30.0),
        (limits(remaining_requests="0", reset_requests="6m0s"), 360.0),
        (limits(remaining_requests="0", reset_requests="120ms"), 0.12),
        (limits(remaining_requests="0", reset_requests="1m30.5s"), 90.5),
        (limits(remaining_requests="0", reset_requests="1d2h"), MAX_PAUSE_SECONDS),
        (limits(remaining_requests="0", reset_requests="7"), 7.0),
        (limits(remaining_requests="0"), 0.0),
        (limits(remaining_requests="0", reset_requests="soon"), 0.0),
        (limits(remaining_requests="-1", reset_requests="7"), None),
        (limits(remaining_requests="none", reset_requests="7"), None),
        (limits(remaining_tokens="0", reset_tokens="2s"), 2.0),
        (limits(remaining_tokens="0", reset_tokens="2s",
                remaining_requests="0", reset_requests="5s"), 5.0),
        (limits(remaining_tokens="5000", reset_tokens="9s",
                remaining_requests="0", reset_requests="1s"), 1.0),
        (limits(remaining="0", reset="4"), 4.0),  # Together's
    ],
)  # fmt: skip
def test_a_limit_that_is_used_up(headers: dict[str, str], seconds: float | None) -> None:
    assert parse_rate_limit_pause(headers) == seconds
