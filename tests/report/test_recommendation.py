"""The recommendation, from constructed results."""

from __future__ import annotations

import datetime
from dataclasses import replace

from made_results import METRIC, contender, pair, recommend, score, training

from tuneoff.report.headline import render_headline
from tuneoff.results import Baseline, Caveat, ContenderResult, Cost


def two_tuned(lora: float, full: float) -> list[ContenderResult]:
    """An adapter, and all parameters, which are more."""
    return [
        contender("lora", lora, training=training(9)),
        contender("full", full, training=training(99)),
    ]


def test_a_clear_winner() -> None:
    found = recommend(
        [contender("base", 0.4, id="prompted"), contender("lora", 0.9, training=training())],
        [pair("base", "lora", "b better", -0.5)],
        METRIC,
    )
    assert found.choice == "lora"
    assert found.because == (
        "lora: execution accuracy 90.0% [85.0, 95.0] over 40 test examples.",
        "lora is better than base by 50.0 points [45.6, 54.4], p = 0.0003.",
    )
    assert found.when_not == ()


def test_a_prompted_winner_is_not_compared_with_itself() -> None:
    found = recommend(
        [contender("base", 0.9, id="prompted"), contender("lora", 0.4, training=training())],
        [pair("base", "lora", "a better", 0.5)],
        METRIC,
    )
    assert found.choice == "base"
    assert len(found.because) == 2
    assert found.when_not == ()


def test_a_tie_goes_to_the_prompted_one() -> None:
    found = recommend(
        [
            contender("full", 0.92, training=training(5_000_000)),
            contender("lora", 0.91, training=training(100_000)),
            contender("base", 0.90, id="prompted"),
            contender("worse", 0.2, id="prompted"),
        ],
        [
            pair("full", "lora", "tie", 0.01, 0.8),
            pair("base", "full", "tie", -0.02, 0.7),
            pair("full", "worse", "a better", 0.7),
            pair("base", "worse", "a better", 0.68),
        ],
        METRIC,
    )
    assert found.choice == "base"
    assert "No difference can be shown with 40 examples between base and full: " in found.because[2]
    assert "Of these, base trains the fewest parameters." in found.because
    assert "Do not fine-tune: the prompted base is as good." in found.because
    assert any(reason.startswith("base is better than worse") for reason in found.because)


def test_a_tie_of_tuned_ones_goes_to_the_smaller() -> None:
    lora, full = two_tuned(0.9, 0.92)
    found = recommend([lora, full], [pair("lora", "full", "tie", -0.02, 0.5)], METRIC)
    assert found.choice == "lora"
    unknown = replace(lora, training=training(None))
    found = recommend([unknown, full], [pair("lora", "full", "tie", -0.02, 0.5)], METRIC)
    assert found.choice == "full", "an unknown amount of training counts as most"


def test_not_shown_to_be_worse_is_not_as_good() -> None:
    """A small test set shows nothing; 20 points are not given away for a smaller adapter."""
    lora, full = two_tuned(0.49, 0.69)
    wide = replace(pair("lora", "full", "tie", -0.2, 0.3), low=-0.42, high=0.02)
    found = recommend([lora, full], [wide], METRIC)
    assert found.choice == "full"
    assert found.because[1:] == (
        "No difference can be shown with 40 examples between lora and full: "
        "−20.0 points [−42.0, 2.0], p = 0.30.",
        "full is ahead by more than chance explains.",
    )
    assert found.when_not == (
        "lora was not shown to be worse than full, and trains fewer parameters; "
        "more test examples would tell.",
    )
    nearer = replace(wide, difference=-0.1)
    assert recommend([lora, full], [nearer], METRIC).choice == "lora"


def test_of_several_ties_those_that_chance_explains_are_weighed() -> None:
    base, tuned = contender("base", 0.6, id="prompted"), two_tuned(0.69, 0.70)
    far = replace(pair("base", "full", "tie", -0.1, 0.2), low=-0.24, high=0.04)
    found = recommend([base, *tuned], [far, pair("lora", "full", "tie", -0.01, 0.9)], METRIC)
    assert found.choice == "lora"
    assert found.because[-2:] == (
        "Chance explains the difference between full and lora; of these, lora trains the fewest "
        "parameters.",
        "That may give away up to 3.9 points against full (90% sure).",
    )
    assert found.when_not == (
        "base was not shown to be worse than lora, and trains fewer parameters; "
        "more test examples would tell.",
    )


def test_what_the_choice_beats_is_not_said_to_be_undecided() -> None:
    """The cheaper choice may beat by more certain answers what ties with the best."""
    base, tuned = contender("base", 0.72, id="prompted"), two_tuned(0.795, 0.80)
    far = replace(pair("base", "full", "tie", -0.08, 0.2), low=-0.17, high=0.01)
    pairs = [far, pair("lora", "full", "tie", -0.005, 0.9),
             pair("base", "lora", "b better", -0.075)]  # fmt: skip
    found = recommend([base, *tuned], pairs, METRIC)
    assert found.choice == "lora"
    assert "lora is better than base" in found.because[-1]
    assert not any("not shown to be worse" in line for line in found.when_not)


