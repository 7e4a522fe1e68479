"""Estimates the activations that a decoder layer saves per token for its backward pass, in bytes.

The counts hold for a pre-norm decoder with gated feed-forward and a fused attention kernel (Llama,
Mistral, Qwen, …). Such kernels save no attention matrix, so a token costs the same at any position.
Source: what autograd saves, read with `saved_tensors_hooks` (`tests/models/test_memory.py`
compares).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from tuneoff.config.contenders import LocalConfig
from tuneoff.models.parameters import Matrix, Parameters

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

FLOAT32 = 4
# Float32 copies for the loss over the vocabulary: logits, log-probabilities, their gradient.
LOGIT_COPIES = 3


@dataclass(frozen=True, slots=True)
class Activations:
    """Activation memory in bytes per token."""

    layers: int
    """The number of decoder layers."""
    boundary: int
    """Bytes that one layer passes to the next."""
    kept: int
    """Bytes that one layer saves for its backward pass."""
    backward: int
    """Bytes of one layer's gradients during its backward pass."""
    logits: int
    """Bytes of the loss over the vocabulary."""

    def per_token(self, gradient_checkpointing: bool) -> int:
        """Return the peak bytes of one token during a step, without the loss."""
        held = self.boundary if gradient_checkpointing else self.kept
        return self.layers * held + self._work(gradient_checkpointing)

    def loss_per_token(self, gradient_checkpointing: bool) -> int:
        """Return the extra bytes of the loss; its logits are freed before a layer's backward
        pass."""
        return max(0, self.logits - self._work(gradient_checkpointing))

    def _work(self, gradient_checkpointing: bool) -> int:
        """Return the bytes that one layer's backward pass needs."""
        return self.backward + (self.kept if gradient_checkpointing else 0)


def estimate_activations(
    config: PretrainedConfig,
    settings: LocalConfig,
    dtype: torch.dtype,
    parameters: Parameters,
    on_accelerator: bool = False,
) -> Activations:
    """Return the activations of training `settings` when computing in `dtype`."""
    text = config.get_text_config()
    hidden, heads, layers = text.hidden_size, text.num_attention_heads, text.num_hidden_layers
    attended = heads * (getattr(text, "head_dim", None) or hidden // heads)
    full, quantized = settings.method == "full", settings.quantization != "none"
    compute = dtype.itemsize
    # Float32 embeddings (trained, or beside quantized layers) make the residual stream float32.
    stream = FLOAT32 if full or quantized else compute
    inner = compute if full else stream
    width = _find_feed_forward_width(text)
    norms = 2 * hidden * (FLOAT32 + (stream if full else 0))
    if parameters.norms_queries:
        norms += 2 * attended * FLOAT32
    # Queries, keys and values (keys repeated for each head), output, and its log-sum-exp.
    attention = 4 * attended * compute + heads * FLOAT32
    feed_forward = 3 * width * inner  # gate, its activation, up
    # Dropout saves its mask: booleans on an accelerator, float32 on a CPU.
    mask = (1 if on_accelerator else FLOAT32) if settings.lora.dropout > 0 else 0
    inputs = _count_input_bytes(settings, compute, stream, parameters, mask) / layers
    return Activations(
        layers=layers,
        boundary=hidden * stream,
        kept=round(norms + attention + feed_forward + inputs),
        backward=3 * width * inner + 2 * hidden * stream,
        logits=text.vocab_size * (LOGIT_COPIES * FLOAT32 + (compute if compute < FLOAT32 else 0)),
    )


def _find_feed_forward_width(text: PretrainedConfig) -> int:
    """Return the feed-forward width that a token passes through; its experts' widths summed."""
    width = getattr(text, "intermediate_size", None) or getattr(text, "n_inner", None)
    width = int(width or 4 * text.hidden_size)
    experts = getattr(text, "num_experts_per_tok", None)
    return int(getattr(text, "moe_intermediate_size", None) or width) * int(experts or 1)


def _count_input_bytes(
    settings: LocalConfig, compute: int, stream: int, parameters: Parameters, mask: int
) -> float:
    """Return the bytes per token that all linear layers save of their inputs.

    A trained matrix needs its input for its gradient, and int8 layers save theirs too. Matrices of
    one input (q, k and v) share it, unless a cast or LoRA's dropout gives each its own copy.
    """
    full, int8 = settings.method == "full", settings.quantization == "int8"
    adapted = {matrix.path for matrix in parameters.adapted}
    total = 0
    for _, siblings in groupby(parameters.linear, key=lambda matrix: matrix.parent):
        *first, last = siblings
        for group in (first, [last]):
            targets = group if full else [m for m in group if m.path in adapted]
            own = compute < stream and group is first if full else mask > 0 or compute < FLOAT32
            copied = targets if own else targets[:1]
            # The attention kernel has saved its output already.
            if not own and _is_attention_output(group, last):
                copied = []
            total += sum(m.inputs for m in copied) * compute
            if not full:
                total += sum(m.inputs for m in targets) * mask
            if int8 and group and not _is_attention_output(group, last):
                total += group[0].inputs * stream
    return total


def _is_attention_output(group: list[Matrix], last: Matrix) -> bool:
    """Return whether these matrices are the output projection of attention."""
    return group == [last] and "att" in last.parent.lower()
