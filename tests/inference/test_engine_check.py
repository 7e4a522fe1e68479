"""A model that the engine cannot serve exactly is found out, and answered the slow way."""

from __future__ import annotations

from typing import Any

import pytest
from inference.tiny import (
    Words,
    by_id,
    ending,
    essence,
    model_of,
    one_by_one,
    prompts_of,
)

from tuneoff.inference import attention, engine, engine_check, generate

MOST = 8
UNSERVED: list[tuple[str, dict[str, Any], str]] = [
    ("mistral", {"sliding_window": 16}, "sliding_window of 16 tokens is shorter"),
    ("gemma3_text", {"head_dim": 8, "sliding_window": 16}, "sliding_window of 16 tokens"),
    ("gemma2", {"head_dim": 8}, "softcap"),
    ("gpt_oss", {"head_dim": 8, "num_local_experts": 4}, "s_aux"),
    ("bloom", {}, "cannot be exchanged"),
    ("mamba", {}, "recurrent"),
    ("stablelm", {}, "do not hand keyword arguments on"),
    (
        "llama",
        {
            "rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4},
            "original_max_position_embeddings": 16,
        },
        "positions change",
    ),
]


@pytest.mark.parametrize(("kind", "settings", "why"), UNSERVED, ids=[u[0] for u in UNSERVED])
def test_a_reason_is_given(kind: str, settings: dict[str, Any], why: str) -> None:
    model = model_of(kind, **settings)
    before = model.config._attn_implementation
    reason = engine_check.explain_unsupported(model, [ids for _, ids in prompts_of(1)], MOST)
    assert reason is not None
    assert why in reason
    assert model.config._attn_implementation == before


def test_a_short_window_is_answered_by_generate_and_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine, "generate_with_engine", None)
    model, prompts = model_of("mistral", sliding_window=16), prompts_of(2)
    words: Any = Words()
    told: list[str] = []
    found = by_id(generate.generate_answers(model, words, prompts, MOST, say=told.append))
    assert len(told) == 1
    assert "transformers.generate" in told[0]
    assert "sliding_window of 16" in told[0]
    wanted = one_by_one(model, ending(), prompts, MOST)
    assert {id: essence(prediction) for id, prediction in found.items()} == wanted


def test_a_window_is_compared_with_the_text_and_the_answer() -> None:
    prompts = [[5] * 20]
    assert (
        engine_check.explain_unsupported(model_of("mistral", sliding_window=28), prompts, 8) is None
    )
    assert (
        engine_check.explain_unsupported(model_of("mistral", sliding_window=27), prompts, 8)
        is not None
    )


@pytest.mark.parametrize("broken", ["_build_bias", "_attend", "positions"])
def test_a_wrong_result_is_noticed(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    original = getattr(attention, broken, None)
    if broken == "_build_bias":
        monkeypatch.setattr(attention, "_build_bias", lambda *a: original(*a) * 0)
    elif broken == "_attend":
        # The weights of the parts are wrong.
        monkeypatch.setattr(attention, "_attend", lambda *a: (original(*a)[0], original(*a)[1] * 0))
    else:
        monkeypatch.setattr(
            engine_check, "build_positions", lambda s, n, d: torch.arange(n, device=d)[None]
        )
    reason = engine_check.explain_unsupported(
        model_of("llama"), [ids for _, ids in prompts_of(3)], MOST
    )
    assert reason is not None
    assert "differ" in reason


def test_the_trial_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, prompts = model_of("llama"), [ids for _, ids in prompts_of(4)]
    assert engine_check.explain_unsupported(model, prompts, MOST) is None
    monkeypatch.setattr(engine_check, "_compare_logits", None)
    assert engine_check.explain_unsupported(model, prompts, MOST) is None


@pytest.mark.parametrize("tokens", [1, 2, 11, 12, 13, 300])
def test_a_prompt_of_any_length_will_do_for_the_trial(tokens: int) -> None:
    prompt = [3 + n % 90 for n in range(tokens)]
    assert engine_check.explain_unsupported(model_of("llama"), [prompt], MOST) is None