def test_money_decides_a_tie_where_all_have_a_price() -> None:
    base = contender("base", 0.9, id="prompted", cost=Cost(serving_usd_per_1k_requests=3.0))
    lora = contender("lora", 0.9, training=training(), cost=Cost(serving_usd_per_1k_requests=0.5))
    tie = [pair("base", "lora", "tie", 0.0, 1.0)]
    found = recommend([base, lora], tie, METRIC)
    assert found.choice == "lora"
    assert "Of these, lora costs least to serve." in found.because
    assert "base is as good and needs no fine-tuning." in found.when_not
    found = recommend([base, replace(lora, cost=Cost())], tie, METRIC)
    assert found.choice == "base", "a price that is missing is not a price of zero"


def test_a_failed_one_is_mentioned() -> None:
    found = recommend([contender("a", 0.5), contender("b", error="out of memory.")], [], METRIC)
    assert found.choice == "a"
    assert found.because[0].endswith("; there was nothing to compare it with.")
    assert found.when_not == ("b failed and is not compared: out of memory.",)


def test_nothing_right_at_all_is_no_choice() -> None:
    found = recommend(
        [contender("base", 0.0, id="prompted"), contender("lora", 0.0, training=training())],
        [pair("base", "lora", "tie", 0.0)],
        METRIC,
    )
    assert found.choice is None
    assert "No contender got a single test example right" in found.because[0]
    found = recommend(
        [contender("old", 0.5), contender("new", 0.0)],
        [pair("old", "new", "a better", 0.5)],
        METRIC,
        leaving="old",
    )
    assert found.because[0].startswith("No contender that may be chosen got a single test example")


def test_none_scored() -> None:
    found = recommend([contender("a", error="x."), contender("b")], [], METRIC)
    assert found.choice is None
    assert found.because == ("No contender has a score for execution accuracy.",)
    assert found.when_not == ("a failed and is not compared: x.",)
    assert recommend([], [], METRIC).choice is None


def test_reported_figures_do_not_win_over_measured_answers() -> None:
    paper = contender("paper", id="recorded")
    paper = replace(paper, scores={METRIC: replace(score(0.99), low=None, high=None, n=0)})
    found = recommend([paper, contender("lora", 0.8)], [], METRIC)
    assert found.choice == "lora"
    assert found.when_not == (
        "paper reports 99.0% elsewhere; without its answers no test can compare it.",
    )
    assert recommend([paper], [], METRIC).choice == "paper"


def test_cheaper_but_worse_is_said() -> None:
    best = contender("best", 0.9, cost=Cost(serving_usd_per_1k_requests=3.0))
    good = contender("good", 0.8, cost=Cost(serving_usd_per_1k_requests=0.5))
    poor = contender("poor", 0.3, cost=Cost(serving_usd_per_1k_requests=0.1))
    found = recommend(
        [poor, good, best],
        [pair("poor", "good", "b better", -0.5), pair("poor", "best", "b better", -0.6),
         pair("good", "best", "b better", -0.1)],
        METRIC,
    )  # fmt: skip
    assert found.choice == "best"
    said = [line for line in found.when_not if line.startswith("Where")]
    assert said == [
        "Where 10.0 points matter less than money: good costs $0.50 for 1,000 requests, best $3.00."
    ]
    dear = replace(good, cost=Cost(serving_usd_per_1k_requests=4.0))
    again = recommend([dear, best], [pair("good", "best", "b better", -0.1)], METRIC)
    assert again.when_not == ()


def test_an_ended_model_cannot_be_chosen() -> None:
    old, own = contender("old", 0.9, ends="2026-10-23"), contender("own", 0.7)
    pairs = [pair("old", "own", "a better", 0.2)]
    before, on_the_day = datetime.date(2026, 10, 22), datetime.date(2026, 10, 23)
    assert recommend([old, own], pairs, METRIC, day=before).choice == "old"
    found = recommend([old, own], pairs, METRIC, day=on_the_day)
    assert found.choice == "own"
    assert "old (90.0%) is left out: it ended on 2026-10-23." in found.because
    nobody = recommend([old], [], METRIC, day=on_the_day)
    assert nobody.choice is None
    assert nobody.because[0] == "No contender can be chosen."


def test_a_tie_goes_to_what_has_no_end_date() -> None:
    """However much it costs; alone, a model that ends is chosen with the day in the headline."""
    ending = contender(
        "ft", 0.9, ends="2027-01-14", training=training(), cost=Cost(serving_usd_per_1k_requests=1)
    )
    own = contender("own", 0.89, training=training(), cost=Cost(serving_usd_per_1k_requests=9))
    found = recommend([ending, own], [pair("ft", "own", "tie", 0.01, 0.7)], METRIC)
    assert found.choice == "own"
    assert "Of these, own has no end date." in found.because
    found = recommend([ending, own], [pair("ft", "own", "a better", 0.1)], METRIC)
    assert (found.choice, found.caveats) == ("ft", (Caveat("ends", ends="2027-01-14"),))
    assert render_headline(found, METRIC) == "Use ft: it ends on 2027-01-14."


