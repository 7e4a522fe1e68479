"""The base that was loaded last, kept for the next contender that wants the same.

Loading and quantizing a large base takes minutes, and several LoRA contenders of a run often
share one. An adapter leaves its base as it was, so a base that comes back without it can be
handed out again. One is kept at most, and it is handed out to one contender at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from tuneoff.models.loading import load_model

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

Key = tuple[str, str, Any]
_kept: dict[Key, PreTrainedModel] = {}


def borrow(
    base: str, quantization: Literal["none", "int8", "nf4"], dtype: torch.dtype
) -> PreTrainedModel:
    """The kept base if it is this one, else it is loaded, and the kept one is dropped first.

    Raises:
        ConfigError: it cannot be loaded.
        MissingExtraError: bitsandbytes is needed and not installed.
    """
    kept = _kept.pop((base, quantization, dtype), None)
    forget()
    return load_model(base, quantization, dtype) if kept is None else kept


def give_back(
    base: str, quantization: Literal["none", "int8", "nf4"], dtype: torch.dtype, model: Any
) -> None:
    """Keeps a borrowed base, its adapter taken off."""
    import torch

    if hasattr(model, "peft_config"):
        model = model.unload()
    for leftover in ("peft_config", "_hf_peft_config_loaded"):
        if leftover in vars(model):
            delattr(model, leftover)
    # Before transformers 5.23 it has the old name only.
    new = hasattr(model, "activation_checkpointing_disable")
    (model.activation_checkpointing_disable if new else model.gradient_checkpointing_disable)()
    for parameter in model.parameters():
        parameter.grad = None
    torch.nn.Module.eval(model)
    forget()
    _kept[(base, quantization, dtype)] = model


def forget() -> None:
    """Drops what is kept."""
    _kept.clear()
