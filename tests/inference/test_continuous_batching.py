"""Requests that come and go, each with its own adapter, are answered as one alone by plain
`generate`; prefixes that come again are kept, within bounds, and change nothing."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import peft
import pytest
import torch
from inference.tiny import VOCABULARY, ending, model_of

from tuneoff.inference import engine_check, generate, prefix_cache
from tuneoff.inference.attention import use_shared_attention
from tuneoff.inference.continuous_batching import ContinuousBatchingEngine
from tuneoff.inference.requests import Delta, GenerationRequest
from tuneoff.models.lora import MixedLora, explain_unmixable

MOST = 10
NEAR_TIE = 1e-3
# 2 layers of keys and values, 2 heads of 8 float32 numbers.
TOKEN_BYTES = 2 * 2 * 2 * 8 * 4
PLAIN = {"r": 4, "target_modules": "all-linear", "init_lora_weights": False}
ADAPTERS: dict[str, dict[str, Any]] = {
    "plain": PLAIN,
    "wide": {**PLAIN, "r": 7, "lora_alpha": 21, "use_rslora": True},
    "attention": {**PLAIN, "target_modules": ["q_proj", "v_proj"]},
    "dora": {**PLAIN, "use_dora": True},
    "bias": {**PLAIN, "lora_bias": True},
}
Asked = tuple[str | None, list[int]]


@pytest.fixture(autouse=True)
def short_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are kept though the test's prompts are short."""
    monkeypatch.setattr(prefix_cache, "MIN_CACHED_TOKENS", 8)
    monkeypatch.setattr(prefix_cache, "MIN_SAVED_TOKENS", 60)


class Model:
    """A random model with adapters, and what `generate` answers with each of them alone."""

    def __init__(self, *names: str) -> None:
        # Phi has biases, which an adapter may have too.
        self.model, self.mixer, self.wrapped = model_of("phi"), MixedLora(), None
        for seed, name in enumerate(names):
            torch.manual_seed(seed)
            config = peft.LoraConfig(**ADAPTERS[name])
            if self.wrapped is None:
                self.wrapped = peft.get_peft_model(self.model, config, adapter_name=name)
            else:
                self.wrapped.add_adapter(name, config)
            self.wrapped.eval()
            self.mixer.wrap_layers(self.model)
        assert engine_check.explain_unsupported(self.model, [[5, 6, 7]], MOST) is None

    def engine(self, kept_tokens: int = 10_000, slots: int = 6) -> ContinuousBatchingEngine:
        return ContinuousBatchingEngine(
            self.model, ending(()), self.mixer, slots, 1024, kept_tokens
        )

    def alone(self, adapter: str | None, ids: list[int]) -> list[int]:
        if self.wrapped is None:
            return generate.generate_batch(self.model, ending(()), [ids], MOST)[0]
        if adapter is None:
            with self.wrapped.disable_adapter():
                return generate.generate_batch(self.model, ending(()), [ids], MOST)[0]
        self.wrapped.set_adapter(adapter)
        return generate.generate_batch(self.model, ending(()), [ids], MOST)[0]


def ask(
    model: Model, engine: ContinuousBatchingEngine, asked: list[Asked]
) -> tuple[list[int], int]:
    """Answers all, asked at once: how many tokens of each prompt were kept, and how many
    answers left those of `generate` at a near-tie; any other difference is a failure."""
    pieces: list[list[Delta]] = [[] for _ in asked]
    requests = [
        (adapter, GenerationRequest(ids, MOST, told.append, temperature=0, logprobs=2))
        for (adapter, ids), told in zip(asked, pieces, strict=True)
    ]
    engine.join(requests)
    with use_shared_attention(model.model):
        while engine.is_busy():
            engine.advance()
    engine.rest()
    ties = 0
    for (adapter, ids), told in zip(asked, pieces, strict=True):
        assert told[-1].finish_reason == "length"
        chances = [chance for piece in told for chance in piece.chances]
        for chance, token in zip(chances, model.alone(adapter, ids), strict=True):
            if chance.token != token:
                assert chance.likeliest[0][1] - chance.likeliest[1][1] < NEAR_TIE
                ties += 1
                break
    return [told[-1].tokens_cached for told in pieces], ties


def tokens(seed: int, count: int) -> list[int]:
    draw = random.Random(seed)
    return [draw.randrange(3, VOCABULARY) for _ in range(count)]


