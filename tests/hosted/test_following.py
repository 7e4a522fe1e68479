"""When a job is looked at again: often enough to see its end soon, and rarely over hours."""

from __future__ import annotations

import pytest

from tuneoff.contenders.job_polling import NEAR_END_POLL_SECONDS, compute_poll_seconds

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("wait", "left", "pause"),
    [
        (30, None, 30),  # the provider says nothing
        (30, 3600, 30),
        (30, 12, 12),  # at its expected end
        (30, 0.5, NEAR_END_POLL_SECONDS),
        (30, -1, NEAR_END_POLL_SECONDS),  # any moment now
        (30, -60, 18),  # what was expected was wrong
        (30, -3600, 30),
        (0.5, 12, 0.5),
    ],
)
def test_pause(wait: float, left: float | None, pause: float) -> None:
    expected = None if left is None else NOW + left
    assert compute_poll_seconds(wait, expected, NOW) == pytest.approx(pause)
