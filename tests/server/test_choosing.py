"""How a token is chosen, and its chances told: as a full sort of the vocabulary would have it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("fastapi")
from tuneoff.inference.requests import Generation, GenerationRequest, _compute_logprob, _keep_top_p

VOCABULARY = 1000


def logits(seed: int, spread: float) -> NDArray[np.float32]:
    """Of some of which there are several that are equal."""
    made = np.random.default_rng(seed).standard_normal(VOCABULARY) * spread
    return np.round(made, 1).astype(np.float32)


def chances(values: NDArray[np.float32], temperature: float) -> NDArray[np.float64]:
    scaled = values.astype(np.float64) / temperature
    found: NDArray[np.float64] = np.exp(scaled - scaled.max())
    return found / found.sum()


@pytest.mark.parametrize("spread", [0.0, 0.3, 3.0, 30.0])
@pytest.mark.parametrize("share", [1e-9, 0.1, 0.5, 0.9, 0.9999999])
def test_the_likeliest_are_those_of_a_full_sort(spread: float, share: float) -> None:
    for seed in range(5):
        weights = np.exp(logits(seed, spread).astype(np.float64))
        order = np.argsort(-weights, kind="stable")
        reached = np.cumsum(weights[order])
        kept = order[: np.searchsorted(reached, share * weights.sum()) + 1]
        found = _keep_top_p(weights, share)
        assert set(np.flatnonzero(found)) == set(kept)
        assert (found[kept] == weights[kept]).all()


@pytest.mark.parametrize("count", [0, 1, 5, 20])
def test_chances_are_those_of_a_full_sort(count: int) -> None:
    for seed in range(5):
        values = logits(seed, 2.0)
        logs = np.log(chances(values, 1.0))
        found = _compute_logprob(values, 7, count)
        assert found.logprob == pytest.approx(logs[7], abs=1e-12)
        order = np.argsort(-values, kind="stable")[:count]
        assert [token for token, _ in found.likeliest] == order.tolist()
        assert [chance for _, chance in found.likeliest] == pytest.approx(logs[order], abs=1e-12)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (1.5, 0.7)])
def test_tokens_come_as_often_as_they_are_likely(temperature: float, top_p: float) -> None:
    asked = GenerationRequest([1], 1, print, temperature=temperature, top_p=top_p, seed=1)
    answer = Generation.__new__(Generation)
    answer.request, answer._random = asked, np.random.default_rng(1)
    values = np.array([1.0, -np.inf, 0.0, 2.0, -1.0], dtype=np.float32)
    wanted = chances(values, temperature)
    if top_p < 1:
        wanted = _keep_top_p(wanted, top_p)
        wanted /= wanted.sum()
    drawn = np.bincount([answer._sample_token(values) for _ in range(20_000)], minlength=5) / 20_000
    assert drawn == pytest.approx(wanted, abs=0.015)
    assert (drawn[wanted == 0] == 0).all()


@pytest.mark.parametrize("odd", [np.nan, np.inf])
@pytest.mark.parametrize("top_p", [1.0, 0.5])
def test_numbers_that_ran_over_fail_nobody(odd: float, top_p: float) -> None:
    """In a batch, what fails for one fails for all."""
    answer = Generation.__new__(Generation)
    answer.request, answer._random = (
        GenerationRequest([1], 1, print, top_p=top_p),
        np.random.default_rng(1),
    )
    values = np.array([1.0, odd, 0.0], dtype=np.float32)
    assert answer._sample_token(values) == 1
    assert len(_compute_logprob(values, 1, 2).likeliest) <= 2
