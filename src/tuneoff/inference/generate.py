"""Generates greedy answers of an open model to many prompts.

Prompts of one task share long prefixes; `engine.py` computes those once. A model that the engine
does not support exactly (`support.py`) is run with `transformers.generate` in batches, and a
message says why.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tuneoff.inference.stopping import build_stop_criteria
from tuneoff.models.embedding import find_unknown_token
from tuneoff.records import Prediction

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

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
    from tuneoff.generation import plain
    from tuneoff.inference import engine, engine_check

    ending = build_stop_criteria(model, tokenizer, stop)
    reason = engine_check.explain_unsupported(model, [ids for _, ids in fits], max_new_tokens)
    if reason is None:
        yield from engine.generate_with_engine(model, ending, fits, max_new_tokens, batch_size)
        return
    say(f"{type(model).__name__} is answered with transformers.generate: {reason}.")
    rows = min(batch_size, TRANSFORMERS_BATCH_SIZE)
    yield from plain.generate_with_transformers(model, ending, fits, max_new_tokens, rows)


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
