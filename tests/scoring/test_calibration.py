"""How often the verdict is wrong, and how often it finds what is there; in short, seeded. The
figures of docs/statistics.md come from benchmarks/calibration.py, of which this runs one cell."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.stats import binom, norm, t

from tuneoff.results import FlipCounts
from tuneoff.scoring.equivalence import adjust_not_worse
from tuneoff.scoring.margins import find_margin_examples
from tuneoff.scoring.mcnemar import compute_mcnemar_p_value, compute_tango_statistic
from tuneoff.scoring.paired import Pair
from tuneoff.scoring.power import (
    DISCORDANCE,
    compute_design_effect,
    compute_mcnemar_power,
    compute_pair_level,
    describe_power,
    find_detectable,
    find_smallest_difference,
    find_way_detectable,
)

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "calibration.py"


@pytest.fixture(scope="module")
def calibration() -> ModuleType:
    spec = importlib.util.spec_from_file_location("calibration", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["calibration"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_few_clusters_and_many_pairs(calibration: ModuleType) -> None:
    """The demo's eight databases: no false verdicts, no contradiction, more power than Holm's."""
    cells = {cell.name: cell for cell in calibration.cells()}
    layout = "8 clusters (the demo's)"
    null = calibration.simulate(cells[f"4 contenders, no difference, {layout}"], 200, 1)
    assert null.wrong / 200 <= 0.06 + 2 * 0.0168
    assert null.covered / null.intervals >= 0.93
    assert null.singles / 200 >= 0.92 - 2 * 0.019
    ahead = calibration.simulate(cells[f"6 contenders, one ahead, {layout}"], 60, 2)
    assert ahead.found > 30
    assert ahead.found_by_holm == 0, "the least p of 15 pairs over 8 clusters is 0.12"
    assert null.contradictions == ahead.contradictions == 0


def test_seeds_that_differ_are_no_difference(calibration: ModuleType) -> None:
    (cell,) = (
        c for c in calibration.cells() if c.name.startswith("2 contenders, 3 seeds each, 20")
    )
    tally = calibration.simulate(cell, 150, 3)
    assert tally.wrong / 150 <= 0.06 + 2 * 0.0194
    assert tally.singles / 150 >= 0.92 - 2 * 0.022


def mcnemar_size(n: int, discordance: float) -> float:
    """The exact test's own size: how often it rejects when neither is better."""
    return sum(
        float(binom.pmf(m, n, discordance) * binom.pmf(k, m, 0.5))
        for m in range(n + 1)
        for k in range(m + 1)
        if compute_mcnemar_p_value(FlipCounts(k, m - k, 0, 0)) < 0.05
    )


def test_the_power_of_mcnemar() -> None:
    assert compute_mcnemar_power(60, 0.0, 0.15, 0.05) == pytest.approx(
        mcnemar_size(60, 0.15), abs=1e-6
    )
    rng = np.random.default_rng(4)
    draws = rng.multinomial(300, [0.12, 0.05, 0.83], 4_000)
    p_values = {tuple(d): compute_mcnemar_p_value(FlipCounts(*d, 0)) for d in draws[:, :3].tolist()}
    found = np.mean([p_values[tuple(d)] < 0.05 for d in draws.tolist()])
    assert compute_mcnemar_power(300, 0.07, 0.17, 0.05) == pytest.approx(found, abs=0.025)


def test_the_level_of_a_pair_is_tukeys() -> None:
    """Of the studentized range: tables give 3.314, 3.633 and 4.030 for 3, 4 and 6 means."""
    from scipy.stats import norm

    for contenders, q in ((2, 2.772), (3, 3.314), (4, 3.633), (6, 4.030)):
        assert compute_pair_level(contenders) == pytest.approx(2 * norm.sf(q / 2**0.5), rel=2e-3)


