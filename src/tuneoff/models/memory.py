"""Memory in bytes: the estimate of a training before anything is loaded, and what is free now.

Counted are:

- the weights: int8 is 1 byte and a float32 scale a row; nf4 is half a byte and the doubly
  quantized constants of Dettmers et al. 2023; embeddings and head stay unquantized;
- the trained parameters: float32 weights, gradients and AdamW's two moments;
- activations that a decoder layer saves per token for its backward pass, logits, and the memory of
  libraries and kernels.

The counts of activations hold for a pre-norm decoder with gated feed-forward and a fused attention
kernel (Llama, Mistral, Qwen, …). Such kernels save no attention matrix, so a token costs the same
at any position. Source: what autograd saves, read with `saved_tensors_hooks`
(`tests/models/test_memory.py` compares).

Free memory is the accelerator's, or this process's share of main memory. A container (cgroup) may
limit the share far below what the machine has.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from tuneoff.config.contenders import LocalConfig
from tuneoff.models.parameters import Matrix, Parameters, inspect_parameters

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


CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
# (limit, used, the line of memory.stat that is reclaimable) in cgroup versions 2 and 1.
VERSION_2 = ("memory.max", "memory.current", "inactive_file")
VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def measure_available_bytes(device: torch.device | None = None) -> int:
    """Return the free bytes of a device (None or the CPU: main memory)."""
    if device is not None and device.type == "cuda":
        import torch

        free, _ = torch.cuda.mem_get_info(device)
        # Memory that PyTorch has reserved and does not use is free for PyTorch.
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    import psutil  # type: ignore[import-untyped]

    return min([int(psutil.virtual_memory().available), *_find_cgroup_free()])


def _find_cgroup_free(root: Path = CGROUPS, own: Path = OWN_CGROUPS) -> Iterator[int]:
    """Yield the free bytes below each memory limit that applies to this process."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            names, top = VERSION_2, root
        elif "memory" in controllers.split(","):
            names, top = VERSION_1, root / "memory"
        else:
            continue
        below = path.strip("/")
        parts = Path(below).parts
        for depth in range(len(parts), -1, -1):
            room = _read_free_bytes(top.joinpath(*parts[:depth]), *names)
            if room is not None:
                yield room


def _read_free_bytes(folder: Path, limit: str, used: str, reclaimable: str) -> int | None:
    """Return the free bytes below one cgroup's limit; None if it has none."""
    try:
        most, now = (folder / limit).read_text().strip(), int((folder / used).read_text())
        lines = (folder / "memory.stat").read_text().splitlines()
    except (OSError, ValueError):
        return None
    if not most.isdigit():
        return None  # "max": no limit here
    cached = sum(int(line.split()[1]) for line in lines if line.split()[0] == reclaimable)
    return max(0, int(most) - now + cached)
