"""Generates greedy answers with `transformers.generate`, a batch at a time.

For models that our engine does not support exactly (`support.py`). Prompts are sorted by length, so
that there is little padding; each batch is yielded when it is done.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tuneoff.inference.stopping import StopCriteria
from tuneoff.records import Prediction

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel


def generate_with_transformers(
    model: PreTrainedModel,
    ending: StopCriteria,
    prompts: Sequence[tuple[str, list[int]]],
    max_new_tokens: int,
    batch_size: int,
) -> Iterator[list[Prediction]]:
    """Answer (id, token ids) prompts that fit the model; yield predictions a batch at a time."""
    ordered = sorted(prompts, key=lambda prompt: len(prompt[1]), reverse=True)
    for start in range(0, len(ordered), batch_size):
        batch = ordered[start : start + batch_size]
        started = time.perf_counter()
        rows = generate_batch(model, ending, [ids for _, ids in batch], max_new_tokens)
        seconds = (time.perf_counter() - started) / len(batch)
        yield [
            ending.prediction(id, len(ids), new, seconds)
            for (id, ids), new in zip(batch, rows, strict=True)
        ]


def generate_batch(
    model: PreTrainedModel, ending: StopCriteria, prompts: Sequence[list[int]], max_new_tokens: int
) -> list[list[int]]:
    """Return the new token ids of one batch, including the padding after their ends."""
    import torch

    longest = max(map(len, prompts))
    pad = int(ending.tokenizer.pad_token_id or 0)
    # Left padding: the last column is every row's last prompt token.
    ids = torch.tensor([[pad] * (longest - len(row)) + row for row in prompts])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in prompts])
    options: dict[str, Any] = {}
    if ending.stop:
        options = {"stop_strings": list(ending.stop), "tokenizer": ending.tokenizer}
    with torch.inference_mode():
        output: Any = model.generate(  # type: ignore[operator]
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            generation_config=build_greedy_config(ending, max_new_tokens),
            **options,
        )
    new: list[list[int]] = output[:, longest:].tolist()
    return new


def build_greedy_config(ending: StopCriteria, max_new_tokens: int) -> GenerationConfig:
    """Return a fresh greedy configuration: the model's own may sample, or penalize repetition."""
    from transformers import GenerationConfig

    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        pad_token_id=int(ending.tokenizer.pad_token_id or 0),
        eos_token_id=list(ending.ends),
    )
