"""Attention to shared prefixes and to a row's own tokens, merged exactly.

Softmax over all keys is a weighted mean of the softmaxes over parts of them; the logarithms of the
weights are the parts' log-sum-exps (Hydragen, Juravsky et al. 2024; cascade inference, Ye et al.
2024). So the queries of all rows attend to a prefix in one matrix product, (heads, rows, size) x
(heads, size, tokens), and the prefix's keys are read once a step, not once a row. Registered with
transformers as `SHARED_ATTENTION`; the model gets `shared=` as a keyword argument, which its layers
pass on.

`ForwardPass` is a model's forward pass with this attention and our KV cache.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.modeling_utils import AttentionInterface

from tuneoff.inference.kv_cache import ForwardPlan, KeyValue, SharedKVCache
from tuneoff.prefix_sharing.attention import UnsupportedAttentionError
from tuneoff.prefix_sharing.micro_batch import unwrap_causal_lm

if TYPE_CHECKING:
    from transformers import PreTrainedModel


SHARED_ATTENTION = "tuneoff_shared"
# Maximum attention scores held at a time; more are computed in pieces.
MAX_SCORES = 2**24
# Rows with more own tokens are prefilled one by one with the framework's attention, which needs no
# score matrix; there the keys of their prefixes are concatenated with their own.
MAX_BATCHED_PREFILL = 512
# Options of transformers' attention functions that do not change a result here.
IGNORED_OPTIONS = {
    "position_ids", "position_embeddings", "use_cache", "output_attentions", "cache_position",
    "output_hidden_states", "return_dict", "sliding_window", "is_causal", "logits_to_keep",
}  # fmt: skip


def attend_to_prefixes(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    shared: SharedKVCache | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Return (rows, tokens, heads, size) attention of a (rows, heads, tokens, size) query.

    Raises:
        UnsupportedAttentionError: the layer needs something that our attention does not support.
    """
    if shared is None:
        raise UnsupportedAttentionError("its layers do not hand keyword arguments on")
    if attention_mask is not None:
        raise UnsupportedAttentionError("it makes attention masks of its own")
    for name, option in options.items():
        if option is not None and option is not False and name not in IGNORED_OPTIONS:
            raise UnsupportedAttentionError(f"its attention has {name}")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    plan, layer = shared.plan, int(module.layer_idx)  # type: ignore[arg-type]
    prefixes = [(shared.prefixes[prefix][layer], rows) for prefix, rows in plan.prefixes]
    if query.shape[2] > 1 and (not prefixes or query.shape[2] > MAX_BATCHED_PREFILL):
        output = _attend_long_row(query, key, value, prefixes, scale)
        return output.transpose(1, 2), None
    return _merge_attention(query, key, value, prefixes, plan, scale), None


def _merge_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    prefixes: list[tuple[KeyValue, torch.Tensor | None]],
    plan: ForwardPlan,
    scale: float,
) -> torch.Tensor:
    """Return the attention to prefixes and own tokens, merged by their log-sum-exps."""
    rows, heads, tokens, _ = query.shape
    # Query heads that share a key head are merged with a row's tokens into one dimension.
    q = query.reshape(rows, key.shape[1], -1, query.shape[-1])
    out, weight = _attend_to_own(q, key, value, plan, scale)
    for (prefix_keys, prefix_values), some in prefixes:
        queries = q if some is None else q[some]
        by_head = queries.transpose(0, 1)
        attended, total = _attend(by_head.flatten(1, 2), prefix_keys, prefix_values, None, scale)
        attended = attended.view(*by_head.shape[:3], -1).transpose(0, 1)
        total = total.view(by_head.shape[:3]).transpose(0, 1)
        before = weight if some is None else weight[some]
        share = torch.sigmoid(total - before).unsqueeze(-1).to(out.dtype)
        both = torch.logaddexp(before, total) if len(prefixes) > 1 else before
        if some is None:
            out, weight = torch.lerp(out, attended, share), both
        else:
            out[some], weight[some] = torch.lerp(out[some], attended, share), both
    return out.view(rows, heads, tokens, -1).transpose(1, 2)


