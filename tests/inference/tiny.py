"""Tiny random models of several architectures, prompts that share prefixes, a tokenizer."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

from tuneoff.inference import generate
from tuneoff.inference.stopping import StopCriteria
from tuneoff.records import Prediction

VOCABULARY = 97
Prompts = list[tuple[str, list[int]]]
COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 1024,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "initializer_range": 0.3,
}  # fmt: skip
# model type → settings of its own. Mistral's and Gemma 3's windows are longer than any text.
SERVED: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "gemma": {"head_dim": 8},
    "gemma3_text": {"head_dim": 8},
    "phi": {},
    "gpt_neox": {},
}


def model_of(kind: str, **settings: Any) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    own = SERVED.get(kind, {})
    config = AutoConfig.for_model(kind, **{**COMMON, **own, **settings})
    return AutoModelForCausalLM.from_config(config).eval()


class Words:
    """A tokenizer whose i-th token is the word `i`, and 90 to 96 are `#`, `a` … `f`."""

    pad_token_id, eos_token_id, chat_template = 0, 2, None
    signs = "#abcdef"

    def __len__(self) -> int:
        return VOCABULARY

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = False) -> str:
        return " ".join(self.signs[i - 90] if i >= 90 else str(i) for i in ids)

    def batch_decode(self, rows: Iterable[Iterable[int]]) -> list[str]:
        return [self.decode(row) for row in rows]


def ending(ends: tuple[int, ...] = (2,), stop: tuple[str, ...] = ()) -> StopCriteria:
    words: Any = Words()
    return StopCriteria(words, ends, stop)


def prompts_of(seed: int, groups: int = 3, each: int = 6) -> Prompts:
    """Prompts below one root, in groups with a prefix of their own (two levels), and odd
    ones: one token, a shared prefix itself, the same twice, one that shares nothing."""
    draw = random.Random(seed)

    def tokens(count: int) -> list[int]:
        return [draw.randrange(3, VOCABULARY) for _ in range(count)]

    root = tokens(30)
    found: Prompts = []
    for group in range(groups):
        prefix = root + tokens(10 + 3 * group)
        found += [(f"{group}-{n}", prefix + tokens(draw.randrange(1, 12))) for n in range(each)]
    found += [("root", root), ("root again", root), ("one token", root[:1]), ("short", root[:7])]
    return [*found, ("alone", tokens(23))]


def one_by_one(
    model: Any, ending: StopCriteria, prompts: Prompts, most: int
) -> dict[str, tuple[str, int | None, str | None]]:
    """What plain `generate` answers, without batch and without stop texts, then cut."""
    whole = StopCriteria(ending.tokenizer, ending.end_tokens, ())
    found = {}
    for id, ids in prompts:
        new = generate.generate_batch(model, whole, [ids], most)[0]
        found[id] = essence(ending.build_prediction(id, len(ids), new, 0.0))
    return found


def essence(prediction: Prediction) -> tuple[str, int | None, str | None]:
    return prediction.prediction, prediction.tokens_out, prediction.finish_reason


def by_id(batches: Iterable[list[Prediction]]) -> dict[str, Prediction]:
    found = [prediction for batch in batches for prediction in batch]
    assert len(found) == len({prediction.id for prediction in found})
    return {prediction.id: prediction for prediction in found}
