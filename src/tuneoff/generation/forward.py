"""A model's forward pass with our attention and KV cache instead of its own."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from tuneoff.generation.shared_attention import NAME
from tuneoff.generation.shared_cache import SharedCache
from tuneoff.models.packing import causal_lm
from tuneoff.models.tree_attention import UnservedError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Forward:
    """Computes logits at the last position; `cache.call` is the plan of the pass."""

    def __init__(self, model: PreTrainedModel, cache: SharedCache) -> None:
        self.model, self.cache, self.device = model, cache, model.device
        forward = causal_lm(model).forward
        keeps = "logits_to_keep" in inspect.signature(forward).parameters
        self.options = {"logits_to_keep": 1} if keeps else {}

    def __call__(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Return (rows, vocabulary) logits of (rows, tokens) ids and positions."""
        output: Any = self.model(
            input_ids=ids,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            shared=self.cache,
            **self.options,
        )
        logits: torch.Tensor = output.logits[:, -1]
        return logits


@contextmanager
def serving(model: PreTrainedModel) -> Iterator[None]:
    """Switch the model to our attention while inside.

    Raises:
        UnservedError: its attention cannot be exchanged.
    """
    inner = causal_lm(model)
    before = list(_configs(inner.config))
    try:
        if inner._can_set_attn_implementation():
            inner.set_attn_implementation(NAME)
        if inner.config.get_text_config()._attn_implementation != NAME:
            raise UnservedError("its attention cannot be exchanged")
        yield
    finally:
        # Outer configurations first: setting one sets those inside it too.
        for config, implementation in before:
            config._attn_implementation = implementation


def positions_from(starts: Sequence[int], tokens: int, device: torch.device) -> torch.Tensor:
    """Return (rows, tokens) positions, each row counted from its start."""
    firsts = torch.tensor(starts, device=device)[:, None]
    return firsts + torch.arange(tokens, device=device)


def _configs(config: Any) -> Iterator[tuple[Any, Any]]:
    """Yield a configuration and those inside it, with their attention implementations."""
    yield config, config._attn_implementation
    for name in config.sub_configs:
        inner = getattr(config, name, None)
        if inner is not None:
            yield from _configs(inner)
