"""Learning curves: what the sentence says, and what is drawn."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_results import METRIC, contender, recommend

from tuneoff.report.charts import learning_curve
from tuneoff.results import ContenderResult, CurvePoint


def curved(
    before: float, last: float, p: float, fraction: float = 0.5, **fields: object
) -> ContenderResult:
    points = (
        CurvePoint(fraction / 2, round(1000 * fraction / 2), before / 2, 0.0, 1.0),
        CurvePoint(fraction, round(1000 * fraction), before, before - 0.05, before + 0.05, 0.01),
        CurvePoint(1.0, 1000, last, last - 0.05, last + 0.05, p),
    )
    return contender("lora", last, learning_curve=points, **fields)


def test_a_gain_that_is_real_asks_for_more_data() -> None:
    assert learning_curve.describe_curve(curved(0.6, 0.725, 0.0004), METRIC) == (
        "With half of the training examples (500) lora reaches execution accuracy 60.0%; doubling "
        "them brings +12.5 points (p = 0.0004): more data would likely help."
    )


@pytest.mark.parametrize(("last", "p"), [(0.605, 0.8), (0.6, 1.0), (0.55, 0.03)])
def test_no_gain_says_so(last: float, p: float) -> None:
    told = learning_curve.describe_curve(curved(0.6, last, p), METRIC) or ""
    assert told.endswith("little more is to be had from more data.")
    assert ("+" in told) == (last > 0.6)


def test_a_gain_that_may_be_chance_is_no_promise() -> None:
    told = learning_curve.describe_curve(curved(0.6, 0.65, 0.2), METRIC) or ""
    assert told.endswith("whether more data would help cannot be told from this test set.")


def test_other_fractions_and_seeds_are_named() -> None:
    told = learning_curve.describe_curve(curved(0.6, 0.8, 0.001, 0.125, seeds=(4, 5)), METRIC) or ""
    assert told.startswith("With 12.5% of the training examples (125) lora (seed 4) reaches")
    assert "; all of them bring +20.0 points" in told
    assert "With 25% of" in (
        learning_curve.describe_curve(curved(0.6, 0.8, 0.001, 0.25), METRIC) or ""
    )


def test_no_curve_no_sentence_no_chart() -> None:
    assert learning_curve.describe_curve(contender("lora", 0.5), METRIC) is None
    assert learning_curve.build_curve_chart([contender("lora", 0.5)], METRIC) is None
    failed = replace(curved(0.5, 0.6, 0.1), error="no memory")
    assert learning_curve.build_curve_chart([failed], METRIC) is None


def test_the_chart_has_every_point_of_those_with_a_curve() -> None:
    spec = learning_curve.build_curve_chart(
        [contender("base", 0.4), curved(0.6, 0.8, 0.01)], METRIC
    )
    assert spec is not None
    rows = next(iter(spec["datasets"].values())) if "datasets" in spec else spec["data"]["values"]
    assert [(row["contender"], row["examples"], row["value"]) for row in rows] == [
        ("lora", 250, 0.3),
        ("lora", 500, 0.6),
        ("lora", 1000, 0.8),
    ]


def test_the_recommendation_tells_it_of_every_measured_contender() -> None:
    found = recommend([curved(0.6, 0.8, 0.01), contender("base", 0.4)], [], METRIC)
    assert found.choice == "lora"
    assert [text for text in found.when_not if text.startswith("With half of")] != []