def _attend_to_own(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, plan: ForwardPlan, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the attention to the rows' own tokens, with its log-sum-exp.

    Queries are (rows, key heads, queries, size). Rows of similar length are computed together.
    """
    rows, heads, queries, _ = query.shape
    parts = []
    for first, last, width in plan.cuts or [(0, rows, plan.width)]:
        q, k, v = (x[first:last].flatten(0, 1) for x in (query, key, value))
        bias = plan.bias.get((heads, first))
        if bias is None:
            bias = _build_bias(plan, slice(first, last), width, heads, queries, query)
            plan.bias[heads, first] = bias
        parts.append(_attend(q, k[:, :width], v[:, :width], bias, scale))
    out, total = parts[0]
    if len(parts) > 1:
        out, total = torch.cat([x[0] for x in parts]), torch.cat([x[1] for x in parts])
    return out.view(rows, heads, queries, -1), total.view(rows, heads, queries)


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor | None,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return attention of (batch, queries, size) to (batch, keys, size), with its log-sum-exp."""
    most = max(1, MAX_SCORES // (query.shape[0] * key.shape[1]))
    if query.shape[1] > most:
        pieces = []
        for start in range(0, query.shape[1], most):
            some = slice(start, start + most)
            part = bias if bias is None or bias.shape[1] == 1 else bias[:, some]
            pieces.append(_attend(query[:, some], key, value, part, scale))
        return torch.cat([p[0] for p in pieces], 1), torch.cat([p[1] for p in pieces], 1)
    keys = key.transpose(1, 2)
    if bias is None:
        scores = torch.baddbmm(query.new_empty(1, 1, 1), query, keys, beta=0, alpha=scale)
    else:
        scores = torch.baddbmm(bias, query, keys, alpha=scale)
    shares = scores.softmax(-1, dtype=torch.float32)
    # The largest weight is exp(0) / sum, so the sum need not be computed again.
    total = scores.amax(-1).float() - shares.amax(-1).log()
    return torch.bmm(shares.to(value.dtype), value), total


def _build_bias(
    plan: ForwardPlan, rows: slice, width: int, heads: int, queries: int, like: torch.Tensor
) -> torch.Tensor:
    """Return the bias of own scores: causal for a prefill, the row's own length for a step."""
    places = torch.arange(width, device=like.device)
    if plan.columns is not None:
        seen = (places[None, :] <= plan.columns[rows, None])[:, None, :]
        seen = seen.repeat_interleave(heads, 0)
    else:
        seen = (places[None, :] <= places[:, None]).repeat(queries // width, 1)[None]
    zero = like.new_zeros(())
    return torch.where(seen, zero, zero - torch.inf)


def _attend_long_row(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    prefixes: list[tuple[KeyValue, torch.Tensor | None]],
    scale: float,
) -> torch.Tensor:
    """Return the framework's causal attention of a long row, its prefixes' keys included."""
    tokens, grouped = query.shape[2], query.shape[1] // key.shape[1]
    if prefixes and len(query) > 1:
        raise UnsupportedAttentionError("long rows are filled one by one")
    key = torch.cat([*(kv[0][None] for kv, _ in prefixes), key], 2).repeat_interleave(grouped, 1)
    value = torch.cat([*(kv[1][None] for kv, _ in prefixes), value], 2).repeat_interleave(
        grouped, 1
    )
    if not prefixes:
        return scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale)
    before = key.shape[2] - tokens
    mask = torch.ones(tokens, key.shape[2], dtype=torch.bool, device=query.device).tril(before)
    return scaled_dot_product_attention(query, key, value, mask, scale=scale)


AttentionInterface.register(SHARED_ATTENTION, attend_to_prefixes)


class ForwardPass:
    """Computes logits at the last position; `cache.plan` is the plan of the pass."""

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
        UnsupportedAttentionError: its attention cannot be exchanged.
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
