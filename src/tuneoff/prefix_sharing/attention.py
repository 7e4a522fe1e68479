"""Attention over a prefix tree: every token attends to its ancestors and to itself.

Tokens are in depth-first order, so token j is visible to token i exactly when `j <= i < last[j]`,
where `last[j]` is the end of the subtree of j's node. There are three backends with one interface
(`TreeAttention.attend`):

- cascade (CPU): each node attends causally to itself, and everything below a node attends
  to the whole node; both are plain slices, no mask, no copy. The partial results are merged
  by their log-sum-exp. Backward runs the same slices with the merged result, which gives
  exact gradients (the identity behind FlashAttention, Dao et al. 2022, and cascade
  inference, Ye et al. 2024).
- flex (CUDA): FlexAttention with a block mask (Dong et al. 2024), which skips invisible blocks.
- dense: one boolean mask for `scaled_dot_product_attention`; the reference, and the backend
  when attention weights are dropped out.

The function is registered with transformers under `TREE_ATTENTION`. A model that uses it gets
`tree=` as a keyword argument, which its layers pass on.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from transformers.modeling_utils import AttentionInterface

from tuneoff.prefix_sharing.tree import PrefixTree

TREE_ATTENTION = "tuneoff_tree"
Backend = Literal["cascade", "flex", "dense"]
# (first query, last query, first key, last key, whether the two are one node)
AttentionBlock = tuple[int, int, int, int, bool]


class UnsupportedAttentionError(Exception):
    """A layer needs something that our attention does not support; the message says what."""


def choose_backend(device: torch.device) -> Backend:
    """Return the fastest measured backend on a device (`benchmarks/engine_parts.py`)."""
    if device.type == "cpu":
        return "cascade"
    return "flex" if device.type == "cuda" else "dense"


class TreeAttention:
    """The attention of one tree on one device; shared by all layers."""

    def __init__(self, tree: PrefixTree, device: torch.device, backend: Backend | None = None):
        self.size = len(tree)
        self.longest = max(tree.positions) + 1
        self.device = device
        self.backend = backend or choose_backend(device)
        # Nodes attend to themselves first: that writes every token once; ancestors are merged in.
        self.parts: list[AttentionBlock] = [
            (n.start, n.end, n.start, n.end, True) for n in tree.nodes
        ]
        last: list[int] = []
        for node in tree.nodes:
            if node.subtree_end > node.end:
                self.parts.append((node.end, node.subtree_end, node.start, node.end, False))
            last += [node.subtree_end] * (node.end - node.start)
        self.last = torch.tensor(last, device=device)
        self._mask: torch.Tensor | None = None
        self._block_mask: Any = None

    def mask(self) -> torch.Tensor:
        """Return the boolean mask (queries, keys), True where a query attends to a key."""
        if self._mask is None:
            places = torch.arange(self.size, device=self.device)
            query, key = places[:, None], places[None, :]
            self._mask = (key <= query) & (query < self.last[None, :])
        return self._mask

    def block_mask(self) -> Any:
        """Return the same mask for FlexAttention."""
        if self._block_mask is None:
            from torch.nn.attention.flex_attention import create_block_mask

            last = self.last

            def visible(batch: Any, head: Any, query: Any, key: Any) -> Any:
                return (key <= query) & (query < last[key])

            self._block_mask = create_block_mask(
                visible, None, None, self.size, self.size, device=self.device.type
            )
        return self._block_mask

    def attend(
        self,
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float | None,
        dropout: float,
    ) -> torch.Tensor:
        """Return (1, tokens, heads, size) attention of one layer.

        Shapes: query (1, heads, tokens, size), key and value (1, key heads, tokens, size).
        """
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        if self.backend == "cascade" and not dropout:
            # Always in float32: the kernel's backward is slower in bf16 (2.7 times for a node of 95
            # tokens), and merging is more exact.
            merged: torch.Tensor = _Cascade.apply(  # type: ignore[no-untyped-call]
                query.float(), key.float(), value.float(), self.parts, scale
            )
            return merged.to(value.dtype)
        query, key, value = _cast_as_autocast(query, key, value)
        if self.backend == "flex" and not dropout:
            from transformers.integrations.flex_attention import flex_attention_forward

            output, _ = flex_attention_forward(
                module, query, key, value, self.block_mask(), scaling=scale
            )
            return output
        mask = self.mask()
        grouped = query.shape[1] != key.shape[1]
        return torch.nn.functional.scaled_dot_product_attention(
            query, key, value, mask[None, None], dropout, scale=scale, enable_gqa=grouped
        ).transpose(1, 2)


def _cast_as_autocast(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Cast tensors as autocast casts the arguments of attention.

    Rotary positions leave queries and keys in float32; values come in the lower precision.
    """
    kind = tensors[0].device.type
    if not torch.is_autocast_enabled(kind):
        return tensors
    return tuple(tensor.to(torch.get_autocast_dtype(kind)) for tensor in tensors)


