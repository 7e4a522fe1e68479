"""Starting weights that can already copy: a circuit that would take millions of tokens to form.

Layer 0 gets heads that look one token back and note that token's identity in a part of the
residual stream that embeddings leave free; layer 1 gets heads that look for places whose noted
token is the current one and repeat what stands there (induction heads). All else starts random.
The positions rotate queries and keys, so looking back uses the fast pairs of a head, and matching
uses the slow ones.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tiny_base.model import Block, TinyLlama

SCALE = 0.5  # of the embeddings
CONSTANT = 0  # the coordinate that is the same for all tokens
NOTE = 80  # coordinates of a token's identity, and of the note about the token before


@torch.no_grad()
def _look_back(block: Block, head: int, offset: int, amplitude: float = 1.5) -> None:
    """The head attends to the token `offset` places back."""
    size = block.head_dim
    half = size // 2
    q, k = (block.qkv[part][head * size : (head + 1) * size] for part in "qk")
    q.zero_()
    k.zero_()
    for pair in range(8):
        angle = offset * float(block.speeds[pair])
        q[pair, CONSTANT] = amplitude
        k[pair, CONSTANT] = amplitude * math.cos(angle)
        k[pair + half, CONSTANT] = amplitude * math.sin(angle)


@torch.no_grad()
def _match(block: Block, head: int, mine: int, theirs: int, count: int, gain: float) -> None:
    """The head attends where coordinates `theirs` equal the current token's `mine`."""
    size = block.head_dim
    half = size // 2
    q, k = (block.qkv[part][head * size : (head + 1) * size] for part in "qk")
    q.zero_()
    k.zero_()
    slow = [*range(half - count // 2, half), *range(size - count // 2, size)]
    for i, row in enumerate(slow):
        q[row, mine + i] = gain
        k[row, theirs + i] = gain


@torch.no_grad()
def _carry(block: Block, head: int, source: int, target: int, count: int, gain: float) -> None:
    """The head takes `count` coordinates from `source` on and adds them from `target` on."""
    size = block.head_dim
    v = block.qkv["v"][head * size : (head + 1) * size]
    o = block.o[:, head * size : (head + 1) * size]
    v[:count].zero_()
    o[:, :count].zero_()
    for i in range(count):
        v[i, source + i] = 1.0
        o[target + i, i] = gain


@torch.no_grad()
def prepare(model: TinyLlama) -> None:
    """Writes the circuit into a fresh model."""
    width, size = model.shape.width, model.shape.head_dim
    if model.shape.heads != model.shape.kv_heads:
        raise ValueError("the circuit needs as many key heads as heads")
    note = width - NOTE
    embed: Tensor = model.embed
    embed.normal_(0, SCALE)
    embed[:, CONSTANT] = 4 * SCALE
    embed[:, note:] = 0.01 * torch.randn_like(embed[:, note:])
    model.norm.fill_(1 / (width**0.5 * SCALE))
    first, second = model.blocks[0], model.blocks[1]
    assert isinstance(first, Block)
    assert isinstance(second, Block)
    for head, (start, count) in enumerate(((1, size), (1 + size, NOTE - size))):
        _look_back(first, head, 1)
        _carry(first, head, start, note + start - 1, count, 0.45)
    for head in range(2):
        part = NOTE // 2
        _match(second, head, 1 + head * part, note + head * part, part, 1.5)
        _carry(second, head, 1 + head * size, 1 + head * size, size, 1.0)
