"""The memory estimate against what torch, PEFT and bitsandbytes really allocate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    PretrainedConfig,
    Qwen3Config,
)

from tuneoff.config.contenders import LocalConfig
from tuneoff.models.loading import SHIPPED_BASE_DIR, load_model
from tuneoff.models.memory import (
    MAX_TOKENS,
    MemoryEstimate,
    count_micro_batch_tokens,
    estimate_activations,
    estimate_memory,
)
from tuneoff.models.parameters import inspect_parameters, resolve_target_modules

GB = 10**9
SMALL = {
    "hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 2,
    "num_attention_heads": 4, "vocab_size": 256,
}  # fmt: skip
CONFIGS: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**SMALL),
    "grouped": LlamaConfig(**SMALL, num_key_value_heads=1),
    "qwen3": Qwen3Config(**SMALL, num_key_value_heads=2, head_dim=64),
}
METHODS: dict[str, dict[str, Any]] = {
    "full": {"method": "full"},
    "linear": {"lora": {"r": 4}},
    "attention": {"lora": {"r": 4, "target_modules": "attention"}},
    "no dropout": {"lora": {"r": 4, "dropout": 0}},
}


def settings(**fields: Any) -> LocalConfig:
    return LocalConfig(name="x", id="local", **fields)


def built(config: PretrainedConfig, chosen: LocalConfig, dtype: torch.dtype) -> Any:
    """A model as it is trained, on random weights."""
    import peft

    torch.manual_seed(0)
    if chosen.method == "full":
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    lora = peft.LoraConfig(
        r=chosen.lora.r,
        lora_dropout=chosen.lora.dropout,
        target_modules=resolve_target_modules(model, chosen.lora),
        task_type="CAUSAL_LM",
    )
    return peft.get_peft_model(model, lora)


def saved_bytes_per_token(model: Any, dtype: torch.dtype, tokens: int = 4096) -> float:
    """What autograd keeps between forward and backward, the loss apart."""
    inner = (model.get_base_model() if hasattr(model, "peft_config") else model).train()
    parameters = {p.untyped_storage().data_ptr() for p in [*model.parameters(), *model.buffers()]}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = torch.randint(3, 256, (tokens // 64, 64))
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32),
    ):
        _held = inner.model(input_ids=ids).last_hidden_state
    return sum(kept.values()) / tokens


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", CONFIGS)
def test_activations_are_what_autograd_keeps(name: str, method: str, dtype: torch.dtype) -> None:
    config, chosen = CONFIGS[name], settings(**METHODS[method])
    counted = estimate_activations(config, chosen, dtype, inspect_parameters(config, chosen.lora))
    measured = saved_bytes_per_token(built(config, chosen, dtype), dtype)
    assert 0.85 < counted.layers * counted.kept / measured < 1.2


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", CONFIGS)
def test_trained_parameters_are_exact(name: str, method: str) -> None:
    config, chosen = CONFIGS[name], settings(**METHODS[method])
    model = built(config, chosen, torch.float32)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    found = estimate_memory(config, chosen, torch.float32, gradient_checkpointing=False)
    assert found.gradient_bytes == trained * 4
    assert found.optimizer_bytes == trained * 8
    assert found.adapter_bytes == (0 if chosen.method == "full" else trained * 4)


def test_the_shipped_base_is_counted_exactly() -> None:
    model = AutoModelForCausalLM.from_pretrained(SHIPPED_BASE_DIR)
    parameters = inspect_parameters(AutoConfig.from_pretrained(SHIPPED_BASE_DIR), settings().lora)
    assert parameters.total == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_quantized_weights_are_what_bitsandbytes_makes(kind: Any, tmp_path: Path) -> None:
    import peft

    model = load_model(str(SHIPPED_BASE_DIR), kind, torch.float32)
    peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    for module in model.modules():
        scales = getattr(getattr(module, "weight", None), "SCB", None)
        weights += 0 if scales is None else scales.numel() * 4
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        if state is not None:
            weights += state.absmax.numel() + state.state2.absmax.numel() * 4
    config = AutoConfig.from_pretrained(SHIPPED_BASE_DIR)
    found = estimate_memory(
        config, settings(quantization=kind), torch.float32, gradient_checkpointing=True
    )
    assert found.weights_bytes == pytest.approx(weights, rel=0.01)


def test_the_seed_experiment_fits_48_gb_and_not_40() -> None:
    """CodeLlama-34B in int8, LoRA on attention, 16 rows of about 260 tokens at once."""
    code_llama = LlamaConfig(
        hidden_size=8192,
        num_hidden_layers=48,
        intermediate_size=22016,
        num_attention_heads=64,
        num_key_value_heads=8,
        vocab_size=32000,
    )
    lora = {"r": 8, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]}
    chosen = settings(quantization="int8", lora=lora)
    arguments: dict[str, Any] = {"dtype": torch.float16, "on_accelerator": True}
    found = estimate_memory(code_llama, chosen, gradient_checkpointing=True, **arguments)
    assert 33.7 * GB < found.weights_bytes < 36 * GB
    assert 40 * 2**30 < found.total_bytes(16 * 260, longest=260) < 48 * GB
    without = estimate_memory(code_llama, chosen, gradient_checkpointing=False, **arguments)
    assert without.total_bytes(16 * 260, longest=260) > 80 * GB, "checkpointing is needed"


def test_parts_behave_as_they_must() -> None:
    config = AutoConfig.from_pretrained(SHIPPED_BASE_DIR)

    def found(
        chunk: int | None = None, checkpointing: bool = False, **fields: Any
    ) -> MemoryEstimate:
        return estimate_memory(
            config,
            settings(**fields),
            torch.float32,
            gradient_checkpointing=checkpointing,
            logits_chunk=chunk,
        )

    whole = found()
    assert found(checkpointing=True).activation_bytes_per_token < whole.activation_bytes_per_token
    assert found(chunk=64).activation_bytes_per_token < whole.activation_bytes_per_token
    assert found(chunk=64).overhead_bytes > whole.overhead_bytes
    sizes = [found(quantization=kind).weights_bytes for kind in ("none", "int8", "nf4")]
    assert sizes == sorted(sizes, reverse=True)
    assert whole.total_bytes(100, 10) - whole.total_bytes(0) == 100 * (
        whole.activation_bytes_per_token + 10 * whole.mask_bytes
    )


def test_packs_fill_what_is_free_and_hold_the_longest() -> None:
    some = MemoryEstimate(1000, 0, 0, 0, 10, 0, 0)
    assert count_micro_batch_tokens(some, 10_000, longest=50) == (9000 - 1000) // 10
    assert count_micro_batch_tokens(some, 1000, longest=50) == 50
    assert count_micro_batch_tokens(some, 10**9, longest=50) == MAX_TOKENS
    assert count_micro_batch_tokens(some, 10**9, longest=2 * MAX_TOKENS) == 2 * MAX_TOKENS
    assert count_micro_batch_tokens(some, 10**9, longest=50, most=100) == 100
    masked = MemoryEstimate(1000, 0, 0, 0, 10, 0, mask_bytes=1)
    assert count_micro_batch_tokens(masked, 10_000, longest=30) == (9000 - 1000) // 40
