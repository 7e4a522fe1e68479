"""Documents to batches: each step's documents are its own, so any step can be made again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from tiny_base import mix
from tiny_base.copying import Document
from tiny_base.tokenizer import EOS, PAD

PER_STEP = 100_000  # document indices reserved for each step
SHARE = 0.36  # places given to supervised tokens, of all tokens


@dataclass(frozen=True)
class Batch:
    """Rows of packed documents; attention stays inside a document."""

    tokens: Tensor
    places: Tensor
    targets: Tensor
    mask: Tensor


def encode(tokenizer: Tokenizer, document: Document) -> tuple[list[int], list[bool]]:
    """Token ids and which of them are supervised; pieces are tokenized one by one, as later."""
    ids: list[int] = []
    supervised: list[bool] = []
    for text, answer in document:
        piece = tokenizer.encode(text, add_special_tokens=False).ids
        ids += piece
        supervised += [answer] * len(piece)
    return [*ids, EOS], [*supervised, True]


def geometry(step: int) -> tuple[int, int]:
    """Rows and row length: small batches first, every sixth batch of long documents."""
    rows = 16 if step < 3000 else 32
    return (rows // 2, 512) if step % 6 == 5 else (rows, 256)


def batch(tokenizer: Tokenizer, seed: int, step: int, early: bool) -> Batch:
    """The batch of a step."""
    rows, length = geometry(step)
    shortest = 0 if length == 256 or early else 220
    filled: list[list[int]] = [[] for _ in range(rows)]
    owner: list[list[int]] = [[] for _ in range(rows)]
    wanted: list[tuple[int, int, int]] = []
    misses = 0
    for k, document in enumerate(mix.documents(seed, step * PER_STEP, early)):
        ids, supervised = encode(tokenizer, document)
        if not shortest <= len(ids) <= length:
            continue
        row = next((r for r in range(rows) if len(filled[r]) + len(ids) <= length), -1)
        if row < 0:
            misses += 1
            if misses > 12:
                break
            continue
        start = row * length + len(filled[row])
        wanted += [(start + i - 1, ids[i], row) for i in range(1, len(ids)) if supervised[i]]
        filled[row] += ids
        owner[row] += [k + 1] * len(ids)
    tokens = torch.full((rows, length), PAD)
    owners = torch.zeros((rows, length), dtype=torch.long)
    for r in range(rows):
        tokens[r, : len(filled[r])] = torch.tensor(filled[r])
        owners[r, : len(owner[r])] = torch.tensor(owner[r])
    size = int(rows * length * SHARE)
    places = torch.zeros(size, dtype=torch.long)
    targets = torch.full((size,), -100)
    kept = wanted[:size]
    places[: len(kept)] = torch.tensor([w[0] for w in kept])
    targets[: len(kept)] = torch.tensor([w[1] for w in kept])
    same = owners[:, :, None] == owners[:, None, :]
    mask = (same & torch.ones(length, length, dtype=torch.bool).tril())[:, None]
    return Batch(tokens, places, targets, mask)


def batches(tokenizer: Tokenizer, seed: int, start: int, early: int) -> Iterator[Batch]:
    """Batches from a step on."""
    step = start
    while True:
        yield batch(tokenizer, seed, step, step < early)
        step += 1
