"""Tests before training whether a model supports prefix trees.

A few short sequences with a common prefix go through the model one by one and as a tree; the logits
must agree. That finds what a list of architectures would miss: state carried from token to token
(recurrent layers, convolutions), positions taken from the order of tokens, keyword arguments that
layers do not pass on. A sliding window is longer than the probe, so it is compared with the longest
example separately.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel

from tuneoff.prefix_sharing import attention
from tuneoff.prefix_sharing import tree as prefix_tree
from tuneoff.prefix_sharing.attention import TreeAttention, UnsupportedAttentionError
from tuneoff.prefix_sharing.micro_batch import compute_logits, unwrap_causal_lm
from tuneoff.prefix_sharing.tree import WeightedSequence

# Relative difference of logits (2-norm): rounding gives 1e-6, a wrong ancestor tens of percent.
# Quantized and low-precision arithmetic depends on what else is in a batch, by a percent.
TOLERANCE = 1e-3
COARSE_TOLERANCE = 0.05
NO_TREE_ATTENTION = "its attention cannot be exchanged"


def explain_unshareable(model: PreTrainedModel, longest: int) -> str | None:
    """Explain why a model does not support prefix trees; None if it does.

    Args:
        longest: tokens of the longest training example.
    """
    inner = unwrap_causal_lm(model)
    if not inner._can_set_attn_implementation():
        return NO_TREE_ATTENTION
    window = _find_sliding_window(inner.config.get_text_config())
    if window is not None and window < longest:
        return (
            f"its sliding window of {window} tokens is shorter than the longest example's {longest}"
        )
    before, training = inner.config._attn_implementation, model.training
    model.eval()
    try:
        return _compare_logits(model, inner, before)
    except UnsupportedAttentionError as error:
        return str(error)
    finally:
        inner.set_attn_implementation(before)
        model.train(training)


def _find_sliding_window(config: Any) -> int | None:
    """Return the sliding window of a configuration; None if no layer uses one."""
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if window is None or (kinds and not any("sliding" in kind for kind in kinds)):
        return None
    if kinds is None and getattr(config, "use_sliding_window", True) is False:
        return None
    return int(window)


@torch.no_grad()
def _compare_logits(model: PreTrainedModel, inner: PreTrainedModel, plain: str) -> str | None:
    """Compare the logits over a tree with those one by one; explain a difference, None without."""
    sequences = _build_sequences(int(inner.config.get_text_config().vocab_size))
    tree = prefix_tree.build_tree(sequences)
    embeddings: Any = inner.get_input_embeddings()
    device = embeddings.weight.device
    inputs = {
        "input_ids": torch.tensor([tree.tokens], device=device),
        "position_ids": torch.tensor([tree.positions], device=device),
        "tree": TreeAttention(tree, device),
    }
    inner.set_attn_implementation(attention.TREE_ATTENTION)
    if inner.config._attn_implementation != attention.TREE_ATTENTION:
        return NO_TREE_ATTENTION
    try:
        hidden = inner.base_model(**inputs, use_cache=False).last_hidden_state[0]
    except UnsupportedAttentionError:
        raise
    except Exception as error:  # any failure: padded batches do not need trees
        first = (str(error).strip() or "no message").splitlines()[0]
        return f"it fails over a tree ({type(error).__name__}: {first})"
    shared = compute_logits(inner, hidden)
    inner.set_attn_implementation(plain)
    for i, sequence in enumerate(sequences):
        ids = torch.tensor([list(sequence.ids)], device=device)
        alone = model(input_ids=ids, use_cache=False).logits[0].float()
        places = [p for n in tree.path(tree.end_nodes[i]) for p in _get_token_range(tree.nodes[n])]
        apart = float((shared[places] - alone).norm() / alone.norm().clamp_min(1e-12))
        exact = hidden.dtype == torch.float32 and not getattr(inner, "is_quantized", False)
        if not apart <= (TOLERANCE if exact else COARSE_TOLERANCE):
            return f"over a tree it computes something else (logits differ by {apart:.1%})"
    return None


def _get_token_range(node: prefix_tree.Node) -> range:
    """Return the places of a node's tokens."""
    return range(node.start, node.end)


def _build_sequences(vocabulary: int) -> list[WeightedSequence]:
    """Return probe sequences: two levels of sharing, different lengths, one a prefix of another."""
    ids = [(7 * i * i + 11 * i + 3) % vocabulary for i in range(40)]
    bodies = [
        ids[:16],
        ids[:16] + ids[20:27],
        ids[:16] + ids[20:24] + ids[30:33],
        ids[:9] + ids[33:40],
        ids[1:6],
    ]
    return [WeightedSequence(body, [0.0] * len(body)) for body in bodies]
