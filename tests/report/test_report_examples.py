"""Which examples are shown: those that tell the contenders apart, spread and repeatable."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from made_results import METRIC, contender

from tuneoff.report.examples import AnsweredExamples, choose_spread, is_right
from tuneoff.storage.run_dir import RunDir


def test_ten_disagreements_over_both_patterns(run: RunDir) -> None:
    contenders = [contender("lora"), contender("few-shot"), contender("hosted", error="failed")]
    found = AnsweredExamples(run, contenders, METRIC)
    shown = list(found.show(found.choose(10)))
    assert len(shown) == 10
    patterns = [tuple(answer.right for answer in example.answers) for example in shown]
    assert set(patterns) == {(True, False), (False, True)}
    assert patterns.count((False, True)) == 3, "all there are of the rarer pattern"
    again = AnsweredExamples(run, contenders, METRIC)
    assert shown == list(again.show(again.choose(10)))
    first = shown[0]
    assert {answer.contender for answer in first.answers} == {"lora", "few-shot"}
    assert first.reference == f"SELECT {first.id.removeprefix('e')}"


def test_rare_patterns_get_their_turn_and_the_test_set_is_covered() -> None:
    patterns = [(True, False)] * 90 + [(False, True)] * 2 + [(True, True)] * 8
    chosen = choose_spread(patterns, 6)
    assert chosen[:2] == [0, 90]
    assert {90, 91} <= set(chosen)
    assert max(i for i in chosen if i < 90) > 45


def test_nobody_right_fills_up() -> None:
    assert choose_spread([(False, False), (True, True), (True, False)], 10) == [2, 0]
    assert choose_spread([(True, True)] * 5, 10) == []


def test_a_share_counts_as_right_only_when_full() -> None:
    assert is_right({"slot_f1": 1.0}, "slot_f1")
    assert not is_right({"slot_f1": 0.99}, "slot_f1")
    assert not is_right({}, "slot_f1")


@given(
    st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), max_size=60),
    st.integers(0, 12),
)
def test_never_too_many_never_twice_never_all_right(
    patterns: list[tuple[bool, ...]], limit: int
) -> None:
    chosen = choose_spread(patterns, limit)
    assert len(chosen) == len(set(chosen)) <= limit
    assert len(chosen) == min(limit, sum(not all(pattern) for pattern in patterns))
    mixed = [any(patterns[i]) for i in chosen]
    assert mixed == sorted(mixed, reverse=True)
