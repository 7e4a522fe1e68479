"""Would a contender be ahead again if it were trained anew?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from tuneoff.results import Comparison
from tuneoff.scoring.intervals import compute_t_quantile
from tuneoff.scoring.pairs import compare_all
from tuneoff.scoring.training_variance import find_seeds

N = 200
LORA, FULL = ("local", "tiny", "lora"), ("local", "tiny", "full")
Scores = dict[str, float]


def answers(right: int, draw: int) -> Scores:
    """So many right answers at places of their own."""
    places = np.random.default_rng(draw).permutation(N)[:right].tolist()
    return {str(i): float(i in places) for i in range(N)}


def compared(
    trainings: Mapping[str, Sequence[int]], ways: Mapping[str, tuple[str, ...] | None]
) -> dict[tuple[str, str], Comparison]:
    """Contenders with so many right answers by training; nothing else of them is alike."""
    seeds = {
        name: [answers(right, 10 * place + seed) for seed, right in enumerate(counts)]
        for place, (name, counts) in enumerate(trainings.items())
    }
    means = {
        name: {id: float(np.mean([each[id] for each in found])) for id in found[0]}
        for name, found in seeds.items()
    }
    pairs = compare_all(means, "m", seeds=seeds, ways=ways)
    assert [replaced(pair) for pair in pairs] == list(compare_all(means, "m", seeds=seeds))
    return {(pair.a, pair.b): pair for pair in pairs}


def replaced(pair: Comparison) -> Comparison:
    """The verdict about the models at hand, which new trainings do not touch."""
    from dataclasses import replace

    return replace(pair, training=None)


def test_the_variance_is_of_examples_and_of_new_trainings_by_hand() -> None:
    found = compared(
        {"a": (140, 150, 166), "b": (90,), "p": (80,)}, {"a": LORA, "b": LORA, "p": ()}
    )
    of_a = float(np.var(np.array([140, 150, 166]) / N, ddof=1))
    # a's score is a mean of three, b's is one training; b's variance is known by a's seeds.
    for names, trainings in ((("a", "b"), 1 / 3 + 1), (("a", "p"), 1 / 3), (("b", "p"), 1)):
        pair = found[names]
        way = pair.training
        assert way is not None
        between = of_a * trainings
        # The variance of examples, from the interval's own width.
        half = pair.difference - way.low if way.low > -1 else way.high - pair.difference
        t = compute_t_quantile(0.05, way.freedom)
        units = (half / t) ** 2 - between
        assert 0 < units < 0.01
        assert way.freedom == pytest.approx(
            (units + between) ** 2 / (units**2 / (N - 1) + between**2 / 2)
        )
        assert way.p_value >= pair.p_value
        assert (way.low > 0) == (way.p_value < 0.05)
    first, pooled = found["a", "b"].training, found["b", "p"].training
    assert first is not None
    assert pooled is not None
    assert first.seeds_a == first.seeds_b == pooled.seeds_a
    assert pooled.seeds_b is None, "nothing is trained"
    assert first.seeds_a is not None
    assert first.seeds_a.deviation == pytest.approx(math.sqrt(of_a))
    assert (first.seeds_a.freedom, first.seeds_a.contenders) == (2, ("a",))
    assert found["a", "p"].training.outcome == "a better"  # type: ignore[union-attr]


def test_one_training_each_may_be_better_where_its_way_is_not() -> None:
    found = compared({"a": (120, 140, 100), "b": (130, 90, 125), "c": (150,), "d": (115,)},
                     dict.fromkeys("abcd", LORA))  # fmt: skip
    pair = found["c", "d"]
    assert pair.verdict == "a better"
    way = pair.training
    assert way is not None
    assert way.outcome == "cannot be told"
    assert way.low_adjusted < 0 < way.high_adjusted
    assert way.seeds_a == way.seeds_b
    assert way.seeds_a is not None
    assert (way.seeds_a.freedom, way.seeds_a.contenders) == (4, ("a", "b"))


def test_what_is_not_known_is_null() -> None:
    trainings = {"a": (140, 150, 166), "b": (90,), "r": (90,), "p": (60,), "q": (50,)}
    found = compared(trainings, {"a": LORA, "b": FULL, "r": None, "p": (), "q": ()})
    assert [names for names, pair in found.items() if pair.training] == [("a", "p"), ("a", "q")]
    alike = compared({"a": (150, 150), "p": (60,)}, {"a": LORA, "p": ()})
    assert alike["a", "p"].training is None, "seeds that score alike tell no spread"
    same = [{"x": 1.0}, {"x": 0.0}]
    copied = find_seeds({"a": LORA, "copy": LORA, "b": LORA}, {"a": same, "copy": same})
    assert copied["b"] == copied["a"], "the same trainings count once"
    five = {str(i): float(i % 2) for i in range(5)}
    few = compare_all(
        {"a": five, "p": dict.fromkeys(five, 0.0)},
        "m",
        {id: id for id in five},
        seeds={"a": [five, dict.fromkeys(five, 1.0)]},
        ways={"a": LORA, "p": ()},
    )
    assert few[0].training is None
