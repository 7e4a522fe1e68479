"""A model's forward pass with our attention and KV cache instead of its own."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from tuneoff.inference.attention import SHARED_ATTENTION
from tuneoff.inference.kv_cache import SharedKVCache
from tuneoff.prefix_sharing.attention import UnsupportedAttentionError
from tuneoff.prefix_sharing.micro_batch import unwrap_causal_lm

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class ForwardPass:
    """Computes logits at the last position; `cache.call` is the plan of the pass."""

    def __init__(self, model: PreTrainedModel, cache: SharedKVCache) -> None:
        self.model, self.cache, self.device = model, cache, model.device
        forward = unwrap_causal_lm(model).forward
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
def use_shared_attention(model: PreTrainedModel) -> Iterator[None]:
    """Switch the model to our attention while inside.

    Raises:
        UnservedError: its attention cannot be exchanged.
    """
    inner = unwrap_causal_lm(model)
    before = list(_iterate_configs(inner.config))
    try:
        if inner._can_set_attn_implementation():
            inner.set_attn_implementation(SHARED_ATTENTION)
        if inner.config.get_text_config()._attn_implementation != SHARED_ATTENTION:
            raise UnsupportedAttentionError("its attention cannot be exchanged")
        yield
    finally:
        # Outer configurations first: setting one sets those inside it too.
        for config, implementation in before:
            config._attn_implementation = implementation


def build_positions(starts: Sequence[int], tokens: int, device: torch.device) -> torch.Tensor:
    """Return (rows, tokens) positions, each row counted from its start."""
    firsts = torch.tensor(starts, device=device)[:, None]
    return firsts + torch.arange(tokens, device=device)


def _iterate_configs(config: Any) -> Iterator[tuple[Any, Any]]:
    """Yield a configuration and those inside it, with their attention implementations."""
    yield config, config._attn_implementation
    for name in config.sub_configs:
        inner = getattr(config, name, None)
        if inner is not None:
            yield from _iterate_configs(inner)
