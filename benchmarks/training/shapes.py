"""Llama shapes with random weights, built on the device itself: nothing is downloaded.

Speed and memory do not depend on what the weights are. The shapes are those of Llama 3.2 1B,
CodeLlama 7B and CodeLlama 34B (their `config.json`), and a tiny one that proves the path.

int8 is bitsandbytes' LLM.int8() (Dettmers et al. 2022), every linear layer but the head, as
`load_in_8bit` does; each layer's weights are random numbers that are quantized one matrix at
a time, so that the peak is the quantized model's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import LlamaConfig, PreTrainedModel

POSITIONS, INITIAL_STD = 4096, 0.02
SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 4096,
    },
    "1b": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "tie_word_embeddings": True,
    },
    "7b": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "vocab_size": 32016,
    },
    "34b": {
        "hidden_size": 8192,
        "intermediate_size": 22016,
        "num_hidden_layers": 48,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "vocab_size": 32000,
    },
}


def build(
    shape: str, device: torch.device, dtype: torch.dtype, quantization: str
) -> PreTrainedModel:
    """A causal language model of a shape; `quantization` is none or int8."""
    from transformers import AutoModelForCausalLM

    config = configuration(shape)
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype)
    if quantization == "int8":
        _quantize(model, device, dtype)
    _materialize(model, device)
    model.tie_weights()
    # Rotary frequencies are computed when the module is made, so it is made again, for real.
    rotary = model.model.rotary_emb
    model.model.rotary_emb = type(rotary)(config).to(device)
    return model  # type: ignore[no-any-return]


def configuration(shape: str) -> LlamaConfig:
    """The configuration of a shape."""
    from transformers import LlamaConfig

    return LlamaConfig(**SHAPES[shape], max_position_embeddings=POSITIONS)


def block_weights(shape: str) -> int:
    """Numbers in the linear layers of all blocks: what a token is multiplied with."""
    config = SHAPES[shape]
    size = config["hidden_size"] // config["num_attention_heads"]
    attention = 2 * (config["num_attention_heads"] + config["num_key_value_heads"]) * size
    feed_forward = 3 * config["intermediate_size"]
    return int(config["num_hidden_layers"] * config["hidden_size"] * (attention + feed_forward))


def _materialize(model: torch.nn.Module, device: torch.device) -> None:
    """Gives every parameter that is still on the meta device memory and random numbers."""
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if not parameter.is_meta:
                continue
            real = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
            if real.ndim > 1:
                real.normal_(std=INITIAL_STD)
            else:
                real.fill_(1.0)
            setattr(module, name, torch.nn.Parameter(real))


def _quantize(model: Any, device: torch.device, dtype: torch.dtype) -> None:
    """Puts int8 layers in the place of the linear ones."""
    from bitsandbytes.functional import int8_vectorwise_quant
    from bitsandbytes.nn.modules import Int8Params, Linear8bitLt

    head = model.get_output_embeddings()
    for path, module in list(model.named_modules()):
        if not isinstance(module, torch.nn.Linear) or module is head:
            continue
        with torch.device("meta"):
            layer = Linear8bitLt(
                module.in_features, module.out_features, bias=False, has_fp16_weights=False
            )
        random = torch.randn(module.weight.shape, dtype=dtype, device=device) * INITIAL_STD
        codes, scales, _ = int8_vectorwise_quant(random.half())
        layer.weight = Int8Params(
            codes, requires_grad=False, has_fp16_weights=False, CB=codes, SCB=scales
        )
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, layer)
    model.is_loaded_in_8bit = True
