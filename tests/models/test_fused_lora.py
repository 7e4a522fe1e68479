"""The fused LoRA layer computes what PEFT's own does, forward and backward."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from models.architectures import model as random_model
from models.architectures import without_dropout

from tuneoff.models.lora import fuse_lora

EXACT, ROUNDED = 1e-5, 0.05
IDS = torch.tensor([[5, 6, 7, 8, 9, 10, 11], [3, 4, 5, 6, 7, 8, 9]])


def adapted(base: Any, **options: Any) -> Any:
    config = peft.LoraConfig(
        r=4, lora_alpha=12, target_modules="all-linear", task_type="CAUSAL_LM", **options
    )
    made: Any = peft.get_peft_model(base, config)
    torch.manual_seed(1)
    for name, parameter in made.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return without_dropout(made.train())


def computed(made: Any, autocast: bool = False) -> tuple[float, dict[str, torch.Tensor]]:
    made.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = made(input_ids=IDS, labels=IDS).loss
    loss.backward()
    return float(loss.detach()), {
        n: p.grad.clone() for n, p in made.named_parameters() if p.requires_grad
    }


def assert_same(made: Any, close: float, autocast: bool = False) -> None:
    loss, plain = computed(made, autocast)
    with fuse_lora(made) as layers:
        assert layers == 14
        fused_loss, fused = computed(made, autocast)
    assert fused_loss == pytest.approx(loss, rel=close)
    for name, gradient in plain.items():
        if close <= EXACT:
            assert float((fused[name] - gradient).norm()) <= close * float(gradient.norm()), name
    # In lower precision single small tensors are mostly rounding; all together they are not.
    whole, other = (torch.cat([g.flatten() for g in found.values()]) for found in (plain, fused))
    assert float((other - whole).norm()) <= close * float(whole.norm())
    assert computed(made, autocast)[0] == loss, "PEFT's own forward is back"


def test_float32() -> None:
    assert_same(adapted(random_model("llama")), EXACT)


def test_autocast() -> None:
    assert_same(adapted(random_model("llama")), ROUNDED, autocast=True)


def test_a_base_in_lower_precision() -> None:
    assert_same(adapted(random_model("llama").bfloat16()), ROUNDED)


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_quantized(quantization: Any, tmp_path: Path) -> None:
    from tuneoff.models.loading import load_model

    random_model("llama_wide").save_pretrained(tmp_path)
    base = load_model(str(tmp_path), quantization, torch.float32)
    assert_same(adapted(peft.prepare_model_for_kbit_training(base, False)), EXACT)


def test_dropout_is_still_there() -> None:
    made = adapted(random_model("llama"))
    for module in made.modules():
        if isinstance(module, torch.nn.ModuleDict) and "default" in module:
            inner = module["default"]
            if isinstance(inner, torch.nn.Identity):
                module["default"] = torch.nn.Dropout(0.5)
    with fuse_lora(made):
        torch.manual_seed(0)
        first, _ = computed(made)
        second, _ = computed(made)
        made.eval()
        third, _ = computed(made)
        fourth, _ = computed(made)
    assert first != second
    assert third == fourth


@pytest.mark.parametrize("options", [{"use_dora": True}, {"lora_bias": True}])
def test_what_is_not_plain_is_left_to_peft(options: dict[str, Any]) -> None:
    made = adapted(random_model("phi"), **options)  # its layers have biases
    with fuse_lora(made) as layers:
        assert layers == 0


def test_an_adapter_that_is_switched_off_stays_off() -> None:
    made = adapted(random_model("llama")).eval()
    with fuse_lora(made), made.disable_adapter(), torch.no_grad():
        off = made(input_ids=IDS).logits
    plain = made.get_base_model()
    with made.disable_adapter(), torch.no_grad():
        assert torch.equal(off, plain(input_ids=IDS).logits)
