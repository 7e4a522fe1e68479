"""A KV cache that holds shared prefixes once, and rows in buffers that grow in steps.

A forward pass is one of three kinds (`ForwardPlan.kind`):

- prefix: computes one shared prefix, stored as (heads, tokens, size) for each layer;
- prefill: computes the own tokens of new rows except the last, into the rows' slots, padded right;
- decode: computes one token for each active row, written behind the row's own tokens.

A row's buffer holds only its own tokens; `attention.py` attends to the prefixes before them.
Transformers' layers call `update` as they do with any cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from transformers import Cache

# Buffers grow by at least this number of tokens, so that growing (a copy) is rare.
GROWTH_TOKENS = 64
KeyValue = tuple[torch.Tensor, torch.Tensor]


@dataclass
class ForwardPlan:
    """The plan of one forward pass."""

    kind: Literal["prefix", "prefill", "decode"]
    """Compute a shared prefix, prefill rows, or decode one step."""
    prefixes: Sequence[tuple[int, torch.Tensor | None]] = ()
    """The prefixes attended to, each with its rows within this pass (None: all rows)."""
    prefix: int = -1
    """The number of the prefix that is computed."""
    first: int = 0
    """The slot of the first row; the others follow."""
    width: int = 0
    """Maximum number of own tokens to attend to."""
    columns: torch.Tensor | None = None
    """(rows,): the column of a row's slot that its new token is written to."""
    cuts: Sequence[tuple[int, int, int]] = ()
    """(first row, last row, width): rows of similar length, so that little padding is read."""
    bias: dict[tuple[int, int], torch.Tensor] = field(default_factory=dict)
    """Added to own attention scores, -inf where there is no token; by key heads and first row."""
    adapters: Sequence[str | None] = ()
    """(rows,): the adapter of each row, for models that have several."""


class SharedKVCache(Cache):
    """A KV cache with `rows` slots whose rows share prefixes.

    Positions are always passed to the model, so it never asks for sequence lengths.
    """

    def __init__(self, rows: int) -> None:
        super().__init__(layers=[])
        self.max_slots = rows
        self.prefixes: dict[int, dict[int, KeyValue]] = {}
        self.slot_buffers: dict[int, KeyValue] = {}
        self.plan = ForwardPlan("prefix")
        self._numbers: dict[int, torch.Tensor] = {}

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *args: Any,
        **kwargs: Any,
    ) -> KeyValue:
        """Store (rows, heads, tokens, size) keys and values; return the own ones to attend to."""
        plan = self.plan
        new = key_states, value_states
        if plan.kind == "prefix":
            kept = key_states[0].clone(), value_states[0].clone()
            self.prefixes.setdefault(plan.prefix, {})[layer_idx] = kept
            return new
        own = self._ensure_buffers(layer_idx, new, plan.first + len(key_states), plan.width)
        slots = slice(plan.first, plan.first + len(key_states))
        if plan.kind == "prefill":
            for buffer, states in zip(own, new, strict=True):
                buffer[slots, :, : plan.width] = states
            return new
        rows = self._get_slot_numbers(key_states.shape[0], key_states.device)
        for buffer, states in zip(own, new, strict=True):
            buffer[rows, :, plan.columns] = states[:, :, 0]
        return own[0][slots, :, : plan.width], own[1][slots, :, : plan.width]

    def move_slots(self, sources: Sequence[int], targets: Sequence[int], width: int) -> None:
        """Copy `width` tokens of rows' own keys and values to other slots."""
        rows = max(*sources, *targets) + 1
        for layer, buffers in list(self.slot_buffers.items()):
            # A row of one token was never prefilled and may have no buffer yet.
            for buffer in self._ensure_buffers(layer, buffers, rows, width):
                buffer[targets, :, :width] = buffer[sources, :, :width]

    def nbytes(self) -> tuple[int, int]:
        """Return the memory held in bytes: (for prefixes, for rows)."""
        prefixes = sum(
            t.nbytes for layers in self.prefixes.values() for kv in layers.values() for t in kv
        )
        return prefixes, sum(t.nbytes for kv in self.slot_buffers.values() for t in kv)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0

    def _ensure_buffers(self, layer: int, like: KeyValue, rows: int, width: int) -> KeyValue:
        """Return a layer's buffers (slots, heads, tokens, size) with enough rows and `width`
        tokens.

        The number of slots doubles when it grows, so that few rows take little memory.
        """
        old = self.slot_buffers.get(layer)
        held = (0, 0) if old is None else (old[0].shape[0], old[0].shape[2])
        if old is None or held[0] < rows or held[1] < width:
            slots = held[0] if held[0] >= rows else min(self.max_slots, max(rows, 2 * held[0]))
            room = held[1] if held[1] >= width else -(-width // GROWTH_TOKENS) * GROWTH_TOKENS
            # Zeros: masked values are multiplied by 0, and NaN would stay NaN.
            larger = [x.new_zeros(slots, x.shape[1], room, x.shape[3]) for x in like]
            if old is not None:
                for buffer, before in zip(larger, old, strict=True):
                    buffer[: held[0], :, : held[1]] = before
            self.slot_buffers[layer] = larger[0], larger[1]
        return self.slot_buffers[layer]

    def _get_slot_numbers(self, count: int, device: torch.device) -> torch.Tensor:
        """Return 0 … count-1, cached because every layer of every step needs it."""
        numbers = self._numbers.get(count)
        if numbers is None or numbers.device != device:
            numbers = self._numbers[count] = torch.arange(count, device=device)
        return numbers
