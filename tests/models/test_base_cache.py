"""A base is loaded once for several adapters, and each adapter finds it as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from training.test_fine_tune import run, settings

from tuneoff.models import loading
from tuneoff.storage.run_dir import ContenderDir
from tuneoff.training.model_setup import load_tuned, release_model


@pytest.fixture(autouse=True)
def nothing_kept() -> Any:
    loading.drop_cached_base()
    yield
    loading.drop_cached_base()


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every base that is really loaded."""
    seen: list[str] = []
    load = loading.load_model

    def counting(base: str, *args: Any) -> Any:
        seen.append(base)
        return load(base, *args)

    monkeypatch.setattr(loading, "load_model", counting)
    return seen


@pytest.mark.parametrize("quantization", ["none", "int8"])
def test_two_adapters_load_one_base(
    tiny_base: Path, tmp_path: Path, loads: list[str], quantization: str
) -> None:
    first = settings(quantization=quantization, lora={"r": 4})
    second = settings(quantization=quantization, lora={"r": 8, "target_modules": "attention"})
    for name, chosen in (("a", first), ("b", second)):
        run(tiny_base, tmp_path / name, chosen)
        model = load_tuned(chosen, str(tiny_base), ContenderDir(tmp_path / name))
        release_model(chosen, str(tiny_base), model)
    assert len(loads) == 1
    loading.drop_cached_base()
    run(tiny_base, tmp_path / "alone", second)
    files = [tmp_path / n / "adapter" / "adapter_model.safetensors" for n in ("b", "alone")]
    assert files[0].read_bytes() == files[1].read_bytes(), "the first adapter left a trace"


def test_a_base_comes_back_as_it_was(tiny_base: Path, tmp_path: Path) -> None:
    before = loading.borrow_base(str(tiny_base), "none", torch.float32)
    weights = {name: p.clone() for name, p in before.named_parameters()}
    loading.release_base(str(tiny_base), "none", torch.float32, before)
    run(tiny_base, tmp_path, settings(train={"gradient_checkpointing": True}))
    after = loading.borrow_base(str(tiny_base), "none", torch.float32)
    assert after is before
    assert dict(after.named_parameters()).keys() == weights.keys()
    for name, parameter in after.named_parameters():
        assert torch.equal(parameter, weights[name])


def test_another_base_replaces_the_kept_one(tiny_base: Path, loads: list[str]) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float32):
        model = loading.borrow_base(str(tiny_base), "none", dtype)
        loading.release_base(str(tiny_base), "none", dtype, model)
    assert len(loads) == 3
