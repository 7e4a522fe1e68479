"""What is said of a candidate beside its reference: several, with seeds, and of no shares."""

from __future__ import annotations

import pytest

from tuneoff.report.parity import describe_change, describe_parity
from tuneoff.scoring.paired import Pair, SeedScores
from tuneoff.scoring.parity import judge_parity


def scores(right: int, n: int = 400, by: float = 1.0) -> dict[str, float]:
    return {str(i): by * (i < right) for i in range(n)}


def test_over_several_candidates_parity_is_harder_to_show() -> None:
    old = scores(300)
    alone = judge_parity([Pair("new", "old", scores(294), old)], "m")[0]
    first, other = judge_parity(
        [Pair("new", "old", scores(294), old), Pair("bad", "old", scores(200), old)], "m"
    )
    assert alone.is_not_worse
    assert first.p_not_worse == pytest.approx(2 * (alone.p_not_worse or 0))  # Holm
    assert (first.is_not_worse, other.outcome) == (False, "worse")


def test_seeds_say_whether_it_would_be_so_again() -> None:
    trainings = [scores(right) for right in (200, 205, 210)]
    mean = {id: sum(each[id] for each in trainings) / 3 for id in trainings[0]}
    seeds = [SeedScores("new", (0.5, 0.5125, 0.525))]
    pair = Pair("new", "old", mean, scores(300), trainings, (), seeds, ())
    (found,) = judge_parity([pair], "m")
    for sentence in (describe_parity(found), describe_change(found)):
        assert "; after new trainings it would be worse again: [" in sentence


def test_numbers_have_no_margin_in_points() -> None:
    (found,) = judge_parity([Pair("new", "old", scores(299, by=7), scores(300, by=7))], "m")
    assert (found.is_not_worse, found.p_not_worse, found.needed) == (None, None, None)
    assert "these scores are no shares of 1, so no margin in points" in describe_parity(found)
