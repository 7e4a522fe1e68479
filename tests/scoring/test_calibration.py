"""How often the verdict is wrong, and how often it finds what is there. Everything is seeded."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from tuneoff.scoring.power import mcnemar_power, smallest_difference
from tuneoff.scoring.statistics import compare

EXAMPLES, DISCORDANCE = 1_083, 0.15


def pairs(
    rng: np.random.Generator, n: int, difference: float, discordance: float = DISCORDANCE
) -> list[tuple[float, float]]:
    """Answers of two contenders to n examples, of which a share differs."""
    only_a = (discordance + difference) / 2
    drawn = rng.choice(3, size=n, p=[only_a, discordance - only_a, 1 - discordance])
    return [((1.0, 0.0), (0.0, 1.0), (1.0, 1.0))[kind] for kind in drawn]


def better(comparison_p: float) -> bool:
    return comparison_p < 0.05


def mcnemar_size(n: int, discordance: float) -> float:
    """The exact test's own size: how often it rejects when neither is better."""
    total = 0.0
    for m in range(n + 1):
        weight = binom.pmf(m, n, discordance)
        k = np.arange(m + 1)
        tail = np.minimum(1.0, 2 * binom.cdf(np.minimum(k, m - k), m, 0.5))
        total += weight * float(binom.pmf(k, m, 0.5) @ (tail < 0.05))
    return total


def test_without_a_difference_mcnemar_says_better_as_often_as_it_may() -> None:
    rng = np.random.default_rng(1)
    runs, n = 2_000, 200
    found = sum(better(compare("a", "b", "m", pairs(rng, n, 0.0)).p_value) for _ in range(runs))
    size = mcnemar_size(n, DISCORDANCE)
    error = (size * (1 - size) / runs) ** 0.5
    assert abs(found / runs - size) < 3 * error
    assert found / runs <= 0.06
    assert mcnemar_power(n, 0.0, DISCORDANCE, 0.05) == pytest.approx(size, abs=1e-6)


def test_a_difference_of_five_points_is_found() -> None:
    rng = np.random.default_rng(2)
    runs = 300
    found = [compare("a", "b", "m", pairs(rng, EXAMPLES, 0.05)) for _ in range(runs)]
    right = sum(comparison.verdict == "a better" for comparison in found)
    assert right / runs > 0.95
    assert right / runs == pytest.approx(mcnemar_power(EXAMPLES, 0.05, DISCORDANCE, 0.05), abs=0.03)
    covered = sum(comparison.low <= 0.05 <= comparison.high for comparison in found)
    assert 0.92 < covered / runs < 0.98


def clustered(
    rng: np.random.Generator, sizes: list[int], spread: float
) -> tuple[list[tuple[float, float]], list[str]]:
    """Pairs in clusters that each favour one side or the other, none on the whole."""
    found: list[tuple[float, float]] = []
    names: list[str] = []
    for number, size in enumerate(sizes):
        tilt = float(np.clip(rng.normal(0, spread), -DISCORDANCE, DISCORDANCE))
        found += pairs(rng, size, tilt)
        names += [f"c{number}"] * size
    return found, names


def sql_cluster_sizes(data_dir: Path) -> list[int]:
    path = data_dir / "spider_create_context" / "validation.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return sorted(Counter(row["db_id"] for row in rows).values())


def test_clusters_that_pull_either_way_are_no_difference(data_dir: Path) -> None:
    """On the sizes of the SQL test set; a test of the examples would say better far too often."""
    sizes = sql_cluster_sizes(data_dir)
    assert (len(sizes), sum(sizes)) == (20, 568)
    rng = np.random.default_rng(3)
    runs, by_clusters, by_examples = 600, 0, 0
    for _ in range(runs):
        drawn, names = clustered(rng, sizes, spread=0.1)
        by_clusters += compare("a", "b", "m", drawn, names, "db_id").verdict != "tie"
        by_examples += compare("a", "b", "m", drawn).verdict != "tie"
    assert by_clusters / runs <= 0.07
    assert by_examples / runs > 0.15


def seeded(
    rng: np.random.Generator, n: int, seeds: int, spread: float
) -> tuple[list[tuple[float, float]], list[list[float]]]:
    """Two contenders whose trainings differ by chance and by nothing else."""
    hard = rng.random(n)
    answers = [
        [(rng.random(n) < np.clip(hard + rng.normal(0, spread), 0, 1)).astype(float)
         for _ in range(seeds)]
        for _ in range(2)
    ]  # fmt: skip
    means = [np.mean(each, axis=0) for each in answers]
    scores = [[float(answer.mean()) for answer in each] for each in answers]
    return list(zip(*means, strict=True)), scores


def test_trainings_that_vary_are_no_difference() -> None:
    """Three seeds each. Without their variance every second lucky training would be a finding."""
    rng = np.random.default_rng(4)
    runs, with_seeds, without = 500, 0, 0
    for _ in range(runs):
        drawn, scores = seeded(rng, 400, 3, spread=0.05)
        with_seeds += compare("a", "b", "m", drawn, seeds=scores).verdict != "tie"
        without += compare("a", "b", "m", drawn).verdict != "tie"
    assert with_seeds / runs <= 0.07
    assert without / runs > 0.15


def test_a_difference_between_trainings_that_hardly_vary_is_found() -> None:
    rng = np.random.default_rng(5)
    drawn, scores = seeded(rng, 1_000, 3, spread=0.002)
    worse = [(a, max(0.0, b - 0.2)) for a, b in drawn]
    scores[1] = [score - 0.2 for score in scores[1]]
    found = compare("a", "b", "m", worse, seeds=scores)
    assert (found.verdict, found.test) == ("a better", "t over seeds and examples")
    assert found.low < found.difference < found.high


@pytest.mark.parametrize("n", [60, 300, 1_083])
def test_the_smallest_difference_is_found_four_times_in_five(n: int) -> None:
    smallest = smallest_difference(n)
    assert smallest is not None
    rng = np.random.default_rng(n)
    runs, discordance = 400, max(DISCORDANCE, smallest)
    found = sum(
        compare("a", "b", "m", pairs(rng, n, smallest, discordance)).verdict == "a better"
        for _ in range(runs)
    )
    assert found / runs == pytest.approx(0.8, abs=0.06)


def test_what_no_test_set_can_show() -> None:
    assert smallest_difference(4) is None
    assert smallest_difference(0) is None
    assert smallest_difference(200, [40] * 5) is None, "five clusters: no p below 0.06"
    assert smallest_difference(568, [28] * 20) is not None


def test_more_comparisons_need_a_larger_difference() -> None:
    one, ten = smallest_difference(500), smallest_difference(500, comparisons=10)
    assert one is not None
    assert ten is not None
    assert one < ten
    clusters = smallest_difference(500, [25] * 20)
    assert clusters is not None
    assert clusters > one
