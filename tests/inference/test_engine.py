"""The engine's answers are those of plain greedy decoding, prompt by prompt."""

from __future__ import annotations

from typing import Any

import pytest
from inference.tiny import (
    SERVED,
    Prompts,
    by_id,
    ending,
    essence,
    model_of,
    one_by_one,
    prompts_of,
)

from tuneoff.inference import attention, engine, engine_check, generate, prefix_groups
from tuneoff.inference.stopping import StopCriteria

MOST = 12


@pytest.fixture(autouse=True)
def short_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are kept though the test's prompts are short."""
    monkeypatch.setattr(prefix_groups.group_prompts, "__defaults__", (20,))


def check(model: Any, prompts: Prompts, end: StopCriteria, rows: int, most: int = MOST) -> None:
    assert engine_check.explain_unsupported(model, [ids for _, ids in prompts], most) is None
    found = by_id(engine.generate_with_engine(model, end, prompts, most, rows))
    wanted = one_by_one(model, end, prompts, most)
    assert {id: essence(prediction) for id, prediction in found.items()} == wanted
    # Were all answers alike, the test would show little.
    assert len({text for text, *_ in wanted.values()}) > len(wanted) / 2
    for id, ids in prompts:
        assert found[id].tokens_in == len(ids)


@pytest.mark.parametrize("kind", SERVED)
def test_answers_are_those_of_generate(kind: str) -> None:
    # Several end tokens, so that rows end at different times, and some do not.
    check(model_of(kind), prompts_of(1), ending((2, 3, 4, 5, 6, 7)), rows=5)


@pytest.mark.parametrize("rows", [1, 2, 7, 64])
def test_rows_enter_and_leave(rows: int) -> None:
    check(model_of("llama"), prompts_of(2), ending((2, 3, 4, 5, 6, 7)), rows)


@pytest.mark.parametrize(("groups", "each"), [(0, 0), (1, 9), (6, 2)])
def test_any_number_of_groups(groups: int, each: int) -> None:
    check(model_of("qwen2"), prompts_of(3, groups, each), ending(), rows=8)


def test_nothing_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix_groups.group_prompts, "__defaults__", (10**6,))
    check(model_of("llama"), prompts_of(4), ending(), rows=8)


def test_long_rows_and_pieces_of_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    model, prompts = model_of("llama"), prompts_of(5)
    # The trial fills two rows at a time, which are shorter than the real limit.
    assert engine_check.explain_unsupported(model, [ids for _, ids in prompts], MOST) is None
    for module in (attention, engine):
        monkeypatch.setattr(module, "MAX_BATCHED_PREFILL", 4)
    monkeypatch.setattr(attention, "MAX_SCORES", 64)
    check(model, prompts, ending(), rows=8)


def test_rows_are_cut_by_their_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "MIN_CUT_SAVING", {"cpu": 1, "cuda": 1})
    monkeypatch.setattr(engine, "CUT_STEP", 2)
    monkeypatch.setattr(engine, "WIDTH_STEP", 1)
    cuts: list[int] = []
    original = engine._cut_by_width
    monkeypatch.setattr(
        engine, "_cut_by_width", lambda *a: (found := original(*a), cuts.append(len(found)))[0]
    )
    check(model_of("llama"), prompts_of(6), ending((2, 3, 4, 5, 6, 7)), rows=9, most=30)
    assert max(cuts) > 2


def test_stop_texts_end_answers_and_are_cut_off() -> None:
    end = ending((2,), ("# ", "c"))
    model, prompts = model_of("llama"), prompts_of(7, 4, 9)
    check(model, prompts, end, rows=6, most=40)
    texts = [
        p.prediction
        for p in by_id(engine.generate_with_engine(model, end, prompts, 40, 6)).values()
    ]
    assert not any("c" in text or "# " in text for text in texts)
    reasons = {
        p.finish_reason
        for p in by_id(engine.generate_with_engine(model, end, prompts, 40, 6)).values()
    }
    assert reasons == {"stop", "length"}


