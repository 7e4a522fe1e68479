"""How often are the intervals and tests of docs/statistics.md wrong? Simulated, seeded.

Prints, for each kind of data: the family-wise error (a difference is said where there is none), the
coverage of the intervals of differences and of single scores, how often a p-value and its interval
contradict each other, and the power to find at least one difference, beside that of Holm's method
over the pairs' own p-values. Each figure has the standard error of the simulation; a target is
missed when it is missed by more than two of these.

    python benchmarks/calibration.py --json > docs/results/benchmarks/calibration.json
    python benchmarks/calibration.py --runs 200        # a quick look

Data: right or wrong answers to examples whose difficulty differs by cluster (a beta distribution
with the intraclass correlation that is named), or fractions; contenders differ by an effect of
their own in each cluster, drawn symmetrically around the true difference, or skewed.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from scipy.special import betaincinv

from tuneoff.report import recommendation
from tuneoff.results import Comparison, ContenderResult, Cost, Score
from tuneoff.scoring.equivalence import adjust_not_worse
from tuneoff.scoring.holm import adjust_by_holm
from tuneoff.scoring.intervals import compute_score_interval
from tuneoff.scoring.paired import Pair
from tuneoff.scoring.pairs import compare_all
from tuneoff.scoring.selection import find_allowance

Array = np.ndarray[Any, np.dtype[np.float64]]
RUNS = 2_000
SEED_SPREAD = 0.03
RIGHT = 0.6
SIGNIFICANT = 0.05
SPIDER = [2, 3, 4, 10, 12, 16, 18, 20, 20, 24, 26, 28, 30, 36, 42, 44, 48, 55, 60, 70]
LAYOUTS: dict[str, list[int]] = {
    "5 clusters": [40] * 5,
    "8 clusters (the demo's)": [25] * 8,
    "20 clusters (Spider's)": SPIDER,
    "20 very unequal clusters": [400, 100, 100, *[20] * 5, *[5] * 12],
}


@dataclass(frozen=True)
class Cell:
    """One kind of data.

    `rates` are the contenders' shares of right answers; `icc` the correlation of examples of one
    cluster, whose difficulty all contenders share; `effect` the standard deviation over clusters of
    a contender's own effect. `trainings` of a contender differ by 3 points (one standard
    deviation). With `ways`, so many trainings of each contender, all of one base and kind, it is
    about training them anew.
    """

    name: str
    sizes: tuple[int, ...]
    rates: tuple[float, ...]
    clustered: bool = False
    icc: float = 0.0
    effect: float = 0.0
    skewed: bool = False
    fractions: str = ""
    trainings: int = 1
    is_target: bool = True
    ways: tuple[int, ...] = ()


@dataclass(frozen=True)
class Figure:
    """A share of the simulated data sets with its standard error, and what it should be."""

    cell: str
    what: str
    value: float
    error: float | None = None
    target: str | None = None
    met: bool | None = None


def draw(cell: Cell, rng: np.random.Generator) -> list[list[Array]]:
    """Return each contender's scores of every example, by training."""
    k = len(cell.sizes)
    index = np.repeat(np.arange(k), cell.sizes)
    place = rng.random(k)
    found = []
    for rate, trainings in zip(cell.rates, _trainings(cell), strict=True):
        rates = np.full(k, rate)
        if cell.icc:
            scale = (1 - cell.icc) / cell.icc
            rates = betaincinv(rate * scale, (1 - rate) * scale, place)
        noise = rng.exponential(1, k) - 1 if cell.skewed else rng.standard_normal(k)
        rates = np.clip(rates + cell.effect * noise, 0, 1)[index]
        seeds = rng.normal(0, SEED_SPREAD, trainings) * bool(cell.ways or trainings > 1)
        found.append([_answers(cell, np.clip(rates + seed, 0, 1), rng) for seed in seeds])
    return found


def _trainings(cell: Cell) -> tuple[int, ...]:
    return cell.ways or (cell.trainings,) * len(cell.rates)