def idle_bytes(engine: ContinuousBatchingEngine) -> int:
    return engine.cache.nbytes()[0]


def test_a_prefix_that_comes_again_is_kept() -> None:
    model, shared = Model(), tokens(1, 40)
    engine = model.engine()
    asked: Iterator[list[Asked]] = ([(None, shared + tokens(n, 9))] for n in range(2, 9))
    # 40 tokens are worth it once two earlier prompts had them, and are there for the next.
    cached = [ask(model, engine, each) for each in asked]
    assert [each[0] for each in cached] == [[0]] * 3 + [[40]] * 4
    assert sum(each[1] for each in cached) == 0
    assert idle_bytes(engine) == 40 * TOKEN_BYTES


def test_a_prompt_that_comes_again_keeps_its_last_token() -> None:
    model, prompt = Model(), tokens(1, 90)
    engine = model.engine()
    assert [ask(model, engine, [(None, prompt)])[0] for _ in range(3)] == [[0], [0], [89]]


def test_a_conversation_goes_on() -> None:
    model, engine, ids = Model(), None, tokens(1, 70)
    engine = model.engine()
    cached = []
    for turn in range(4):
        (found,), _ = ask(model, engine, [(None, ids)])
        cached.append(found)
        ids = ids + model.alone(None, ids) + tokens(turn, 15)
    # The second turn begins with the first and its answer, which the third finds kept.
    assert cached[:2] == [0, 0]
    assert cached[2] >= 70 + MOST - 1


def test_the_first_part_of_a_kept_run_is_used() -> None:
    model, shared = Model(), tokens(1, 80)
    engine = model.engine()
    ask(model, engine, [(None, shared + tokens(n, 5)) for n in range(9)])  # together
    assert idle_bytes(engine) == 80 * TOKEN_BYTES
    assert ask(model, engine, [(None, shared[:50] + tokens(20, 9))])[0] == [50]
    assert idle_bytes(engine) == (80 + 50) * TOKEN_BYTES
    both: list[Asked] = [(None, shared[:50] + tokens(21, 9)), (None, shared + tokens(22, 9))]
    assert ask(model, engine, both)[0] == [50, 80]
    assert idle_bytes(engine) == (80 + 50) * TOKEN_BYTES


def test_little_is_kept_where_there_is_little_memory() -> None:
    model = Model()
    for most in (0, 45, 100):
        engine = model.engine(kept_tokens=most)
        for seed in range(3):
            shared = tokens(seed, 40)
            ask(model, engine, [(None, shared + tokens(10 + n, 9)) for n in range(14)])
            assert idle_bytes(engine) <= most * TOKEN_BYTES
        assert idle_bytes(engine) == most // 40 * 40 * TOKEN_BYTES
        # The last stayed, the first went.
        assert ask(model, engine, [(None, [*tokens(2, 40), 9])])[0] == [40 if most >= 40 else 0]
        assert ask(model, engine, [(None, [*tokens(0, 40), 9])])[0] == [0]


def test_what_is_kept_goes_with_its_adapter() -> None:
    model, shared = Model("plain", "attention"), tokens(1, 40)
    engine = model.engine()
    for _ in range(2):
        for name in ("plain", "attention"):
            ask(model, engine, [(name, shared + tokens(n, 9)) for n in range(6)])
    assert idle_bytes(engine) == 2 * 40 * TOKEN_BYTES
    engine.forget("plain")
    assert idle_bytes(engine) == 40 * TOKEN_BYTES
    again: list[Asked] = [(name, [*shared, 7, 8]) for name in ("plain", "attention", None)]
    assert ask(model, engine, again)[0] == [0, 40, 0]


def test_who_left_the_line_is_not_computed() -> None:
    model, shared = Model(), tokens(1, 520)
    engine = model.engine(slots=1)
    told: list[list[Delta]] = [[], [], [], []]
    prompts = [tokens(2, 9), [*shared, 5], [*shared, 6], tokens(3, 9)]
    requests = [
        GenerationRequest(ids, MOST, pieces.append, temperature=0, logprobs=0)
        for ids, pieces in zip(prompts, told, strict=True)
    ]
    engine.join([(None, request) for request in requests])
    assert len(engine.prefixes) == 1  # which two of them share
    with use_shared_attention(model.model):
        engine.advance()
        for request in requests[1:3]:
            request.cancelled.set()
        while engine.is_busy():
            engine.advance()
    ends = [(pieces[-1].finish_reason, pieces[-1].tokens_out) for pieces in told]
    assert ends == [("length", MOST), ("stop", 0), ("stop", 0), ("length", MOST)]
    assert (idle_bytes(engine), engine.prefixes, engine.prompts) == (0, {}, {})
    # Nor is it taken to be there when it is asked again.
    assert ask(model, engine, [(None, prompts[1])])[0] == [0]


