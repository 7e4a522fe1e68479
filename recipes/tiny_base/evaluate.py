"""Exact match on held-out documents of each family."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer

from tiny_base import mix
from tiny_base.batches import encode
from tiny_base.model import TinyLlama, _linear

HELD_OUT = 987_654_321  # a seed that training never uses


@torch.no_grad()
def exact_match(model: TinyLlama, tokenizer: Tokenizer, family: str, count: int) -> float:
    """How often every token of the last answer, end included, is the likeliest one.

    That is exact match under greedy decoding, without decoding.
    """
    right = asked = index = 0
    while asked < count:
        document = mix.document(HELD_OUT, index, False, family)
        index += 1
        ids, supervised = encode(tokenizer, document)
        if len(ids) > 400:
            continue
        asked += 1
        start = next(i for i in range(len(ids) - 1, -1, -1) if not supervised[i]) + 1
        h = model.hidden(torch.tensor([ids]))[0, start - 1 : -1]
        right += bool((_linear(h, model.embed).argmax(-1) == torch.tensor(ids[start:])).all())
    return right / count
