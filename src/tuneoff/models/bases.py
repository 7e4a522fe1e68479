"""A cache of one base, for the next contender that uses the same.

Loading and quantizing a large base takes minutes, and several LoRA contenders of a run often share
one. An adapter leaves its base unchanged, so a base can be used again once the adapter is removed.
At most one is cached, and one contender at a time uses it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from tuneoff.models.loading import load_model

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

BaseKey = tuple[str, str, Any]
_cached_base: dict[BaseKey, PreTrainedModel] = {}


def borrow_base(
    base: str, quantization: Literal["none", "int8", "nf4"], dtype: torch.dtype
) -> PreTrainedModel:
    """Return the cached base if it is the right one; else drop it and load the base.

    Raises:
        ConfigError: it cannot be loaded.
        MissingExtraError: bitsandbytes is needed and not installed.
    """
    kept = _cached_base.pop((base, quantization, dtype), None)
    drop_cached_base()
    return load_model(base, quantization, dtype) if kept is None else kept


def release_base(
    base: str, quantization: Literal["none", "int8", "nf4"], dtype: torch.dtype, model: Any
) -> None:
    """Remove the adapter from a borrowed base and cache the base."""
    import torch

    if hasattr(model, "peft_config"):
        model = model.unload()
    for leftover in ("peft_config", "_hf_peft_config_loaded"):
        if leftover in vars(model):
            delattr(model, leftover)
    # Transformers before 5.23 has only the old name.
    new = hasattr(model, "activation_checkpointing_disable")
    (model.activation_checkpointing_disable if new else model.gradient_checkpointing_disable)()
    for parameter in model.parameters():
        parameter.grad = None
    torch.nn.Module.eval(model)
    drop_cached_base()
    _cached_base[(base, quantization, dtype)] = model


def drop_cached_base() -> None:
    """Drop the cached base."""
    _cached_base.clear()
