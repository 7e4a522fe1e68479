"""Keys and values of shared runs, held once, and of rows, in buffers that grow in steps.

A forward pass is one of three kinds (`Call.kind`):

- run: the tokens of one shared run, kept as (heads, tokens, size) for each layer;
- fill: own tokens of new rows but the last, written to the rows' slots, padded right;
- step: one token for each active row, written behind the row's own tokens.

A row's buffer holds only what is its own; attention to the runs before it is in
`shared_attention.py`. transformers' layers call `update` as they do with any cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from transformers import Cache

# Buffers grow by this many tokens at least, so that growing (a copy) is rare.
GROWTH = 64
KeyValue = tuple[torch.Tensor, torch.Tensor]


@dataclass
class Call:
    """What the running forward pass computes.

    `parts`: the runs that rows attend to, each with the rows (None: all of them), counted
    within the call. `run`: the run that is computed. `first`: the first row's slot,
    the others follow. `width`: own tokens to attend to, at most. `columns` (rows,): where in its
    slot a row's new token goes. `cuts`: (first row, last row, width), rows of like lengths,
    so that hardly anything is read that is not there. `bias`: what is added to own
    attention scores, -inf where nothing is, by number of key heads and first row. `adapters`
    (rows,): what each row is computed with, for models that have several.
    """

    kind: Literal["run", "fill", "step"]
    parts: Sequence[tuple[int, torch.Tensor | None]] = ()
    run: int = -1
    first: int = 0
    width: int = 0
    columns: torch.Tensor | None = None
    cuts: Sequence[tuple[int, int, int]] = ()
    bias: dict[tuple[int, int], torch.Tensor] = field(default_factory=dict)
    adapters: Sequence[str | None] = ()


class SharedCache(Cache):
    """A cache whose rows share prefixes; `rows` slots. Positions are always given to the
    model, so it never asks how long the sequences are."""

    def __init__(self, rows: int) -> None:
        super().__init__(layers=[])
        self.rows = rows
        self.runs: dict[int, dict[int, KeyValue]] = {}
        self.own: dict[int, KeyValue] = {}
        self.call = Call("run")
        self._numbers: dict[int, torch.Tensor] = {}

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *args: Any,
        **kwargs: Any,
    ) -> KeyValue:
        """Stores (rows, heads, tokens, size) keys and values; gives those to attend to,
        besides the runs'."""
        call = self.call
        new = key_states, value_states
        if call.kind == "run":
            kept = key_states[0].clone(), value_states[0].clone()
            self.runs.setdefault(call.run, {})[layer_idx] = kept
            return new
        own = self._room(layer_idx, new, call.first + len(key_states), call.width)
        slots = slice(call.first, call.first + len(key_states))
        if call.kind == "fill":
            for buffer, states in zip(own, new, strict=True):
                buffer[slots, :, : call.width] = states
            return new
        rows = self._first(key_states.shape[0], key_states.device)
        for buffer, states in zip(own, new, strict=True):
            buffer[rows, :, call.columns] = states[:, :, 0]
        return own[0][slots, :, : call.width], own[1][slots, :, : call.width]

    def move(self, sources: Sequence[int], targets: Sequence[int], width: int) -> None:
        """Copies rows' own keys and values, `width` tokens of them, to other slots."""
        rows = max(*sources, *targets) + 1
        for layer, buffers in list(self.own.items()):
            # A row of one token, which no pass has filled, may have no buffer yet.
            for buffer in self._room(layer, buffers, rows, width):
                buffer[targets, :, :width] = buffer[sources, :, :width]

    def nbytes(self) -> tuple[int, int]:
        """Memory held: (for runs, for rows)."""
        runs = sum(t.nbytes for layers in self.runs.values() for kv in layers.values() for t in kv)
        return runs, sum(t.nbytes for kv in self.own.values() for t in kv)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0

    def _room(self, layer: int, like: KeyValue, rows: int, width: int) -> KeyValue:
        """The layer's buffers, (slots, heads, tokens, size), with room for so many rows and
        `width` tokens. Rows double, so that few of them take little memory."""
        old = self.own.get(layer)
        held = (0, 0) if old is None else (old[0].shape[0], old[0].shape[2])
        if old is None or held[0] < rows or held[1] < width:
            slots = held[0] if held[0] >= rows else min(self.rows, max(rows, 2 * held[0]))
            room = held[1] if held[1] >= width else -(-width // GROWTH) * GROWTH
            # Zeros, for what is masked is multiplied by 0, and must be a number.
            larger = [x.new_zeros(slots, x.shape[1], room, x.shape[3]) for x in like]
            if old is not None:
                for buffer, before in zip(larger, old, strict=True):
                    buffer[: held[0], :, : held[1]] = before
            self.own[layer] = larger[0], larger[1]
        return self.own[layer]

    def _first(self, count: int, device: torch.device) -> torch.Tensor:
        """0 … count-1, kept because every layer of every step needs it."""
        numbers = self._numbers.get(count)
        if numbers is None or numbers.device != device:
            numbers = self._numbers[count] = torch.arange(count, device=device)
        return numbers
