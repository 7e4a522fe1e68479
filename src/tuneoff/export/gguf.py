"""Writes a transformers model as a GGUF file, for llama.cpp and Ollama.

It uses llama.cpp's own `gguf` package: its writer, its tensor names and its rounding. What that
leaves to the converter is here: hyperparameters from the configuration, and the order of query and
key rows. llama.cpp's Llama rotates neighbouring pairs of a head, transformers rotates its two
halves, so rows are interleaved. llama.cpp's Qwen rotates halves, so its rows stay.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
from numpy.typing import NDArray

from tuneoff.errors import ConfigError
from tuneoff.export.gguf_tokenizer import Vocabulary
from tuneoff.export.options import OutType
from tuneoff.models.head import is_tied

if TYPE_CHECKING:
    import torch

_FILE_TYPES = {
    "f32": gguf.LlamaFileType.ALL_F32,
    "f16": gguf.LlamaFileType.MOSTLY_F16,
    "bf16": gguf.LlamaFileType.MOSTLY_BF16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
}
_TENSOR_TYPES = {
    "f32": gguf.GGMLQuantizationType.F32,
    "f16": gguf.GGMLQuantizationType.F16,
    "bf16": gguf.GGMLQuantizationType.BF16,
    "q8_0": gguf.GGMLQuantizationType.Q8_0,
}
# transformers' name of an architecture → llama.cpp's.
_ARCHITECTURES = {
    "LlamaForCausalLM": gguf.MODEL_ARCH.LLAMA,
    "MistralForCausalLM": gguf.MODEL_ARCH.LLAMA,
    "Qwen2ForCausalLM": gguf.MODEL_ARCH.QWEN2,
    "Qwen3ForCausalLM": gguf.MODEL_ARCH.QWEN3,
}
_ROPES = ("default", "linear", "llama3")
# transformers' defaults for a Llama 3 rope.
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}


def check_architecture(config: Any) -> None:
    """Refuse a model that cannot be converted correctly, before any weight is loaded.

    Raises:
        ConfigError: the architecture, or a part of it, is not supported here.
    """
    name = (config.architectures or [type(config).__name__])[0]
    reason = None
    if name not in _ARCHITECTURES:
        reason = f"{name}, and only {', '.join(_ARCHITECTURES)} are converted here"
    elif config.hidden_act != "silu":
        reason = f"{name} with the activation {config.hidden_act}"
    elif (rope := _get_rope(config)["rope_type"]) not in _ROPES:
        reason = f"{name} with {rope} rope scaling"
    elif _get_rope(config).get("partial_rotary_factor", 1.0) != 1.0:
        reason = f"{name} that rotates a part of each head"
    if reason:
        raise ConfigError(
            f"--format gguf: this base is a {reason}; use --format merged, then llama.cpp's own "
            "convert_hf_to_gguf.py."
        )


def write_gguf(path: Path, model: Any, vocabulary: Vocabulary, outtype: OutType, name: str) -> None:
    """Write a model whose architecture was checked; tensors are rounded one at a time.

    Args:
        name: the name that runtimes show.
    """
    arch = _ARCHITECTURES[type(model).__name__]
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[arch])
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    _add_hyperparameters(writer, model.config)
    writer.add_file_type(_FILE_TYPES[outtype])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_vocabulary(writer, vocabulary)
    for tensor_name, shape, kind, _ in _list_tensors(model, arch, outtype):
        _declare_tensor(writer, tensor_name, shape, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for _, _, kind, tensor in _list_tensors(model, arch, outtype):
        writer.write_tensor_data(gguf.quantize(_convert_to_numpy(tensor), kind))
    writer.close()


def _add_hyperparameters(writer: gguf.GGUFWriter, config: Any) -> None:
    """Write the model's hyperparameters."""
    rope, head = _get_rope(config), _get_head_dimension(config)
    writer.add_vocab_size(config.vocab_size)
    writer.add_block_count(config.num_hidden_layers)
    # llama.cpp ignores a sliding window, so the context must not exceed it.
    windows = [config.sliding_window] if getattr(config, "sliding_window", None) else []
    writer.add_context_length(min([config.max_position_embeddings, *windows]))
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])


