"""Tiny random models of the architectures people use, for tests of what they compute."""

from __future__ import annotations

from typing import Any

VOCABULARY = 61
SIZE = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 128, "bos_token_id": 0,
    "eos_token_id": 1, "pad_token_id": 2,
}  # fmt: skip
GROUPED: dict[str, Any] = {**SIZE, "num_key_value_heads": 2}
# Wide enough for the blocks of 64 numbers that nf4 is made of.
WIDE: dict[str, Any] = {**GROUPED, "hidden_size": 64, "intermediate_size": 128}


def config(name: str) -> Any:
    import transformers as t

    made: dict[str, Any] = {
        "llama": lambda: t.LlamaConfig(**GROUPED),
        "llama_wide": lambda: t.LlamaConfig(**WIDE),
        "mistral": lambda: t.MistralConfig(**GROUPED, sliding_window=64),
        "qwen2": lambda: t.Qwen2Config(**GROUPED),
        "qwen3": lambda: t.Qwen3Config(**GROUPED, head_dim=16),
        "gpt_neox": lambda: t.GPTNeoXConfig(**SIZE),
        "gemma": lambda: t.GemmaConfig(**GROUPED, head_dim=8),
        "gemma3": lambda: t.Gemma3TextConfig(**GROUPED, head_dim=8, sliding_window=64),
        "phi": lambda: t.PhiConfig(**SIZE),
        "phi3": lambda: t.Phi3Config(**GROUPED),
        "gpt2": lambda: t.GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4),
        "mistral_short": lambda: t.MistralConfig(**GROUPED, sliding_window=8),
        "gemma2": lambda: t.Gemma2Config(**GROUPED, head_dim=8),
        "mamba": lambda: t.MambaConfig(
            vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=4
        ),
        "bloom": lambda: t.BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4),
    }
    return made[name]()


def model(name: str, seed: int = 0) -> Any:
    """A random float32 model in training mode, its dropout off."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    made: Any = AutoModelForCausalLM.from_config(config(name)).float().train()
    with torch.no_grad():
        for parameter in made.parameters():  # norms at 1 and biases at 0 would hide mistakes
            parameter.add_(0.02 * torch.randn_like(parameter))
    return without_dropout(made)


def without_dropout(model: Any) -> Any:
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model