def test_what_no_test_set_can_show() -> None:
    assert find_smallest_difference(5) is None
    assert find_smallest_difference(0) is None
    assert find_smallest_difference(200, [40] * 5) is None, "five clusters: no p below 0.06"
    assert describe_power(200, [40] * 5, 4, "db_id") == (
        "5 databases can show no difference, however large; 6 are the least."
    )
    assert describe_power(3, None, 2) == (
        "3 test examples can show no difference, however large; 6 are the least."
    )
    assert describe_power(12, [2] * 6, 2, "customer") == (
        "12 test examples in 6 clusters (customer) can hardly show any difference."
    )


def test_more_of_all_that_makes_it_hard_needs_a_larger_difference() -> None:
    few, many = (find_detectable(500, None, 2), find_detectable(500, None, 5))
    assert few.few is not None
    assert few.many is not None
    assert many.few is not None
    assert few.few < many.few
    assert few.few < few.many
    clusters = find_smallest_difference(500, [25] * 20)
    assert clusters is not None
    assert clusters > few.few
    assert describe_power(500, None, 5).startswith("500 test examples can show differences from 6.")


@pytest.mark.parametrize("discordance", [0, 1])
def test_the_examples_of_a_margin_by_simulation(discordance: int) -> None:
    """Equal models pass in 80% with so many examples, by Tango's test as parity takes it."""
    needed = find_margin_examples(200, 0.03)
    share = DISCORDANCE[discordance]
    rng = np.random.default_rng(7)
    for n, two_sided in ((needed.not_worse[discordance], False), (needed.same[discordance], True)):
        draws = rng.multinomial(n, [share / 2, share / 2, 1 - share], 1_500).tolist()
        passed = [
            norm.sf(compute_tango_statistic(counts, -0.03)) < 0.05
            and (not two_sided or norm.cdf(compute_tango_statistic(counts, 0.03)) < 0.05)
            for counts in (FlipCounts(a, b, c, 0) for a, b, c in draws)
        ]
        assert np.mean(passed) == pytest.approx(0.8, abs=0.03)


def test_the_clusters_of_a_margin_by_simulation() -> None:
    """The same with flips over clusters of 25 examples, whose means differ as power.py has it."""
    needed = find_margin_examples(200, 0.05, [25] * 8)
    assert needed.clusters is not None
    clusters, deff = needed.clusters[0], compute_design_effect([25] * 8)
    assert (
        needed.not_worse[0] == 25 * clusters > deff * find_margin_examples(200, 0.05).not_worse[0]
    )
    rng = np.random.default_rng(8)
    means = rng.normal(0, (DISCORDANCE[0] * deff / 25) ** 0.5, (70, clusters))
    zero = {str(i): 0.5 for i in range(clusters)}
    passed = [
        adjust_not_worse(
            [Pair("a", "b", dict(zip(zero, 0.5 + row, strict=True)), zero)], None, 0.05
        )
        for row in means
    ]
    assert np.mean(np.array(passed) < 0.05) == pytest.approx(0.8, abs=0.1)


def test_seeds_bring_less_where_they_are_fewer() -> None:
    three, nine = (find_way_detectable(200, None, 2, seeds) for seeds in (3, 9))
    assert three.few is not None
    assert nine.few is not None
    assert find_smallest_difference(200) < nine.few < three.few  # type: ignore[operator]
    # By hand: 4 points between seeds, three of each, 15% of answers differ.
    variance = 0.15 / 200 + 2 * 0.04**2 / 3
    freedom = variance**2 / ((0.15 / 200) ** 2 / 199 + 2 * (0.04**2 / 3) ** 2 / 2)
    quantiles = t.ppf(0.975, freedom) + t.ppf(0.8, freedom)
    assert three.few == pytest.approx(quantiles * variance**0.5)
    assert find_way_detectable(200, [40] * 5, 2, 3).few is None
    # Of 40 examples more differ than 15%, where a difference shows: as many as the difference.
    few = find_way_detectable(40, None, 2, 3).few
    assert few is not None
    assert few > 0.15
    examples = few / 40
    variance = examples + 2 * 0.04**2 / 3
    freedom = variance**2 / (examples**2 / 39 + 2 * (0.04**2 / 3) ** 2 / 2)
    quantiles = t.ppf(0.975, freedom) + t.ppf(0.8, freedom)
    assert few == pytest.approx(quantiles * variance**0.5, rel=1e-4)
