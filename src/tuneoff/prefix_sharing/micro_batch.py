"""Micro-batches: examples as tensors for one forward pass, and the loss over them.

A micro-batch is either a prefix tree (every shared token once) or padded rows, for models whose
attention does not support trees. Both list the positions that predict, their targets and weights,
so the loss is one function: the weighted sum of cross-entropies in nats. Only those positions get
logits. A large vocabulary is computed in chunks, so memory does not grow with vocabulary × tokens.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from tuneoff.models.lora import fuse_lora
from tuneoff.prefix_sharing import attention
from tuneoff.prefix_sharing import tree as prefix_tree
from tuneoff.prefix_sharing.attention import Backend, TreeAttention
from tuneoff.prefix_sharing.tree import WeightedSequence

# Logits held at once, in numbers (float32: 64 MiB). More are recomputed in the backward pass.
MAX_LOGITS = 2**24


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """One forward pass: the model's inputs, and the targets of its flattened positions."""

    inputs: dict[str, Any]
    """Keyword arguments of the model."""
    predict: torch.Tensor
    """The flattened positions that predict, one per target."""
    targets: torch.Tensor
    """The token ids to predict."""
    weights: torch.Tensor
    """The weight of each target in the loss."""
    tokens: int
    """Tokens that are computed, padding included."""
    unshared: int
    """Tokens of the examples without sharing."""


def build_tree_batch(
    sequences: Sequence[WeightedSequence],
    device: torch.device,
    backend: Backend | None = None,
    shortest: int = 1,
    multiple: int = 1,
) -> MicroBatch:
    """Return sequences as one prefix tree: `input_ids` of shape (1, tokens of the tree).

    Args:
        shortest: minimum tokens of a shared prefix.
        multiple: tokens and targets are padded to a multiple of it, by a tree that predicts
            nothing, so that batches have few shapes.
    """
    unshared = prefix_tree.count_tokens(sequences)
    tree = prefix_tree.pad_to_multiple(prefix_tree.build_tree(sequences, shortest), multiple)
    inputs = {
        "input_ids": torch.tensor([tree.tokens], device=device),
        "position_ids": torch.tensor([tree.positions], device=device),
        "tree": TreeAttention(tree, device, backend),
    }
    predict, ids, weights = tree.targets()
    rest = -len(ids) % multiple
    predict, ids, weights = predict + [0] * rest, ids + [0] * rest, weights + [0.0] * rest
    return _build_micro_batch(inputs, predict, ids, weights, len(tree), unshared, device)


def build_padded_batch(sequences: Sequence[WeightedSequence], device: torch.device) -> MicroBatch:
    """Return sequences as right-padded rows: `input_ids` of shape (sequences, longest)."""
    longest = max(len(sequence.ids) for sequence in sequences)
    rows = [[*s.ids, *[0] * (longest - len(s.ids))] for s in sequences]
    mask = [[1] * len(s.ids) + [0] * (longest - len(s.ids)) for s in sequences]
    targets = [
        (row * longest + place - 1, sequence.ids[place], weight)
        for row, sequence in enumerate(sequences)
        for place, weight in enumerate(sequence.weights)
        if weight != 0 and place > 0
    ]
    inputs = {
        "input_ids": torch.tensor(rows, device=device),
        "attention_mask": torch.tensor(mask, device=device),
    }
    predict, ids, weights = map(list, zip(*targets, strict=True)) if targets else ([], [], [])
    unshared = prefix_tree.count_tokens(sequences)
    return _build_micro_batch(inputs, predict, ids, weights, len(rows) * longest, unshared, device)


def _build_micro_batch(
    inputs: dict[str, Any],
    predict: list[int],
    targets: list[int],
    weights: list[float],
    tokens: int,
    unshared: int,
    device: torch.device,
) -> MicroBatch:
    return MicroBatch(
        inputs,
        torch.tensor(predict, dtype=torch.long, device=device),
        torch.tensor(targets, dtype=torch.long, device=device),
        torch.tensor(weights, dtype=torch.float32, device=device),
        tokens,
        unshared,
    )


def unwrap_causal_lm(model: Any) -> PreTrainedModel:
    """Return the model itself, without a PEFT wrapper."""
    # `peft_config` would not tell: PEFT sets it on the inner model, too.
    inner: PreTrainedModel = model.get_base_model() if hasattr(model, "get_base_model") else model
    return inner


@contextlib.contextmanager
def install_micro_batch_loss(model: PreTrainedModel, trees: bool) -> Iterator[None]:
    """Make `model(pack=pack)` return the loss while inside.

    The call goes through all wrappers (PEFT, accelerate's mixed precision, DDP); calling a part of
    the model would bypass them.

    Args:
        trees: whether micro-batches are trees, which need another attention implementation.
    """
    inner = unwrap_causal_lm(model)
    before = inner.config._attn_implementation
    if trees:
        inner.set_attn_implementation(attention.TREE_ATTENTION)
    inner.forward = partial(_run_forward, inner)
    try:
        with fuse_lora(model):
            yield
    finally:
        inner.__dict__.pop("forward", None)
        if trees:
            inner.set_attn_implementation(before)


def _run_forward(
    inner: PreTrainedModel, *args: Any, pack: MicroBatch | None = None, **kwargs: Any
) -> Any:
    """Return the loss of a micro-batch; without one, the model's own output."""
    if pack is None:
        return type(inner).forward(inner, *args, **kwargs)
    return CausalLMOutput(loss=_compute_loss(inner, pack))


def _compute_loss(inner: PreTrainedModel, pack: MicroBatch) -> torch.Tensor:
    """Return the loss of one forward pass over a micro-batch."""
    hidden = inner.base_model(**pack.inputs, use_cache=False).last_hidden_state
    chosen = hidden.flatten(0, 1).index_select(0, pack.predict)
    return compute_weighted_loss(inner, chosen, pack.targets, pack.weights)


def compute_logits(inner: PreTrainedModel, hidden: torch.Tensor) -> torch.Tensor:
    """Return the float32 logits (positions, vocabulary) of hidden states (positions, width)."""
    head: Any = inner.get_output_embeddings()
    scores: torch.Tensor = head(hidden).float()
    cap = getattr(inner.config.get_text_config(), "final_logit_softcapping", None)
    return scores if cap is None else torch.tanh(scores / cap) * cap


def compute_weighted_loss(
    inner: PreTrainedModel, hidden: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Return the sum of weight × cross-entropy in nats over (positions, width) hidden states."""
    vocabulary = inner.config.get_text_config().vocab_size
    rows = max(1, MAX_LOGITS // vocabulary)

    def part(states: torch.Tensor, ids: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        losses = torch.nn.functional.cross_entropy(
            compute_logits(inner, states), ids, reduction="none"
        )
        return losses @ weight

    if len(targets) <= rows:
        return part(hidden, targets, weights)
    total = hidden.new_zeros((), dtype=torch.float32)
    for chunk in zip(hidden.split(rows), targets.split(rows), weights.split(rows), strict=True):
        total = total + checkpoint(part, *chunk, use_reentrant=False)
    return total