def test_an_adapter_that_is_not_merged() -> None:
    import peft
    import torch

    model = peft.get_peft_model(
        model_of("llama"),
        peft.LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False),
    ).eval()
    prompts = prompts_of(8)
    check(model, prompts, ending(), rows=6)
    with model.disable_adapter(), torch.inference_mode():
        base = one_by_one(model, ending(), prompts, MOST)
    assert base != one_by_one(model, ending(), prompts, MOST)


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_a_quantized_model(quantization: Any, tmp_path: Any) -> None:
    import torch

    from tuneoff.models.loading import load_model

    pytest.importorskip("bitsandbytes")
    # Small weights: int8 treats columns with an activation over 6 apart, whichever row of a
    # batch it is in, so that with such outliers no batch answers what single rows do.
    small = {"hidden_size": 64, "intermediate_size": 128, "initializer_range": 0.1}
    model_of("llama", **small).save_pretrained(tmp_path)
    model = load_model(str(tmp_path), quantization, torch.float32).eval()
    check(model, prompts_of(9), ending((2, 3, 4, 5, 6, 7)), rows=6)


def test_shared_keys_are_held_once_and_let_go() -> None:
    prompts = prompts_of(10, groups=1, each=20)
    prompts = [(id, ids) for id, ids in prompts if id.startswith("0-")]
    state = engine.start_engine(model_of("llama"), ending(()), prompts, MOST, 20)
    state.advance()
    # 2 layers of keys and values, 2 heads of 8 float32 numbers.
    token = 2 * 2 * 2 * 8 * 4
    assert [len(run.tokens) for run in state.prefixes.values()] == [40]
    runs, rows = state.cache.nbytes()
    assert runs == 40 * token
    assert rows == 20 * 64 * token  # 64: the first step of growth, prompts' own parts are short
    while state.is_busy():
        state.advance()
    assert state.cache.nbytes()[0] == 0


def test_seconds_are_shares_of_the_time_spent() -> None:
    import time

    model, prompts = model_of("llama"), prompts_of(11)
    engine_check.explain_unsupported(model, [ids for _, ids in prompts], MOST)
    started = time.perf_counter()
    found = by_id(engine.generate_with_engine(model, ending(), prompts, MOST, 4))
    spent = time.perf_counter() - started
    assert all((p.seconds or 0) > 0 for p in found.values())
    assert sum(p.seconds or 0 for p in found.values()) <= spent


def test_predictions_come_while_others_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "PREDICTIONS_PER_YIELD", 2)
    model, prompts = model_of("llama"), prompts_of(12)
    before = model.config._attn_implementation
    answers = engine.generate_with_engine(model, ending(), prompts, MOST, 2)
    first = next(answers)
    assert len(first) <= 3
    answers.close()  # type: ignore[attr-defined]
    assert model.config._attn_implementation == before


def test_few_rows_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    model, prompts = model_of("llama"), prompts_of(13)
    engine_check.explain_unsupported(model, [ids for _, ids in prompts], MOST)
    # The longest row without a shared run has 29 of its own: 41 tokens of 256 bytes.
    monkeypatch.setattr(engine_check, "measure_available_bytes", lambda device: 2 * 3 * 50 * 256)
    state = engine.start_engine(model, ending(), prompts, MOST, 64)
    assert 1 < state.slots < 6
    check(model, prompts, ending(), rows=64)


def test_the_public_function_answers_with_the_engine() -> None:
    from inference.tiny import Words

    words: Any = Words()
    model, prompts = model_of("llama"), prompts_of(14)
    told: list[str] = []
    found = by_id(
        generate.generate_answers(
            model, words, [*prompts, ("empty", [])], MOST, batch_size=8, say=told.append
        )
    )
    assert told == []
    assert found.pop("empty").error == "the prompt is empty"
    wanted = one_by_one(model, ending(), prompts, MOST)
    assert {id: essence(prediction) for id, prediction in found.items()} == wanted