def _add_vocabulary(writer: gguf.GGUFWriter, vocabulary: Vocabulary) -> None:
    """Write the tokenizer."""
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.scores:
        writer.add_token_scores(vocabulary.scores)
        writer.add_add_space_prefix(vocabulary.add_space_prefix)
    if vocabulary.merges:
        writer.add_token_merges(vocabulary.merges)
    for kind, number in vocabulary.special.items():
        getattr(writer, f"add_{kind}_token_id")(number)
    if vocabulary.turn_end is not None:
        writer.add_eot_token_id(vocabulary.turn_end)
    writer.add_add_bos_token(vocabulary.add_bos)
    writer.add_add_eos_token(vocabulary.add_eos)
    if vocabulary.chat_template is not None:
        writer.add_chat_template(vocabulary.chat_template)


Tensor = tuple[str, tuple[int, ...], gguf.GGMLQuantizationType, Any]


def _list_tensors(model: Any, arch: gguf.MODEL_ARCH, outtype: OutType) -> Iterator[Tensor]:
    """Yield the name, shape, type and values of every tensor of the file."""
    config = model.config
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    factors = _compute_rope_factors(config)
    if factors is not None:
        yield "rope_freqs.weight", factors.shape, gguf.GGMLQuantizationType.F32, factors
    for key, tensor in model.state_dict().items():
        if key == "lm_head.weight" and is_tied(model):
            continue
        name = names.get_name(key, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise ConfigError(
                f"--format gguf: llama.cpp's {gguf.MODEL_ARCH_NAMES[arch]} has no tensor {key}; "
                "use --format merged, then llama.cpp's own convert_hf_to_gguf.py."
            )
        if arch == gguf.MODEL_ARCH.LLAMA and ".q_proj." in key:
            tensor = interleave_heads(tensor, config.num_attention_heads)
        elif arch == gguf.MODEL_ARCH.LLAMA and ".k_proj." in key:
            tensor = interleave_heads(tensor, config.num_key_value_heads)
        yield name, tuple(tensor.shape), _choose_type(tensor, outtype), tensor


def _choose_type(tensor: Any, outtype: OutType) -> gguf.GGMLQuantizationType:
    """Return a tensor's type: vectors stay float32, rows that are no multiple of a block become
    float16."""
    if tensor.dim() < 2:
        return gguf.GGMLQuantizationType.F32
    block, _ = gguf.GGML_QUANT_SIZES[_TENSOR_TYPES[outtype]]
    return (
        _TENSOR_TYPES[outtype] if tensor.shape[-1] % block == 0 else gguf.GGMLQuantizationType.F16
    )


def _declare_tensor(
    writer: gguf.GGUFWriter, name: str, shape: tuple[int, ...], kind: gguf.GGMLQuantizationType
) -> None:
    """Declare a tensor to the writer; its values follow later."""
    plain: dict[Any, np.dtype[Any]] = {
        gguf.GGMLQuantizationType.F32: np.dtype(np.float32),
        gguf.GGMLQuantizationType.F16: np.dtype(np.float16),
    }
    stored = plain.get(kind, np.dtype(np.uint8))
    stored_shape = gguf.quant_shape_to_byte_shape(shape, kind) if stored == np.uint8 else shape
    writer.add_tensor_info(
        name, stored_shape, stored, math.prod(stored_shape) * stored.itemsize, kind
    )


def interleave_heads(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """Return a query or key projection (or bias) with the halves of each head interleaved."""
    halves = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
    return halves.swapaxes(1, 2).reshape(tensor.shape)


def _get_rope(config: Any) -> dict[str, Any]:
    """Return the rope's parameters, including `rope_type` and `rope_theta`."""
    parameters = dict(config.rope_parameters or {})
    parameters.setdefault("rope_type", "default")
    return parameters


def _get_head_dimension(config: Any) -> int:
    """Return the size of an attention head."""
    own = getattr(config, "head_dim", None)
    return int(own or config.hidden_size // config.num_attention_heads)


def _compute_rope_factors(config: Any) -> Any:
    """Return the divisors of a Llama 3 rope's frequencies; None for other ropes.

    They are 1 for short waves, `factor` for waves longer than the original context, and a mixture
    in between.
    """
    import torch

    rope = {**_LLAMA3, **_get_rope(config)}
    if rope["rope_type"] != "llama3":
        return None
    head, original = _get_head_dimension(config), rope["original_max_position_embeddings"]
    waves = 2 * math.pi * rope["rope_theta"] ** (torch.arange(0, head, 2).float() / head)
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    weight = ((original / waves - low) / (high - low)).clamp(0, 1)
    return 1 / ((1 - weight) / rope["factor"] + weight)


def _convert_to_numpy(tensor: Any) -> NDArray[np.float32]:
    """Return a tensor as a float32 array."""
    array: NDArray[np.float32] = tensor.detach().float().contiguous().numpy()
    return array