def _answers(cell: Cell, rates: Array, rng: np.random.Generator) -> Array:
    if cell.fractions == "even":
        return np.asarray(np.clip(rates + rng.uniform(-0.2, 0.2, len(rates)), 0, 1))
    if cell.fractions == "skewed":  # most are right, a few are quite wrong
        return np.asarray(rng.beta(8 * rates, 8 * (1 - rates)))
    return (rng.random(len(rates)) < rates).astype(float)


@dataclass
class Tally:
    """What happened in some data sets of a cell."""

    runs: int = 0
    wrong: int = 0
    found: int = 0
    found_by_holm: int = 0
    intervals: int = 0
    covered: float = 0.0
    missing: int = 0
    contradictions: int = 0
    singles: float = 0.0
    ways_wrong: int = 0
    ways_found: int = 0
    ways: int = 0
    ways_covered: int = 0

    def add(self, other: Tally) -> None:
        """Add what happened in others."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


def simulate(cell: Cell, runs: int, seed: int) -> Tally:
    """Return what intervals and tests say of seeded data sets."""
    rng = np.random.Generator(np.random.PCG64(seed))
    n = sum(cell.sizes)
    ids = [str(i) for i in range(n)]
    names = np.repeat(np.arange(len(cell.sizes)), cell.sizes).astype(str).tolist()
    clusters = dict(zip(ids, names, strict=True)) if cell.clustered else None
    truth = {(f"c{i}", f"c{j}"): cell.rates[i] - cell.rates[j]
             for i, j in combinations(range(len(cell.rates)), 2)}  # fmt: skip
    tally = Tally()
    for _ in range(runs):
        answers = draw(cell, rng)
        scores = {
            f"c{i}": dict(zip(ids, np.mean(each, axis=0).tolist(), strict=True))
            for i, each in enumerate(answers)
        }
        seeds = None
        if max(_trainings(cell)) > 1:
            seeds = {
                f"c{i}": [dict(zip(ids, one.tolist(), strict=True)) for one in each]
                for i, each in enumerate(answers)
            }
        ways = dict.fromkeys(scores, ("one",)) if cell.ways else None
        pairs = compare_all(scores, "m", clusters, seeds=seeds, ways=ways)
        _count_ways(tally, pairs, truth)
        _count_pairs(tally, pairs, truth)
        _count_singles(tally, cell, answers, names)
    return tally


def _count_pairs(
    tally: Tally, pairs: Sequence[Comparison], truth: Mapping[tuple[str, str], float]
) -> None:
    tally.runs += 1
    by_holm = [p for p, _ in adjust_by_holm([pair.p_value for pair in pairs])]
    real = [truth[pair.a, pair.b] for pair in pairs]
    tally.wrong += any(p.verdict != "tie" for p, d in zip(pairs, real, strict=True) if not d)
    tally.found += any(p.verdict != "tie" for p, d in zip(pairs, real, strict=True) if d)
    tally.found_by_holm += any(p < SIGNIFICANT for p, d in zip(by_holm, real, strict=True) if d)
    for pair, difference in zip(pairs, real, strict=True):
        if pair.low is None or pair.high is None:
            tally.missing += 1
        else:
            tally.intervals += 1
            tally.covered += pair.low <= difference <= pair.high
        for low, high, p in (
            (pair.low, pair.high, pair.p_value),
            (pair.low_adjusted, pair.high_adjusted, pair.p_adjusted),
        ):
            if low is not None and high is not None:
                tally.contradictions += (low > 0 or high < 0) != (p < SIGNIFICANT)


def _count_ways(
    tally: Tally, pairs: Sequence[Comparison], truth: Mapping[tuple[str, str], float]
) -> None:
    """Count what is said of training anew, of which the true rates are the truth."""
    said = [(pair.training, truth[pair.a, pair.b]) for pair in pairs if pair.training]
    tally.ways_wrong += any(way.outcome != "cannot be told" for way, real in said if not real)
    tally.ways_found += any(way.outcome == "a better" for way, real in said if real > 0)
    for way, real in said:
        if way.low is not None and way.high is not None:
            tally.ways += 1
            tally.ways_covered += way.low <= real <= way.high
        for low, high, p in (
            (way.low, way.high, way.p_value),
            (way.low_adjusted, way.high_adjusted, way.p_adjusted),
        ):
            if low is not None and high is not None:
                tally.contradictions += (low > 0 or high < 0) != (p < SIGNIFICANT)


def _count_singles(
    tally: Tally, cell: Cell, answers: Sequence[Sequence[Array]], names: Sequence[str]
) -> None:
    """Count the coverage of the scores themselves, as a mean over the contenders."""
    index = np.array(names, dtype=int)
    for rate, trainings in zip(cell.rates, answers, strict=True):
        means = np.mean(trainings, axis=0)
        clusters: list[tuple[float, int]] = []
        if cell.clustered:
            sums = np.bincount(index, weights=means)
            clusters = list(zip(sums.tolist(), cell.sizes, strict=True))
        by_seed = [float(each.mean()) for each in trainings] if len(trainings) > 1 else []
        bounds = compute_score_interval(
            Counter(means.tolist()), not cell.fractions, clusters, by_seed
        )
        low, high = bounds or (0.0, 1.0)
        tally.singles += (low <= rate <= high) / len(cell.rates)


def cells() -> Iterator[Cell]:
    """Yield every kind of data."""
    for n in (10, 50, 200, 1_000):
        for k in (2, 4, 6):
            for name, ahead in (("no difference", 0.0), ("one ahead", _ahead(n))):
                yield Cell(
                    f"{k} contenders, {name}, {n} independent yes/no",
                    (1,) * n, (0.5 + ahead, *[0.5] * (k - 1)), is_target=n >= 50,
                )  # fmt: skip
    for shape in ("even", "skewed"):
        for n in (50, 200):
            rate = 0.5 if shape == "even" else 0.85
            yield Cell(
                f"4 contenders, {n} {shape} fractions", (1,) * n, (rate,) * 4, fractions=shape
            )
    for layout, sizes in LAYOUTS.items():
        for k in (2, 4, 6):
            for name, ahead in (("no difference", 0.0), ("one ahead", 0.2)):
                yield Cell(
                    f"{k} contenders, {name}, {layout}",
                    tuple(sizes), (0.5 + ahead, *[0.5] * (k - 1)), True, 0.1, 0.08,
                    is_target=len(sizes) >= 6,
                )  # fmt: skip
        for icc in (0.05, 0.2):
            for rate in (0.5, 0.75):
                yield Cell(
                    f"2 contenders, ICC {icc}, {rate:.0%} right, {layout}",
                    tuple(sizes), (rate,) * 2, True, icc, 0.05, is_target=len(sizes) >= 6,
                )  # fmt: skip
    yield Cell("2 contenders, skewed effects, 8 clusters (the demo's)", (25,) * 8, (0.5,) * 2,
               True, 0.1, 0.15, skewed=True, is_target=False)  # fmt: skip
    for trainings in (2, 3):
        for n in (200, 1_000):
            for k in (2, 4):
                yield Cell(
                    f"{k} contenders, {trainings} seeds each, {n} independent yes/no",
                    (1,) * n, (0.5,) * k, trainings=trainings, is_target=trainings > 2,
                )  # fmt: skip
    yield from _new_trainings()


def _new_trainings() -> Iterator[Cell]:
    """Yield trainings that differ between seeds, where the question is which way is better."""
    for n in (200, 1_000):
        for name, ways in (
            ("3 seeds each", (3, 3)),
            ("3 seeds, 1 pooled from it", (3, 1)),
            ("3 seeds, 3 seeds, 1, 1 pooled from them", (3, 3, 1, 1)),
        ):
            for ahead in (0.0, 0.15):
                rates = (RIGHT + ahead, *[RIGHT] * (len(ways) - 1))
                what = f"{len(ways)} contenders, {'one ahead, ' if ahead else ''}{name}"
                yield Cell(f"trained anew: {what}, {n} independent yes/no", (1,) * n, rates,
                           ways=ways)  # fmt: skip
    for layout in ("8 clusters (the demo's)", "20 clusters (Spider's)"):
        yield Cell(f"trained anew: 2 contenders, 3 seeds each, {layout}", tuple(LAYOUTS[layout]),
                   (RIGHT,) * 2, True, 0.1, 0.05, ways=(3, 3))  # fmt: skip


def _ahead(n: int) -> float:
    """Return a difference that is found in some half of the data sets."""
    return {10: 0.4, 50: 0.25, 200: 0.13, 1_000: 0.06}[n]


def figures(cell: Cell, tally: Tally) -> Iterator[Figure]:
    """Yield what is printed of a cell, with its targets."""
    runs = tally.runs
    null = len(set(cell.rates)) < len(cell.rates)
    if cell.ways:
        yield from _figures_of_ways(cell, tally, null)
        return
    if null:
        yield _figure(cell, "family-wise error", tally.wrong, runs, "at most", 0.06)
    if tally.intervals:
        yield _figure(
            cell, "coverage of differences", tally.covered, tally.intervals, "at least", 0.93,
            runs=runs,
        )  # fmt: skip
    least = 0.85 if "unequal" in cell.name else 0.92
    yield _figure(cell, "coverage of scores", tally.singles, runs, "at least", least)
    yield _figure(cell, "contradictions", tally.contradictions, runs, "at most", 0.0)
    if len(set(cell.rates)) > 1:
        by_holm = tally.found_by_holm / runs
        yield _figure(cell, "power", tally.found, runs, "at least", by_holm)
        yield _figure(cell, "power by Holm", tally.found_by_holm, runs, "", 0.0)


def _figures_of_ways(cell: Cell, tally: Tally, null: bool) -> Iterator[Figure]:
    """Yield what is printed of training anew, and how often a verdict, which is about the models at
    hand, would be wrong about it."""
    runs = tally.runs
    if null:
        yield _figure(
            cell, "a way is called better falsely", tally.ways_wrong, runs, "at most", 0.06
        )
        yield _figure(cell, "a model is better where its way is not", tally.wrong, runs, "", 0.0)
    yield _figure(
        cell, "coverage of differences between ways", tally.ways_covered, tally.ways, "at least",
        0.92, runs=runs,
    )  # fmt: skip
    yield _figure(cell, "contradictions", tally.contradictions, runs, "at most", 0.0)
    if len(set(cell.rates)) > 1:
        yield _figure(cell, "power", tally.ways_found, runs, "", 0.0)


def _figure(
    cell: Cell, what: str, count: float, of: int, side: str, target: float, runs: int | None = None
) -> Figure:
    value = count / of
    # Pairs of one data set are not independent, so the data sets count.
    error = math.sqrt(max(value * (1 - value), 0) / (runs or of))
    if not side or not cell.is_target:
        return Figure(cell.name, what, value, error, None, None)
    short = value - target if side == "at most" else target - value
    return Figure(cell.name, what, value, error, f"{side} {target:.3g}", short <= 2 * error)


def simulate_parity(runs: int, seed: int) -> dict[str, float]:
    """Return how often a model passes as not worse by 3 points or more, over 1,083 examples of
    which 15% are answered differently."""
    rng = np.random.Generator(np.random.PCG64(seed))
    n, discordance = 1_083, 0.15
    ids = [str(i) for i in range(n)]
    found = {}
    for name, loss in (("loses 3 points", 0.03), ("loses 1.5 points", 0.015), ("is equal", 0.0)):
        passed = 0
        for _ in range(runs):
            only_own = (discordance - loss) / 2
            kinds = rng.choice(3, n, p=[only_own, discordance - only_own, 1 - discordance])
            own = dict(zip(ids, np.isin(kinds, (0, 2)).astype(float).tolist(), strict=True))
            hosted = dict(zip(ids, np.isin(kinds, (1, 2)).astype(float).tolist(), strict=True))
            passed += adjust_not_worse([Pair("own", "hosted", own, hosted)])[0] < SIGNIFICANT
        found[f"passes if it {name}"] = passed / runs
    return found


def simulate_choice(runs: int, seed: int) -> dict[str, float]:
    """Return how often the right one of four contenders is chosen, at costs of 1 : 2 : 3 : 4."""
    rng = np.random.Generator(np.random.PCG64(seed))
    found = {}
    for discordance in (0.15, 0.32):
        for n in (200, 1_000):
            for name, lead in (("equal", 0.0), ("one ahead", 0.1)):
                right = 0
                for run in range(runs):
                    leader = run % 4 if lead else 0
                    right += _choose(rng, n, discordance, lead, leader) == leader
                key = f"{name}, {n} examples, {discordance:.0%} differ"
                found[key] = right / runs
    return found


def _choose(rng: np.random.Generator, n: int, discordance: float, lead: float, leader: int) -> int:
    """Return which contender is chosen; 0 is the cheapest."""
    ids = [str(i) for i in range(n)]
    # Each contender differs from common answers, 60% of them right, in this share, so that two
    # differ in `discordance` of all; the leader's differences are for the better by `lead`.
    share = (1 - math.sqrt(1 - 2 * discordance)) / 2
    common = rng.random(n) < RIGHT
    scores = {}
    for place in range(4):
        to_right = to_wrong = share
        if place == leader and lead:
            net = lead - (2 * RIGHT - 1) * share
            to_right = (share + net) / (2 * (1 - RIGHT))
            to_wrong = max(0.0, (share - net) / (2 * RIGHT))
        answers = common ^ (rng.random(n) < np.where(common, to_wrong, to_right))
        scores[f"c{place}"] = dict(zip(ids, answers.astype(float).tolist(), strict=True))
    pairs = compare_all(scores, "m")
    results = [
        _result(name, place + 1.0, found) for place, (name, found) in enumerate(scores.items())
    ]
    choice = recommendation(
        results, pairs, "m",
        allowance=lambda name, best, names: find_allowance(
            name, best, {x: scores[x] for x in names}
        ),
    ).choice  # fmt: skip
    return int(str(choice)[1:])


def _result(name: str, usd: float, found: Mapping[str, float]) -> ContenderResult:
    value = sum(found.values()) / len(found)
    return ContenderResult(
        name=name, id="local", model=name, prompt_sha256=None,
        scores={"m": Score(value, None, None, len(found))},
        cost=Cost(serving_usd_per_1k_requests=usd),
    )  # fmt: skip


def run(runs: int, processes: int, only: str) -> dict[str, Any]:
    """Return every figure."""
    chosen = [cell for cell in cells() if only in cell.name]
    with ProcessPoolExecutor(processes) as pool:
        tasks = []
        for number, cell in enumerate(chosen):
            has_power = len(set(cell.rates)) > 1
            count = runs // 4 if has_power and "clusters" not in cell.name else runs
            halves = [count // processes] * processes
            tasks.append([
                pool.submit(simulate, cell, half, 1_000 * number + part)
                for part, half in enumerate(halves)
            ])  # fmt: skip
        shown: list[Figure] = []
        for cell, parts in zip(chosen, tasks, strict=True):
            tally = Tally()
            for part in parts:
                tally.add(part.result())
            shown += figures(cell, tally)
            print(cell.name, *(f"{x.what} {x.value:.3f}" for x in shown if x.cell == cell.name),
                  sep="; ", file=sys.stderr, flush=True)  # fmt: skip
    missed = [figure for figure in shown if figure.met is False]
    found: dict[str, Any] = {
        "runs": runs,
        "figures": [asdict(figure) for figure in shown],
        "missed": [asdict(figure) for figure in missed],
    }
    if not only:
        found["parity"] = simulate_parity(runs, 1)
        found["choice"] = simulate_choice(runs // 4, 2)
    return found


def print_figures(about: str, measure: Callable[[int, int, str], dict[str, Any]]) -> None:
    """Read the command line, measure, and print every figure (`--json`) or what was missed."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--only", default="", help="kinds of data whose name has this")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    given = parser.parse_args()
    measured = measure(given.runs, given.processes, given.only)
    if given.json:
        print(json.dumps(measured, indent=1))
    else:
        for figure in measured["missed"]:
            print("missed:", figure)


if __name__ == "__main__":
    print_figures(__doc__ or "", run)