def test_the_model_that_is_left_is_the_yardstick() -> None:
    old, own = contender("old", 0.9), contender("own", 0.7, training=training())
    tie = pair("old", "own", "tie", 0.02, 0.7)
    for measured, caveats, headline in (
        (pair("old", "own", "a better", 0.2), [Caveat("behind", value=0.2, other="old")],
         "Use own: worse than old, which is being left, by 20.0 points."),
        (replace(tie, outcome="cannot be told", margin=0.03),
         [Caveat("unproven", value=0.03, other="old")],
         "Use own: it may lose more than 3 points against old, which is being left."),
        (replace(tie, outcome="cannot be told", margin=0.01, low_90=-0.03, high_90=0.02),
         [Caveat("unproven", value=0.01, other="old")],
         "Use own: it may lose more than 1 point against old, which is being left."),
        # Not worse, as parity has it, though it may be better by more than the margin.
        (replace(tie, outcome="cannot be told", margin=0.03, low_90=-0.08, high_90=0.02), [],
         "Use own."),
        (replace(tie, outcome="same", margin=0.03, low_90=-0.01, high_90=0.02), [], "Use own."),
        (pair("old", "own", "b better", -0.2), [], "Use own."),
    ):  # fmt: skip
        found = recommend([old, own], [measured], METRIC, leaving="old")
        assert found.choice == "own"
        assert list(found.caveats) == caveats
        assert render_headline(found, METRIC) == headline
        assert "old (90.0%) is left out: it is the model that is being left." in found.because
        assert any("old" in line and "own" in line for line in found.because[1:-1])
    assert recommend([old], [], METRIC, leaving="old").choice is None
    failed = replace(old, scores={}, error="it broke")
    found = recommend([failed, own], [], METRIC, leaving="old")
    assert render_headline(found, METRIC) == (
        "Use own: it may lose something against old, which is being left."
    )


def test_a_poor_choice_says_so_in_the_headline() -> None:
    group = [contender(name, value) for name, value in (("a", 0.42), ("b", 0.3), ("c", 0.1))]
    pairs = [pair("a", "b", "a better", 0.12), pair("a", "c", "a better", 0.32)]
    found = recommend(group, pairs, METRIC)
    assert render_headline(found, METRIC) == "Use a: the best of three, wrong in 6 of 10."
    found = recommend([contender("a", 0.004)], [], METRIC)
    assert render_headline(found, METRIC) == "Use a: the only one compared, wrong in 99.6%."
    # A model that is as good and cheaper, or not the one that is being left, is not the best.
    ending = contender("ending", 0.31, ends="2027-01-14")
    found = recommend([ending, group[1]], [pair("ending", "b", "tie", 0.01)], METRIC)
    assert render_headline(found, METRIC) == "Use b: wrong in 7 of 10."
    found = recommend(group, pairs, METRIC, leaving="a")
    assert render_headline(found, METRIC).endswith("by 12.0 points; wrong in 7 of 10.")
    found = recommend(group, pairs, METRIC, kind="fraction")
    assert render_headline(found, METRIC).endswith("three, at only 42.0% execution accuracy.")
    assert recommend([contender("a", 0.42), contender("b", 7.0)], [], METRIC).caveats == ()


def test_a_choice_must_be_better_than_a_baseline() -> None:
    """Where the test set is too small for any test, a higher score is enough."""
    against = replace(pair("a", "nearest example", "tie", 0.1, 0.3), units=40)
    for measured, beaten in (
        (against, False),
        (replace(against, verdict="a better"), True),
        (replace(against, units=5), True),
        (replace(against, units=5, difference=0.0), False),
        (replace(against, a="b"), True),
    ):
        bar = Baseline("nearest example", scores={METRIC: score(0.8)}, comparisons=(measured,))
        found = recommend([contender("a", 0.9)], [], METRIC, baselines=[bar])
        assert (found.caveats == ()) == beaten
    found = recommend(
        [contender("a", 0.9)], [], METRIC, baselines=[replace(bar, comparisons=(against,))]
    )
    assert render_headline(found, METRIC, baselines=[bar]) == (
        "Use a: not shown to be better than the answer of the nearest training example (80.0%)."
    )


def test_limits_come_from_the_records() -> None:
    found = recommend(
        [contender("a", 0.5, ends="2027-01-14", training=training(9, "still improving"))],
        [],
        METRIC,
    )
    assert found.when_not[0] == "a ends on 2027-01-14."
    assert found.when_not[1].startswith("a was still improving when its training ended")


def test_several_that_were_still_improving_are_one_sentence() -> None:
    group = [
        contender(name, value, training=training(9, "still improving"))
        for name, value in (("a", 0.5), ("b", 0.4), ("c", 0.3))
    ]
    found = recommend(group, [], "exact_match")
    said = [line for line in found.when_not if "still improving" in line]
    assert said == [
        "a, b and c were still improving when their training ended; with more epochs they may do "
        "better."
    ]
