"""LoRA layers for batches whose rows have different adapters, or none.

The base's output is computed once for all rows. The adapters' narrow matrices are stacked side by
side, so that two products serve all of them. Every row gets every adapter's r numbers; numbers of
other rows' adapters are set to zero before they are widened. That is more arithmetic than selecting
each adapter's rows (PEFT's `adapter_names`), and far fewer operations. Adapters that are not plain
LoRA (DoRA, a bias) are computed by PEFT, on their own rows.

LoRA's forward pass with two fewer passes over memory: the same numbers, to rounding.

PEFT computes `base(x) + B(A(x)) * scaling`: three passes over an output that is as wide as the
layer, and one more in the backward pass. Here the narrow `A(x)` (r numbers a token) is scaled, and
one `addmm` adds B's product to the base's output. On a small model the saved passes are a fifth of
a training step.

It replaces only the plain case (one active adapter, no DoRA or other variant, no bias, not merged),
and only inside `fuse_lora`. Every other layer keeps PEFT's forward.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch.nn.functional import linear

# Maximum relative difference of a trial's logits.
EXACT_TOLERANCE, ROUNDED_TOLERANCE = 1e-4, 5e-2
Names = tuple[str | None, ...]


class MixedLora:
    """Computes the LoRA layers of one model for rows with different adapters."""

    def __init__(self) -> None:
        self._rows: Names | None = None
        self._masked_names: Names = ()
        self._used: tuple[str, ...] = ()
        # By layer: the adapters in use, and the layer's stack of them.
        self._stacks: dict[int, tuple[tuple[str, ...], _StackedAdapters]] = {}
        self._masks: dict[Any, torch.Tensor] = {}

    def wrap_layers(self, model: torch.nn.Module) -> None:
        """Wrap all LoRA layers that exist now; those wrapped already stay unchanged."""
        for layer in model.modules():
            if hasattr(layer, "lora_A") and "forward" not in vars(layer):
                layer.forward = partial(self._forward, layer)

    def drop_copies(self) -> None:
        """Drop the copies of adapters."""
        self._used = ()
        self._stacks.clear()
        self._masks.clear()

    @contextlib.contextmanager
    def use_adapters(self, adapters: Sequence[str | None]) -> Iterator[None]:
        """Set the adapters of the batch's rows while inside (None: the base alone)."""
        names = tuple(adapters)
        wanted = {name for name in names if name is not None}
        # Keep recently used adapters in the stack, for rows come and go, but not too many idle
        # ones.
        if not wanted <= set(self._used) or len(self._used) > 2 * max(1, len(wanted)):
            self._used = tuple(sorted(wanted))
            self._masks.clear()
        if names != self._masked_names:
            self._masked_names = names
            self._masks.clear()
        self._rows = names
        try:
            yield
        finally:
            self._rows = None

    def _forward(self, layer: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return a layer's output, each row with its own adapter."""
        names = self._rows
        if names is None:
            output: torch.Tensor = type(layer).forward(layer, x, *args, **kwargs)
            return output
        out: torch.Tensor = layer.base_layer(x, *args, **kwargs)
        beside = self._get_stack(layer)
        if not set(names).isdisjoint(layer.lora_embedding_A):
            raise ValueError("its embedding has an adapter")
        if not beside.ranks and not beside.others:  # it has adapters of other rows only
            return out
        if x.dim() != 3 or len(x) != len(names):
            raise ValueError("its layers do not get rows as they came")
        if beside.ranks:
            narrow = linear(x.to(beside.narrow.dtype), beside.narrow) * self._mask(beside, names)
            if narrow.dtype == out.dtype:
                added = torch.addmm(out.flatten(0, -2), narrow.flatten(0, -2), beside.wide.T)
                out = added.view(out.shape)
            else:
                out = out + linear(narrow, beside.wide).to(out.dtype)
        for name in beside.others:
            rows = torch.tensor([i for i, other in enumerate(names) if other == name])
            if len(rows):
                out = _apply_with_peft(layer, name, x, out, rows.to(x.device))
        return out

    def _get_stack(self, layer: Any) -> _StackedAdapters:
        """Return a layer's stack of the adapters in use, built at the first call."""
        known = self._stacks.get(id(layer))
        if known is None or known[0] != self._used:
            known = self._stacks[id(layer)] = self._used, _StackedAdapters(layer, self._used)
        return known[1]

    def _mask(self, beside: _StackedAdapters, names: Names) -> torch.Tensor:
        """Return (rows, 1, all ranks): 1 where a rank belongs to the row's adapter."""
        key = beside.ranks, beside.narrow.dtype
        if key not in self._masks:
            owners = [name for name, rank in beside.ranks for _ in range(rank)]
            own = [[name == owner for owner in owners] for name in names]
            self._masks[key] = torch.tensor(own, dtype=key[1], device=beside.narrow.device)[:, None]
        return self._masks[key]


@torch.inference_mode()
def explain_unmixable(wrapped: Any, mixer: MixedLora, name: str) -> str | None:
    """Explain why this adapter cannot be mixed with others in a batch; None if it can.

    A trial with two rows, one with the active adapter of PEFT's wrapper and one with the base
    alone, must give the logits of separate passes.
    """
    model = wrapped.get_base_model()
    device = model.device
    ids = torch.arange(8, device=device).view(2, 4) % model.config.get_text_config().vocab_size
    try:
        own = model(input_ids=ids[:1], use_cache=False).logits
        with wrapped.disable_adapter():
            base = model(input_ids=ids[1:], use_cache=False).logits
        with mixer.use_adapters([name, None]):
            both = model(input_ids=ids, use_cache=False).logits
    except Exception as error:  # any failure means that the adapter is not mixed
        return (str(error).strip() or type(error).__name__).splitlines()[0]
    alone = torch.cat([own, base]).float()
    difference = float((both.float() - alone).norm() / alone.norm().clamp_min(1e-12))
    rounded = model.dtype != torch.float32 or getattr(model, "is_quantized", False)
    # Written so that a NaN difference is refused too.
    if not difference <= (ROUNDED_TOLERANCE if rounded else EXACT_TOLERANCE):
        return f"logits differ by {difference:.1e} beside other adapters"
    return None


class _StackedAdapters:
    """A layer's adapters, stacked.

    `narrow` is (all ranks, in); `wide` is (out, all ranks) and includes the scalings; `ranks` are
    (adapter, rank) pairs; `others` are adapters that are not plain LoRA.
    """

    def __init__(self, layer: Any, used: Sequence[str]) -> None:
        has = [name for name in used if name in layer.lora_A]
        plain = [name for name in has if _is_plain(layer, name)]
        self.others = [name for name in has if name not in plain]
        self.ranks = tuple((name, int(layer.lora_A[name].out_features)) for name in plain)
        if plain:
            self.narrow = torch.cat([layer.lora_A[name].weight.detach() for name in plain])
            self.wide = torch.cat(
                [layer.lora_B[name].weight.detach() * layer.scaling[name] for name in plain], 1
            )


def _is_plain(layer: Any, name: str) -> bool:
    """Return whether an adapter is plain LoRA in this layer."""
    a, b = layer.lora_A[name], layer.lora_B[name]
    narrow = isinstance(a, torch.nn.Linear) and isinstance(b, torch.nn.Linear)
    return narrow and name not in layer.lora_variant and a.bias is None and b.bias is None


def _apply_with_peft(
    layer: Any, name: str, x: torch.Tensor, out: torch.Tensor, mine: torch.Tensor
) -> torch.Tensor:
    """Return the output with PEFT's result added for one adapter's rows."""
    some = x[mine].to(layer.lora_A[name].weight.dtype)
    if name in layer.lora_variant:
        updated = layer.lora_variant[name].forward(
            layer, active_adapter=name, x=some, result=out[mine]
        )
    else:
        a, b = layer.lora_A[name], layer.lora_B[name]
        updated = out[mine] + (b(a(some)) * layer.scaling[name]).to(out.dtype)
    return out.index_copy(0, mine, updated.to(out.dtype))


@contextlib.contextmanager
def fuse_lora(model: torch.nn.Module) -> Iterator[int]:
    """Fuse the plain LoRA layers of `model` while inside; yield their number."""
    layers = [layer for layer in model.modules() if _is_plain_lora(layer)]
    for layer in layers:
        layer.forward = partial(_compute_fused, layer)
    try:
        yield len(layers)
    finally:
        for layer in layers:
            del layer.forward


def _is_plain_lora(layer: Any) -> bool:
    """Return whether a layer is a plain LoRA layer that can be fused."""
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


def _compute_fused(layer: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """Return a LoRA layer's output, computed by one fused product where possible."""
    name = layer.active_adapters[0]
    a, b = layer.lora_A[name], layer.lora_B[name]
    plain = type(layer).forward
    if args or kwargs or layer.disable_adapters or layer.merged:
        output: torch.Tensor = plain(layer, x, *args, **kwargs)
        return output
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
