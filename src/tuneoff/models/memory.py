"""Estimates the memory of a training in bytes before anything is loaded.

Counted are:

- the weights: int8 is 1 byte and a float32 scale a row; nf4 is half a byte and the doubly
  quantized constants of Dettmers et al. 2023; embeddings and head stay unquantized;
- the trained parameters: float32 weights, gradients and AdamW's two moments;
- activations, logits, and the memory of libraries and kernels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tuneoff.config.contenders import LocalConfig
from tuneoff.models.activations import FLOAT32, estimate_activations
from tuneoff.models.parameters import Parameters, inspect_parameters

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

ADAMW_MOMENTS = 2
# nf4: 4 bits a weight, one byte per 64 weights, and one float32 per 256 of those bytes.
NF4_BYTES = 0.5 + 1 / 64 + FLOAT32 / (64 * 256)
# Measured: Python with torch, transformers and peft resident. A CUDA context, its kernels.
LIBRARIES_BYTES, CUDA_BYTES = 600 * 2**20, 600 * 2**20
# Measured: glibc retains much freed memory, so resident memory is a multiple of the tensors'.
# Checkpointing allocates and frees most.
CPU_FRAGMENTATION, CPU_FRAGMENTATION_CHECKPOINTED = 1.5, 3.0
# The usable fraction of memory: allocators fragment, and others use the machine.
USABLE_FRACTION = 0.9
# Tokens of one forward pass beyond which a step gets no faster per token.
MAX_TOKENS = 16_384


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Memory of a training in bytes, by use."""

    weights_bytes: int
    adapter_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes_per_token: int
    overhead_bytes: int
    mask_bytes: int
    """Per token and position of the longest example in a padded batch."""

    def total_bytes(self, tokens: int, longest: int = 0) -> int:
        """Return the peak bytes when `tokens` are computed at once, padding included."""
        fixed = (
            self.weights_bytes
            + self.adapter_bytes
            + self.gradient_bytes
            + self.optimizer_bytes
            + self.overhead_bytes
        )
        return fixed + tokens * (self.activation_bytes_per_token + longest * self.mask_bytes)


def estimate_memory(
    config: PretrainedConfig,
    settings: LocalConfig,
    dtype: torch.dtype,
    *,
    gradient_checkpointing: bool,
    logits_chunk: int | None = None,
    on_accelerator: bool = False,
) -> MemoryEstimate:
    """Return the memory of training `settings` on a model of this configuration.

    Args:
        dtype: the compute precision; trained parameters are always float32.
        logits_chunk: tokens whose logits exist at once; None: all.

    Raises:
        ConfigError: the target modules cannot be found.
    """
    parameters = inspect_parameters(config, settings.lora)
    full = settings.method == "full"
    trained = parameters.total if full else parameters.adapter(settings.lora.r)
    activations = estimate_activations(config, settings, dtype, parameters, on_accelerator)
    overhead, factor = (CUDA_BYTES, 1.0) if on_accelerator else (LIBRARIES_BYTES, CPU_FRAGMENTATION)
    if gradient_checkpointing and not on_accelerator:
        factor = CPU_FRAGMENTATION_CHECKPOINTED
    per_token = round(factor * activations.per_token(gradient_checkpointing))
    loss = round(factor * activations.loss_per_token(gradient_checkpointing))
    if logits_chunk is None:
        per_token += loss
    else:
        overhead += logits_chunk * loss
    if settings.quantization != "none":
        # The backward pass multiplies with a layer's weights as they were before quantization.
        overhead += max(matrix.size for matrix in parameters.linear) * FLOAT32
    return MemoryEstimate(
        weights_bytes=_count_weight_bytes(settings, parameters, dtype),
        adapter_bytes=0 if full else trained * FLOAT32,
        gradient_bytes=trained * FLOAT32,
        optimizer_bytes=trained * FLOAT32 * ADAMW_MOMENTS,
        activation_bytes_per_token=per_token,
        overhead_bytes=overhead,
        mask_bytes=1 + dtype.itemsize * (1 if gradient_checkpointing else activations.layers),
    )


def shard_estimate(estimate: MemoryEstimate, parts: int) -> MemoryEstimate:
    """Return the estimate of one of several processes that share the model's parameters (FSDP).

    The layers that are gathered while they are computed are few and left out.
    """
    return replace(
        estimate,
        weights_bytes=estimate.weights_bytes // parts,
        adapter_bytes=estimate.adapter_bytes // parts,
        gradient_bytes=estimate.gradient_bytes // parts,
        optimizer_bytes=estimate.optimizer_bytes // parts,
    )


def count_micro_batch_tokens(
    estimate: MemoryEstimate, available_bytes: int, longest: int, most: int = MAX_TOKENS
) -> int:
    """Return how many tokens of a micro-batch fit into `available_bytes`.

    Never less than `longest`, the tokens of the longest example; `total_bytes` says whether even
    that fits.
    """
    free = USABLE_FRACTION * available_bytes - estimate.total_bytes(0)
    per_token = estimate.total_bytes(1, longest) - estimate.total_bytes(0)
    return max(longest, min(int(free // per_token), most))


def _count_weight_bytes(settings: LocalConfig, parameters: Parameters, dtype: torch.dtype) -> int:
    """Return the bytes of the base's weights, as trained or quantized."""
    linear = sum(matrix.size for matrix in parameters.linear)
    if settings.method == "full":
        # Autocast caches a copy of each float32 matrix in the compute precision.
        copies = 0 if dtype.itemsize == FLOAT32 else linear * dtype.itemsize
        return parameters.total * FLOAT32 + copies
    if settings.quantization == "none":
        return parameters.total * dtype.itemsize
    # What is not quantized is float32 (peft.prepare_model_for_kbit_training).
    rest = (parameters.total - linear) * FLOAT32
    if settings.quantization == "nf4":
        return rest + round(linear * NF4_BYTES)
    return rest + linear + sum(matrix.outputs for matrix in parameters.linear) * FLOAT32
