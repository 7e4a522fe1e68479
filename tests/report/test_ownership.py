"""The seed experiment's conclusions as rules, each with the numbers of the run behind it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_results import METRIC, contender, pair, recommend, training

from tuneoff.report import ownership
from tuneoff.results import BreakEven, ContenderResult, Cost

CROSSING = BreakEven("lora", "mini", 1_234_567.0, 0.5, first_requests_per_month=1_234_567.0)
PAIRS = [
    pair("lora", "mini", "a better", 0.1),
    pair("base", "lora", "b better", -0.4),
    pair("base", "mini", "b better", -0.3),
]


def contenders(lora: float = 0.8, mini: float = 0.7) -> list[ContenderResult]:
    return [
        contender("lora", lora, place="own", training=training(), cost=Cost(training_usd=3.32)),
        contender("mini", mini, id="hosted", place="provider", training=training(),
                  cost=Cost(training_usd=11.99)),
        contender("base", 0.4, id="prompted", place="own"),
    ]  # fmt: skip


def test_an_own_model_for_cost_best_result_freedom_and_private_data() -> None:
    found = recommend(contenders(), PAIRS, METRIC, None, [CROSSING])
    assert found.choice == "lora"
    assert found.because[-3:] == (
        "Training mini cost 3.6 times as much as lora: $11.99 against $3.32.",
        "From 1.2 million requests a month on, owning lora is cheaper than mini (at 50% "
        "utilisation).",
        "lora is yours: its weights do not end and run where you want, and examples and prompts "
        "stay with you.",
    )
    assert found.when_not == (
        "Below 1.2 million requests a month mini costs less.",
        "Where nobody is to run machines, or it is only to be seen whether fine-tuning is right "
        "for this task: mini (execution accuracy 70.0%).",
    )


def test_a_hosted_model_to_validate_and_to_have_it_managed() -> None:
    pairs = [pair("lora", "mini", "b better", -0.1), *PAIRS[1:]]
    found = recommend(contenders(0.7, 0.8), pairs, METRIC, None, [CROSSING])
    assert found.choice == "mini"
    assert found.because[-2:] == (
        "Fine-tuning is right for this task: it brings 30.0 points [25.6, 34.4], p = 0.0003 over "
        "base.",
        "mini is managed: nobody has to run machines for it.",
    )
    assert found.when_not == (
        "Training mini cost 3.6 times as much as lora: $11.99 against $3.32.",
        "From 1.2 million requests a month on, owning lora is cheaper than mini (at 50% "
        "utilisation).",
        "Where data must stay with you, or weights be yours: lora (execution accuracy 70.0%).",
    )


def test_a_hosted_model_alone_asks_for_an_open_one() -> None:
    hosted = [contender("mini", 0.8, id="hosted", place="provider", training=training())]
    found = recommend(hosted, [], METRIC)
    assert found.when_not[0].startswith("No open model was compared")


def test_one_side_alone_says_nothing() -> None:
    own = [c for c in contenders() if c.place == "own"]
    found = recommend(own, PAIRS[1:2], METRIC)
    assert not [line for line in (*found.because, *found.when_not) if "yours" in line]


@pytest.mark.parametrize(
    ("lasting", "first", "until", "expected"),
    [
        (500.0, 500.0, None, "From 500 requests a month on, owning lora is cheaper than mini (at"),
        (0.0, 0.0, None, "Owning lora is cheaper than mini whatever is asked (at 50%"),
        (None, None, None, "At no number of requests a month owning lora is cheaper than mini (at"),
        (None, 9.0, 2e9, "Owning lora is cheaper than mini between 9 and 2 billion requests a"),
        (None, 1e4, None, "From 10,000 requests a month on, and only while its machines are full,"),
    ],
)
def test_a_crossing_in_words(
    lasting: float | None, first: float | None, until: float | None, expected: str
) -> None:
    crossing = BreakEven("lora", "mini", lasting, 0.5, first, until)
    assert ownership.describe_crossing(crossing).startswith(expected)
    warned = replace(crossing, warning="Mind: it was measured elsewhere.")
    assert ownership.describe_crossing(warned).endswith("). Mind: it was measured elsewhere.")


def test_ratios_are_within_the_same_data() -> None:
    def reported(name: str, usd: float, place: str, data: str | None) -> ContenderResult:
        return contender(name, id="recorded", place=place, data=data, cost=Cost(training_usd=usd))

    found = ownership.describe_ratios([
        reported("a", 3.32, "own", "x"), reported("b", 11.99, "provider", "x"),
        reported("c", 4.27, "own", "y"), reported("d", 4.3, "provider", "y"),
        reported("e", 1.0, "own", None), reported("f", 600.0, "provider", None),
        reported("g", 0.0, "own", "y"), replace(reported("h", 9, "own", "y"), error="failed."),
    ])  # fmt: skip
    assert found == [
        "Training b (x) cost 3.6 times as much as a: $11.99 against $3.32.",
        "Training d (y) cost as much as c: $4.30 against $4.27.",
        "Training f cost 600 times as much as e: $600.00 against $1.00.",
    ]
