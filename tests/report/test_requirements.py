"""A contender that does not meet the requirements is not chosen, and the report says why."""

from __future__ import annotations

from typing import Any

import pytest
from made_results import METRIC, contender, pair, recommend, training

from tuneoff.config.schema import Requirements
from tuneoff.results import ContenderResult, LatencyStats, Recommendation


def three() -> list[ContenderResult]:
    return [
        contender("mini", 0.9, id="hosted", place="provider", training=training(),
                  serving=LatencyStats(seconds_p50=0.4, seconds_p95=3.0)),
        contender("lora", 0.8, place="own", training=training(),
                  serving=LatencyStats(seconds_p50=0.2, seconds_p95=0.5)),
        contender("old", 0.7, id="recorded"),
    ]  # fmt: skip


PAIRS = [
    pair("lora", "mini", "b better", -0.1),
    pair("mini", "old", "a better", 0.2),
    pair("lora", "old", "a better", 0.1),
]


def recommended(**required: Any) -> Recommendation:
    return recommend(three(), PAIRS, METRIC, Requirements(**required))


def test_without_requirements_the_best_wins() -> None:
    assert recommended().choice == "mini"
    assert not [line for line in recommended().because if "left out" in line]


@pytest.mark.parametrize(
    ("required", "choice", "said"),
    [
        (
            {"data_stays_here": True},
            "lora",
            [
                "mini (90.0%) is left out: data_stays_here is required, and its examples and "
                "prompts go to a provider.",
                "old (70.0%) is left out: data_stays_here is required, and where it answers is not "
                "known.",
            ],
        ),
        (
            {"managed": True},
            "mini",
            [
                "lora (80.0%) is left out: managed is required, and somebody has to run it.",
                "old (70.0%) is left out: managed is required, and who runs it is not known.",
            ],
        ),
        (
            {"max_latency_seconds": 2},
            "lora",
            [
                "mini (90.0%) is left out: max_latency_seconds is 2, and one answer in twenty "
                "takes longer than 3.0 s."
            ],
        ),
    ],
)
def test_who_does_not_meet_them_is_left_out(
    required: dict[str, Any], choice: str, said: list[str]
) -> None:
    found = recommended(**required)
    assert found.choice == choice
    assert [line for line in found.because if "left out" in line] == said


def test_nobody_meets_them() -> None:
    found = recommended(managed=True, max_latency_seconds=1)
    assert found.choice is None
    assert found.because[0] == "No contender can be chosen."
    assert len(found.because) == 4


def test_a_latency_that_is_not_known_is_said() -> None:
    unmeasured = [contender("lora", 0.8, place="own", training=training())]
    found = recommend(unmeasured, [], METRIC, Requirements(max_latency_seconds=0.5))
    assert found.choice == "lora"
    assert found.when_not[0] == (
        "max_latency_seconds is 0.5, and how long lora takes to answer was not measured."
    )
    loaded = LatencyStats(seconds_p50=0.3, seconds_p95=0.9, concurrency=16)
    found = recommend(
        [contender("lora", 0.8, place="provider", serving=loaded)],
        [], METRIC, Requirements(max_latency_seconds=0.5),
    )  # fmt: skip
    assert "one answer in twenty, with up to 16 at once, takes longer than 900" in found.because[1]
    batched = [contender("mini", 0.8, place="provider", serving=LatencyStats(batch=True))]
    found = recommend(batched, [], METRIC, Requirements(max_latency_seconds=0.5))
    assert found.when_not[0].endswith(
        "was not measured: it answered in batches, which take up to a day."
    )
    half = [contender("lora", 0.8, place="own", serving=LatencyStats(seconds_p50=0.7))]
    found = recommend(half, [], METRIC, Requirements(max_latency_seconds=0.5))
    assert "half of its answers take longer than 700 ms" in found.because[1]
