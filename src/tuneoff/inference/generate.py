"""Generates greedy answers of an open model to many prompts.

Prompts of one task share long prefixes; `engine.py` computes those once. A model that the engine
does not support exactly (`engine_check.py`) is run with `transformers.generate` in batches, and a
message says why. Prompts are then sorted by length, so that there is little padding; each batch is
yielded when it is done.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tuneoff.inference.stopping import StopCriteria, build_stop_criteria
from tuneoff.models.embedding import find_unknown_token
from tuneoff.records import Prediction

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase


# Rows. With shared prefixes they are cheap; `generate` holds all tokens of each row.
BATCH_SIZE = 128
TRANSFORMERS_BATCH_SIZE = 32
logger = logging.getLogger(__name__)


def generate_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[tuple[str, list[int]]],
    max_new_tokens: int,
    stop: Sequence[str] = (),
    batch_size: int = BATCH_SIZE,
    say: Callable[[str], object] = logger.warning,
) -> Iterator[list[Prediction]]:
    """Answer (id, token ids) prompts; yield predictions as they finish, a few at a time.

    An answer ends at an end-of-sequence token, before a `stop` text, or after `max_new_tokens`. A
    prompt that leaves no room in the model's positions gets an error.

    Args:
        batch_size: maximum rows answered at a time.
        say: called with the reason when the engine does not support the model.
    """
    model.eval()
    positions = int(getattr(model.config, "max_position_embeddings", 0)) or 2**31
    fits, refused = partition_prompts(
        prompts, max_new_tokens, positions, count_embedding_rows(model)
    )
    if refused:
        yield refused
    if not fits:
        return
    # Imported here: they import torch.
    from tuneoff.inference import engine, engine_check

    ending = build_stop_criteria(model, tokenizer, stop)
    reason = engine_check.explain_unsupported(model, [ids for _, ids in fits], max_new_tokens)
    if reason is None:
        yield from engine.generate_with_engine(model, ending, fits, max_new_tokens, batch_size)
        return
    say(f"{type(model).__name__} is answered with transformers.generate: {reason}.")
    rows = min(batch_size, TRANSFORMERS_BATCH_SIZE)
    yield from generate_with_transformers(model, ending, fits, max_new_tokens, rows)


def count_embedding_rows(model: PreTrainedModel) -> int:
    """Return the number of embedding rows of a loaded model."""
    embedding: Any = model.get_input_embeddings()
    return int(embedding.weight.shape[0])


def partition_prompts(
    prompts: Sequence[tuple[str, list[int]]],
    max_new_tokens: int,
    positions: int,
    rows: int | None = None,
) -> tuple[list[tuple[str, list[int]]], list[Prediction]]:
    """Return the prompts that can be answered, and error predictions for the others.

    Args:
        rows: embedding rows; None if unknown.
    """
    fits: list[tuple[str, list[int]]] = []
    refused: list[Prediction] = []
    for id, ids in prompts:
        error = _explain_refusal(ids, max_new_tokens, positions, rows)
        if error is None:
            fits.append((id, ids))
        else:
            refused.append(Prediction(id=id, prediction="", tokens_in=len(ids), error=error))
    return fits, refused


def _explain_refusal(
    ids: list[int], max_new_tokens: int, positions: int, rows: int | None
) -> str | None:
    """Explain why a prompt cannot be answered; None if it can."""
    if not ids:
        return "the prompt is empty"
    if len(ids) + max_new_tokens > positions:
        return (
            f"the prompt's {len(ids)} tokens and {max_new_tokens} for the answer are more than the "
            f"model's {positions} positions"
        )
    token = find_unknown_token(ids, rows)
    if token is not None:
        return f"the prompt holds the token id {token}, and the model's embedding has {rows} rows"
    return None


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
            ending.build_prediction(id, len(ids), new, seconds)
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
        eos_token_id=list(ending.end_tokens),
    )
