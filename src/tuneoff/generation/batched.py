"""Greedy answers in batches, with `transformers.generate`.

Prompts are sorted by length, so that little is padded, and answered a batch at a time;
each batch is handed out as it is done, so that a kill loses one batch at most.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tuneoff.records import Prediction

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BATCH_SIZE = 32


def answer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[tuple[str, list[int]]],
    max_new_tokens: int,
    stop: Sequence[str] = (),
    batch_size: int = BATCH_SIZE,
) -> Iterator[list[Prediction]]:
    """Answers (id, token ids) prompts; yields the predictions of one batch at a time.

    An answer ends at the end-of-sequence token, before a `stop` text, or after
    `max_new_tokens`. A prompt that leaves no room in the model's positions gets an error.
    """
    model.eval()
    positions = int(getattr(model.config, "max_position_embeddings", 0)) or 2**31
    fits = [p for p in prompts if len(p[1]) + max_new_tokens <= positions]
    too_long = [p for p in prompts if len(p[1]) + max_new_tokens > positions]
    if too_long:
        yield [_too_long(*prompt, positions, max_new_tokens) for prompt in too_long]
    ordered = sorted(fits, key=lambda prompt: len(prompt[1]), reverse=True)
    for start in range(0, len(ordered), batch_size):
        yield _batch(model, tokenizer, ordered[start : start + batch_size], max_new_tokens, stop)


def _batch(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[tuple[str, list[int]]],
    max_new_tokens: int,
    stop: Sequence[str],
) -> list[Prediction]:
    import torch
    from transformers import GenerationConfig

    longest = max(len(ids) for _, ids in prompts)
    pad = int(tokenizer.pad_token_id or 0)
    # Left padding: the last column is every row's last prompt token.
    ids = torch.tensor([[pad] * (longest - len(row)) + row for _, row in prompts])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for _, row in prompts])
    options: dict[str, Any] = {"stop_strings": list(stop), "tokenizer": tokenizer} if stop else {}
    ends = _end_ids(model, tokenizer)
    # A fresh configuration: the model's own may sample, or punish repetition.
    greedy = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        pad_token_id=pad,
        eos_token_id=ends,
    )
    started = time.perf_counter()
    with torch.inference_mode():
        output: Any = model.generate(  # type: ignore[operator]
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            generation_config=greedy,
            **options,
        )
    seconds = (time.perf_counter() - started) / len(prompts)
    rows = output[:, longest:].tolist()
    return [
        _prediction(id, len(row), new, tokenizer, ends, stop, seconds)
        for (id, row), new in zip(prompts, rows, strict=True)
    ]


def _end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """All tokens that end an answer: chat models often end a turn with another than EOS."""
    own = model.generation_config.eos_token_id if model.generation_config else None
    found = {tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])}
    return sorted(int(token) for token in found if token is not None)


def _prediction(
    id: str,
    tokens_in: int,
    new: list[int],
    tokenizer: PreTrainedTokenizerBase,
    ends: Sequence[int],
    stop: Sequence[str],
    seconds: float,
) -> Prediction:
    reason = "length"
    ended = next((place for place, token in enumerate(new) if token in ends), None)
    if ended is not None:
        new, reason = new[:ended], "stop"
    text = str(tokenizer.decode(new, skip_special_tokens=True))
    for end in stop:
        if end in text:
            text, reason = text.split(end, 1)[0], "stop"
            new = tokenizer(text, add_special_tokens=False)["input_ids"]
    return Prediction(
        id=id,
        prediction=text.strip(),
        tokens_in=tokens_in,
        tokens_out=len(new),
        seconds=round(seconds, 6),
        finish_reason=reason,
    )


def _too_long(id: str, ids: list[int], positions: int, max_new_tokens: int) -> Prediction:
    return Prediction(
        id=id,
        prediction="",
        tokens_in=len(ids),
        error=f"the prompt's {len(ids)} tokens and {max_new_tokens} for the answer are more than "
        f"the model's {positions} positions",
    )