def test_an_answer_that_fails_fails_alone() -> None:
    """Its telling breaks, or its choosing, or it cannot even begin."""
    model = Model()
    engine, told = model.engine(), list[Delta]()

    def broken(piece: Delta) -> None:
        if piece.error is None:
            raise RuntimeError("nobody there")
        told.append(piece)

    class Unchosen(GenerationRequest):
        @property
        def temperature(self) -> float:
            raise RuntimeError("no number")

        @temperature.setter
        def temperature(self, value: float) -> None: ...

    good: list[list[Delta]] = [[], [], []]
    bad = [
        GenerationRequest(tokens(5, 9), MOST, broken, temperature=0, logprobs=0),
        Unchosen(tokens(6, 9), MOST, told.append),
        GenerationRequest(tokens(7, 9), MOST, told.append, seed=-1),
    ]
    prompts = [tokens(number, 9) for number in range(3)]
    fine = [
        GenerationRequest(ids, MOST, pieces.append, temperature=0, logprobs=0)
        for ids, pieces in zip(prompts, good, strict=True)
    ]
    engine.join([(None, each) for pair in zip(fine, bad, strict=True) for each in pair])
    with use_shared_attention(model.model):
        while engine.is_busy():
            engine.advance()
    assert sorted(piece.error or "" for piece in told)[1:] == ["no number", "nobody there"]
    for ids, pieces in zip(prompts, good, strict=True):
        assert pieces[-1].finish_reason == "length"
        assert [c.token for piece in pieces for c in piece.chances] == model.alone(None, ids)
    assert (engine.prompts, engine._answers, engine._broken) == ({}, {}, set())


def test_many_over_four_adapters_answer_as_alone() -> None:
    names = list(ADAPTERS)[:4]
    model, shared = Model(*names), tokens(1, 40)
    asked: list[Asked] = [
        (names[n % 4], shared[: 40 - n % 3] + tokens(n, 1 + n % 12)) for n in range(64)
    ]
    _, ties = ask(model, model.engine(slots=64), asked)
    assert ties <= 2


@pytest.mark.parametrize("seed", range(5))
def test_any_order_of_requests_with_any_adapters(seed: int) -> None:
    draw = random.Random(seed)
    model = Model(*ADAPTERS)
    engine = model.engine(kept_tokens=draw.choice([0, 100, 10_000]), slots=draw.choice([3, 20]))
    roots = [tokens(n, draw.randrange(20, 60)) for n in range(3)]
    ties = hits = 0
    for _ in range(6):
        asked: list[Asked] = []
        for _ in range(draw.randrange(1, 14)):
            root = draw.choice(roots)
            root = root[: draw.choice([len(root), len(root), draw.randrange(1, len(root))])]
            own = tokens(draw.randrange(10**6), draw.randrange(1, 12))
            asked.append((draw.choice([None, *ADAPTERS]), root + own))
        cached, found = ask(model, engine, asked)
        ties, hits = ties + found, hits + sum(cached)
    assert ties <= 2
    assert hits > 0 or engine._kept.max_idle_tokens < 10_000


@pytest.mark.parametrize("name", ADAPTERS)
def test_the_trial_of_an_adapter(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model(*dict.fromkeys(("plain", name)))
    assert model.wrapped is not None
    model.wrapped.set_adapter(name)
    assert explain_unmixable(model.wrapped, model.mixer, name) is None
    # Another adapter's numbers, or none, would be noticed.
    monkeypatch.setattr(MixedLora, "_mask", lambda self, beside, names: 0.5)
    monkeypatch.setattr("tuneoff.models.lora._apply_with_peft", lambda *a: a[3])
    reason = explain_unmixable(model.wrapped, model.mixer, name)
    assert reason is not None
    assert "logits differ" in reason
