"""Counts the parameters of an architecture from its configuration alone.

The model is built on torch's meta device: shapes without memory. So the counts are exact for every
architecture that transformers supports, and a 34 B model takes a second and no weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuneoff.config.contenders import LoraConfig
from tuneoff.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


@dataclass(frozen=True, slots=True)
class Matrix:
    """A two-dimensional weight."""

    path: str
    """The path of its module."""
    inputs: int
    outputs: int
    linear: bool
    """Whether it multiplies; an embedding only looks up."""

    @property
    def size(self) -> int:
        return self.inputs * self.outputs

    @property
    def parent(self) -> str:
        return self.path.rpartition(".")[0]


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameter counts of a model."""

    total: int
    """All parameters."""
    linear: tuple[Matrix, ...]
    """The matrices that can be quantized; the output head cannot."""
    adapted: tuple[Matrix, ...]
    """The matrices that LoRA is applied to."""
    norms_queries: bool
    """Whether queries and keys are normalized (Qwen3)."""

    def adapter(self, r: int) -> int:
        """Return the parameters of a LoRA of rank r: A is r x inputs, B is outputs x r."""
        return sum(r * (matrix.inputs + matrix.outputs) for matrix in self.adapted)


def count_parameters(base: str) -> int:
    """Return the number of parameters of a resolved base, without loading weights."""
    from transformers import AutoConfig

    every = LoraConfig(target_modules="all-linear")  # every architecture has such layers
    return inspect_parameters(AutoConfig.from_pretrained(base), every).total


def inspect_parameters(config: PretrainedConfig, lora: LoraConfig) -> Parameters:
    """Return the parameter counts of a configuration, without allocating memory.

    Raises:
        ConfigError: `attention` finds no linear layer in this architecture.
    """
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    model.tie_weights()
    head = model.get_output_embeddings()
    matrices = {
        path: _build_matrix(path, module)
        for path, module in model.named_modules()
        if getattr(module, "weight", None) is not None and module.weight.ndim == 2
    }
    heads = {path for path, module in model.named_modules() if module is head}
    linear = tuple(m for path, m in matrices.items() if m.linear and path not in heads)
    wanted = resolve_target_modules(model, lora)
    return Parameters(
        total=sum(parameter.numel() for parameter in model.parameters()),
        linear=linear,
        adapted=linear
        if wanted == "all-linear"
        else tuple(m for path, m in matrices.items() if _is_target(path, wanted)),
        norms_queries=any(path.endswith(".q_norm") for path, _ in model.named_modules()),
    )


def resolve_target_modules(model: PreTrainedModel, lora: LoraConfig) -> list[str] | str:
    """Return the modules that LoRA is applied to, as PEFT takes them.

    `attention` becomes the names of the linear layers inside attention blocks, which differ between
    architectures (q_proj, query_key_value, dense, …).

    Raises:
        ConfigError: `attention` finds none.
    """
    if lora.target_modules == "all-linear":
        return "all-linear"
    if lora.target_modules != "attention":
        return list(lora.target_modules)
    inside: set[tuple[str, str]] = set()
    outside: set[tuple[str, str]] = set()
    for path, module in model.named_modules():
        parent, _, name = path.rpartition(".")
        if getattr(module, "weight", None) is None or module.weight.ndim != 2:
            continue
        attends = "attn" in parent.lower() or "attention" in parent.lower()
        (inside if attends else outside).add((name, path))
    if not inside:
        raise ConfigError(
            "lora.target_modules: attention finds no linear layer in this base; name the modules."
        )
    # A name that other layers have too (GPT-2's c_proj) is replaced by its full path.
    others = {name for name, _ in outside}
    return sorted({path if name in others else name for name, path in inside})


def _build_matrix(path: str, module: object) -> Matrix:
    """Return the matrix of a module's weight."""
    from torch.nn import Embedding, Linear

    rows, columns = module.weight.shape  # type: ignore[attr-defined]
    # GPT-2's Conv1D in transformers stores its weight transposed.
    outputs, inputs = (rows, columns) if isinstance(module, Linear) else (columns, rows)
    return Matrix(path, inputs, outputs, not isinstance(module, Embedding))


def _is_target(path: str, names: list[str] | str) -> bool:
    """Return whether PEFT applies LoRA to a path: by the full path, or by its last part or
    parts."""
    return any(path == name or path.endswith(f".{name}") for name in names)
