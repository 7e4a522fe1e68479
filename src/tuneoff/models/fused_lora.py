"""LoRA's forward with two passes over memory fewer: the same numbers, to rounding.

PEFT computes `base(x) + B(A(x)) * scaling`: three passes over an output that is as wide as the
layer, and one more backward. Here the narrow `A(x)` (r numbers a token) is scaled, and B's
product is added to the base's output by one `addmm`. On a small model these passes are a fifth
of a training step.

Only the plain case is taken over (one active adapter, no DoRA or other variant, no bias, not
merged), and only while inside `fused_lora`; every other layer keeps PEFT's own forward.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch


@contextlib.contextmanager
def fused_lora(model: torch.nn.Module) -> Iterator[int]:
    """While inside, plain LoRA layers of `model` are computed as above; yields how many."""
    layers = [layer for layer in model.modules() if _is_plain(layer)]
    for layer in layers:
        layer.forward = partial(_forward, layer)
    try:
        yield len(layers)
    finally:
        for layer in layers:
            del layer.forward


def _is_plain(layer: Any) -> bool:
    if not hasattr(layer, "lora_A") or "forward" in vars(layer):
        return False
    active: list[str] = layer.active_adapters
    if len(active) != 1 or active[0] not in layer.lora_A:
        return False
    name = active[0]
    if name in getattr(layer, "lora_variant", {}):
        return False
    a, b = layer.lora_A[name], layer.lora_B[name]
    narrow = isinstance(a, torch.nn.Linear) and isinstance(b, torch.nn.Linear)
    return narrow and b.bias is None and not layer.merged


def _forward(layer: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    name = layer.active_adapters[0]
    a, b = layer.lora_A[name], layer.lora_B[name]
    plain = type(layer).forward
    if args or kwargs or layer.disable_adapters or layer.merged:
        found: torch.Tensor = plain(layer, x, *args, **kwargs)
        return found
    base = layer.base_layer(x)
    # Without autocast the adapter is float32 whatever the base is; PEFT converts its input.
    adapted = x if torch.is_autocast_enabled(x.device.type) else x.to(a.weight.dtype)
    narrow = a(layer.lora_dropout[name](adapted)) * layer.scaling[name]
    if narrow.dtype != base.dtype:
        apart: torch.Tensor = base + b(narrow).to(base.dtype)
        return apart
    added = torch.addmm(base.flatten(0, -2), narrow.flatten(0, -2), b.weight.T)
    whole: torch.Tensor = added.view(base.shape)
    return whole
