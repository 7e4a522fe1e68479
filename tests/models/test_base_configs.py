"""The known bases have as many parameters as their makers say (billions, from their pages)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tuneoff.config.contenders import LoraConfig
from tuneoff.models.loading import SHIPPED_BASE_DIR, find_base_config, load_architectures
from tuneoff.models.parameters import inspect_parameters


@pytest.mark.parametrize(
    ("base", "billions"),
    [
        ("codellama/CodeLlama-34b-hf", 33.74),
        ("codellama/CodeLlama-7b-hf", 6.74),
        ("meta-llama/Llama-2-13b-hf", 13.02),
        ("meta-llama/Llama-3.1-8B-Instruct", 8.03),
        ("meta-llama/Llama-3.1-70B", 70.55),
        ("mistralai/Mistral-7B-v0.1", 7.24),
        ("Qwen/Qwen3-0.6B", 0.6),
        ("Qwen/Qwen3-4B", 4.02),
        ("Qwen/Qwen3-8B", 8.19),
        ("Qwen/Qwen3-32B", 32.76),
    ],
)
def test_parameters(base: str, billions: float) -> None:
    config = find_base_config(base)
    assert config is not None
    assert inspect_parameters(config, LoraConfig()).total / 1e9 == pytest.approx(
        billions, abs=0.006
    )


def test_every_known_base_can_be_built() -> None:
    assert all(find_base_config(base) is not None for base in load_architectures())


def test_a_folders_own_config_and_an_unknown_one(tmp_path: Path) -> None:
    own = find_base_config(str(SHIPPED_BASE_DIR))
    assert own is not None
    assert (
        own.vocab_size == json.loads((SHIPPED_BASE_DIR / "config.json").read_text())["vocab_size"]
    )
    assert find_base_config("someone/else") is None
    (tmp_path / "config.json").write_text('{"model_type": "of-next-year"}')
    assert find_base_config(str(tmp_path)) is None