def attend_to_tree(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    tree: TreeAttention | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Return one layer's attention, as transformers calls it.

    Raises:
        UnsupportedAttentionError: a layer needs something that a tree does not support.
    """
    if tree is None:
        raise UnsupportedAttentionError("its layers do not hand keyword arguments on")
    window = options.get("sliding_window")
    if window is not None and window < tree.longest:
        raise UnsupportedAttentionError(
            f"its sliding window of {window} tokens is shorter than the {tree.longest} of an "
            "example"
        )
    for option, reason in (("softcap", "caps its attention scores"), ("s_aux", "has sinks")):
        if options.get(option) is not None:
            raise UnsupportedAttentionError(f"it {reason}")
    return tree.attend(module, query, key, value, scaling, dropout), None


AttentionInterface.register(TREE_ATTENTION, attend_to_tree)


_flash_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class _Cascade(torch.autograd.Function):
    """Merges the attention parts of a tree; heads that share keys are one dimension."""

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        parts: list[AttentionBlock],
        scale: float,
    ) -> torch.Tensor:
        """Return the merged attention (1, tokens, heads, size) of all parts."""
        q, k, v = _group_by_key_head(query, key, value)
        heads, group, tokens, size = q.shape
        out = q.new_empty(tokens, heads, group, size).permute(1, 2, 0, 3)
        total = q.new_empty(heads, group, tokens, dtype=torch.float32)
        for first, last, start, end, own in parts:
            queries = slice(first, last)
            attended, weight = _flash_forward(
                q[:, :, queries], k[:, :, start:end], v[:, :, start:end], 0.0, own, scale=scale
            )
            if own:
                out[:, :, queries], total[:, :, queries] = attended, weight
            else:
                _merge(out[:, :, queries], total[:, :, queries], attended, weight)
        ctx.save_for_backward(query, key, value, out, total)
        ctx.parts, ctx.scale = parts, scale
        return out.permute(2, 0, 1, 3).reshape(1, tokens, heads * group, size)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[Any, ...]:
        """Return the gradients of query, key and value, from the same parts."""
        query, key, value, out, total = ctx.saved_tensors
        q, k, v = _group_by_key_head(query, key, value)
        heads, group, tokens, size = q.shape
        grad = grads[0].reshape(tokens, heads, group, size).permute(1, 2, 0, 3)
        dq = q.new_empty(tokens, heads, group, size).permute(1, 2, 0, 3)
        dk, dv = k.new_empty(heads, tokens, size), k.new_empty(heads, tokens, size)
        for first, last, start, end, own in ctx.parts:
            queries, keys = slice(first, last), slice(start, end)
            part = _flash_backward(
                grad[:, :, queries], q[:, :, queries], k[:, :, keys], v[:, :, keys],
                out[:, :, queries], total[:, :, queries].contiguous(), 0.0, own,
                scale=ctx.scale,
            )  # fmt: skip
            by_key_head = (
                gradient.squeeze(1) if group == 1 else gradient.sum(1) for gradient in part[1:]
            )
            for whole, gradient in zip(
                (dq[:, :, queries], dk[:, keys], dv[:, keys]), (part[0], *by_key_head), strict=True
            ):
                whole.copy_(gradient) if own else whole.add_(gradient)
        dq = dq.permute(2, 0, 1, 3).reshape(1, tokens, heads * group, size).transpose(1, 2)
        return dq, dk[None], dv[None], None, None


def _group_by_key_head(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return (key heads, query heads of each, tokens, size) views, keys repeated without a copy."""
    q = query[0].unflatten(0, (key.shape[1], -1))
    k, v = (x[0].unsqueeze(1).expand(-1, q.shape[1], -1, -1) for x in (key, value))
    return q, k, v


def _merge(
    out: torch.Tensor, total: torch.Tensor, found: torch.Tensor, weight: torch.Tensor
) -> None:
    """Merge a part into the result in place: softmax over the union of both parts' keys."""
    both = torch.logaddexp(total, weight)
    kept, added = (total - both).exp_().unsqueeze(-1), (weight - both).exp_().unsqueeze(-1)
    out.mul_(kept).addcmul_(found, added)
    total.copy_(both)
