"""What is learned on a quantized base is the same whatever was computed on it before.

bitsandbytes packs nf4 weights for answering on CPUs with AVX512-BF16, at the first forward in
eval mode, and its product with packed weights passes no gradient on: only there could these
fail. (Layers whose output is no multiple of 32 could not be answered with at all.)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from models.architectures import WIDE
from models.architectures import model as random_model

from tuneoff.models import loading
from tuneoff.models.loading import load_model
from tuneoff.prefix_sharing.probe import explain_unshareable

bitsandbytes = pytest.importorskip("bitsandbytes")
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="only CPUs pack weights")
IDS = torch.tensor([[5, 6, 7, 8, 9, 10, 11], [3, 4, 5, 6, 7, 8, 9]])
CLOSE = 1e-5
Gradients = dict[str, torch.Tensor]


@pytest.fixture(params=["whole", "narrow_keys"])
def base(request: pytest.FixtureRequest, monkeypatch: Any, tmp_path: Path) -> str:
    if request.param == "narrow_keys":
        monkeypatch.setitem(WIDE, "num_key_value_heads", 1)
    random_model("llama_wide").save_pretrained(tmp_path)
    return str(tmp_path)


def adapted(base: Any) -> Any:
    base = peft.prepare_model_for_kbit_training(base, False)
    config = peft.LoraConfig(r=4, lora_alpha=12, target_modules="all-linear", task_type="CAUSAL_LM")
    made: Any = peft.get_peft_model(base, config)
    torch.manual_seed(1)
    for name, parameter in made.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return made.train()


def gradients(made: Any) -> Gradients:
    made.zero_grad()
    made(input_ids=IDS, labels=IDS).loss.backward()
    return {n: p.grad.clone() for n, p in made.named_parameters() if p.requires_grad}


def expected(base: str, quantization: Any) -> Gradients:
    """Over a float32 base whose weights are what the quantized ones stand for."""
    plain = load_model(base, "none", torch.float32)
    quantized = dict(load_model(base, quantization, torch.float32).named_modules())
    for name, layer in plain.named_modules():
        weight: Any = getattr(quantized[name], "weight", None)
        if isinstance(quantized[name], bitsandbytes.nn.Linear4bit):
            values = bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state)
        elif isinstance(quantized[name], bitsandbytes.nn.Linear8bitLt):
            values = weight.CB.float() * weight.SCB[:, None] / 127
        else:
            continue
        assert isinstance(layer, torch.nn.Linear)
        layer.weight.data = values.float()
    return gradients(adapted(plain))


@torch.no_grad()
def validated(made: Any) -> None:
    made.eval()
    made(input_ids=IDS, labels=IDS)
    made.train()


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_whatever_came_before(base: str, quantization: Any) -> None:
    truth = expected(base, quantization)
    borrowed = loading.borrow_base(base, quantization, torch.float32)
    with torch.no_grad():  # a prompted contender answers on it
        borrowed.eval().generate(IDS[:1], max_new_tokens=2, do_sample=False)  # type: ignore[operator]
    loading.release_base(base, quantization, torch.float32, borrowed)
    again = loading.borrow_base(base, quantization, torch.float32)
    assert again is borrowed
    after_answering = adapted(again)
    assert_same(after_answering, truth)
    validated(after_answering)
    assert_same(after_answering, truth)
    fresh = adapted(load_model(base, quantization, torch.float32))
    assert_same(fresh, truth)
    assert explain_unshareable(fresh, 20) is None
    assert_same(fresh, truth)


def assert_same(made: Any, truth: Gradients) -> None:
    found = gradients(made)
    assert len(found) == len(truth) == 28
    for name, gradient in truth.items():
        apart = float((found[name] - gradient).norm() / gradient.norm())
        assert apart <= CLOSE, f"{name}: {apart:.1e}"
