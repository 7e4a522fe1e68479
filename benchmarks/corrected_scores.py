"""How often do a judge's scores, corrected by people's labels, hold the truth? Simulated, seeded.

Prints, for each kind of data, the coverage of the intervals of scores and of differences (a target
of 92% is missed when it is missed by more than two standard errors of the simulation), bias and
width, and how many labels without a judge one label beside a judge is worth.

    python benchmarks/corrected_scores.py --json
    python benchmarks/corrected_scores.py --runs 200 --only "30 labels"

Data: right or wrong answers of two contenders, and a judge who calls right and wrong ones right at
rates of his own.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from calibration import SPIDER, Array, Figure, print_figures
from scipy.special import betaincinv

from tuneoff.scoring.corrected import correct_mean

LEAST = 0.92


@dataclass(frozen=True)
class LabelCell:
    """Rows that a judge scored, of which people label some.

    `rates` are the shares of answers of two contenders that people find right, `judges` how often
    the judge calls a right and a wrong answer of each right. Half of how much a cluster's rate
    departs from the mean is shared by the contenders; the judge errs more in some clusters.
    """

    name: str
    labels: int
    sizes: tuple[int, ...]
    rates: tuple[float, float]
    judges: tuple[tuple[float, float], tuple[float, float]]
    icc: float = 0.0


JUDGES: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "seldom wrong": ((0.99, 0.01),) * 2,
    "good": ((0.95, 0.1),) * 2,
    "fair": ((0.85, 0.25),) * 2,
    "for the second": ((0.85, 0.1), (0.97, 0.45)),
    "no better than chance": ((0.5, 0.5),) * 2,
}
# A judge's two readings of an answer contradict each other so often.
UNDECIDED = 0.1


def label_cells() -> Iterator[LabelCell]:
    """Yield every kind of labelled rows."""
    single = (1,) * 1_000
    for n in (20, 30, 100, 300):
        for name, judges in JUDGES.items():
            yield LabelCell(f"{n} labels of 1,000, judge {name}", n, single, (0.8, 0.7), judges)
        few = f"{n} labels of 1,000, 95% right, judge good"
        yield LabelCell(few, n, single, (0.95, 0.95), JUDGES["good"])
        for layout, sizes in (("20 clusters of 50", [50] * 20), ("20 clusters (Spider's)", SPIDER)):
            for name in ("good", "for the second"):
                title = f"{n} labels, {layout}, judge {name}"
                yield LabelCell(title, n, tuple(sizes), (0.75, 0.65), JUDGES[name], 0.1)


def draw_labels(cell: LabelCell, rng: np.random.Generator) -> list[tuple[Array, Array]]:
    """Return each contender's values by people and by the judge."""
    k = len(cell.sizes)
    index = np.repeat(np.arange(k), cell.sizes)
    shared, strange = rng.random(k), rng.uniform(-0.05, 0.05, k)
    found = []
    for rate, (right, wrong) in zip(cell.rates, cell.judges, strict=True):
        rates, shift = np.full(k, rate), np.zeros(k)
        if cell.icc:
            scale = (1 - cell.icc) / cell.icc
            places = (rate * scale, (1 - rate) * scale)
            rates = (betaincinv(*places, shared) + betaincinv(*places, rng.random(k))) / 2
            shift = strange
        people = (rng.random(len(index)) < rates[index]).astype(float)
        said = np.clip(np.where(people > 0, right, wrong) + shift[index], 0, 1)
        judged = (rng.random(len(index)) < said).astype(float)
        judged[rng.random(len(index)) < UNDECIDED] = 0.5
        found.append((people, judged))
    return found


def simulate_labels(cell: LabelCell, runs: int, seed: int) -> dict[str, float]:
    """Return how often corrected figures hold the truth, and how far they are from it."""
    rng = np.random.Generator(np.random.PCG64(seed))
    n = sum(cell.sizes)
    names = np.repeat(np.arange(len(cell.sizes)), cell.sizes).astype(str).tolist()
    ids = [str(i) for i in range(n)]
    clusters = dict(zip(ids, names, strict=True)) if cell.icc else None
    (rate_a, rate_b), sums = cell.rates, Counter[str]()
    for _ in range(runs):
        (people_a, judged_a), (people_b, judged_b) = draw_labels(cell, rng)
        chosen = rng.choice(n, cell.labels, replace=False).tolist()
        for what, people, judged, truth in (
            ("scores", people_a, judged_a, rate_a),
            ("differences", people_a - people_b, judged_a - judged_b, rate_a - rate_b),
        ):
            found = correct_mean(
                dict(zip(ids, judged.tolist(), strict=True)),
                {ids[i]: float(people[i]) for i in chosen},
                clusters, of_differences=what == "differences",
            )  # fmt: skip
            if found.value is None or found.low is None or found.high is None:
                continue
            sums[f"{what} made"] += 1
            sums[f"coverage of corrected {what}"] += found.low <= truth <= found.high
            sums[f"bias of corrected {what}"] += found.value - truth  # type: ignore[assignment]
            sums[f"width of corrected {what}"] += found.high - found.low  # type: ignore[assignment]
            by_people = float(people[chosen].mean()) - truth
            sums[f"square of corrected {what}"] += (found.value - truth) ** 2  # type: ignore[assignment]
            sums[f"square of people's {what}"] += by_people**2  # type: ignore[assignment]
    return dict(sums)


def label_figures(cell: LabelCell, sums: Mapping[str, float]) -> Iterator[Figure]:
    """Yield what is printed of labelled rows, with its targets."""
    for what in ("scores", "differences"):
        made = sums[f"{what} made"]
        value = sums[f"coverage of corrected {what}"] / made
        error = math.sqrt(value * (1 - value) / made)
        met = LEAST - value <= 2 * error
        yield Figure(cell.name, f"coverage of {what}", value, error, f">= {LEAST}", met)
        for name in ("bias", "width"):
            mean = sums[f"{name} of corrected {what}"] / made
            yield Figure(cell.name, f"{name} of {what}", mean)
        gain = sums[f"square of people's {what}"] / sums[f"square of corrected {what}"]
        yield Figure(cell.name, f"labels that one label is worth, {what}", gain)


def run(runs: int, processes: int, only: str) -> dict[str, Any]:
    """Return every figure."""
    chosen = [cell for cell in label_cells() if only in cell.name]
    shown: list[Figure] = []
    with ProcessPoolExecutor(processes) as pool:
        tasks = [pool.submit(simulate_labels, cell, runs, n) for n, cell in enumerate(chosen)]
        for cell, task in zip(chosen, tasks, strict=True):
            made = list(label_figures(cell, task.result()))
            shown += made
            words = (f"{figure.what} {figure.value:.3f}" for figure in made)
            print(cell.name, *words, sep="; ", file=sys.stderr, flush=True)
    missed = [asdict(figure) for figure in shown if figure.met is False]
    return {"runs": runs, "figures": [asdict(figure) for figure in shown], "missed": missed}


if __name__ == "__main__":
    print_figures(__doc__ or "", run)
