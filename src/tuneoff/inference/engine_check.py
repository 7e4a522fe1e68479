"""Checks which models our engine supports exactly; for others one sentence explains why not.

There are two checks. The configuration shows what a short trial cannot: windows, states, positions
that depend on a sequence's length. Then a trial runs once per model. Some tokens of a real prompt
go through the model itself and through our engine's passes (a prefix, its child, two rows of
different lengths, two decode steps); the logits must be equal.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch

from tuneoff.inference.attention import ForwardPass, build_positions, use_shared_attention
from tuneoff.inference.kv_cache import ForwardPlan, SharedKVCache
from tuneoff.models.memory import measure_available_bytes
from tuneoff.prefix_sharing.attention import UnsupportedAttentionError
from tuneoff.prefix_sharing.micro_batch import unwrap_causal_lm

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Minimum and maximum tokens of the trial, and the maximum relative difference of its logits:
# rounding, which is larger for quantized and half-precision weights.
TRIAL_TOKENS = (12, 256)
EXACT_TOLERANCE, ROUNDED_TOLERANCE = 1e-4, 5e-2
# The fraction of free memory for the KV cache: a layer's buffers exist twice while they grow, and
# activations and logits need memory too.
MEMORY_SHARE = 0.5
# The reason (None: supported), and the KV cache bytes of one token.
TrialResult = tuple[str | None, int]
_trial_results: WeakKeyDictionary[Any, TrialResult] = WeakKeyDictionary()


def explain_unsupported(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], max_new_tokens: int
) -> str | None:
    """Explain why the engine cannot answer these prompts with this model; None if it can."""
    longest = max(prompts, key=len)
    sign = _explain_config(unwrap_causal_lm(model), len(longest) + max_new_tokens)
    return sign or _run_trial(model, longest)[0]


def count_rows_that_fit(model: PreTrainedModel, own_tokens: int) -> int:
    """Return how many rows of `own_tokens` tokens fit into memory, at least one.

    Without a trial there is no limit.
    """
    tokens, size = count_tokens_that_fit(model)
    return max(1, tokens // own_tokens) if size else sys.maxsize


def count_tokens_that_fit(model: PreTrainedModel, promised_bytes: int = 0) -> tuple[int, int]:
    """Return how many tokens' keys and values fit, and the bytes of one.

    They may use `MEMORY_SHARE` of the free memory, without `promised_bytes` reserved for others.
    Both are 0 without a successful trial.
    """
    _, size = _trial_results.get(model, (None, 0))
    if size == 0:
        return 0, 0
    free = max(0, measure_available_bytes(model.device) - promised_bytes)
    return int(free * MEMORY_SHARE) // size, size


def _explain_config(model: PreTrainedModel, longest: int) -> str | None:
    """Explain from the configuration why a model is unsupported; None if nothing shows it."""
    config: Any = model.config.get_text_config()
    if model.config.is_encoder_decoder:
        return "it has an encoder"
    if getattr(model, "_is_stateful", False):
        return "it has recurrent layers"
    if len(set((getattr(model, "hf_device_map", None) or {}).values())) > 1:
        return "its layers lie on several devices"
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if other := kinds - {"full_attention", "sliding_attention"}:
        return f"it has {', '.join(sorted(other))} layers"
    for name in ("sliding_window", "attention_chunk_size"):
        window = getattr(config, name, None)
        if window is not None and window < longest:
            return f"its {name} of {window} tokens is shorter than the longest text, {longest}"
    return _explain_rope(config, longest)


def _explain_rope(config: Any, longest: int) -> str | None:
    """Explain why rotary positions are unsupported: some change for all tokens of a long text."""
    rope = getattr(config, "rope_parameters", None) or {}
    for kind in [rope, *(inner for inner in rope.values() if isinstance(inner, dict))]:
        if kind.get("rope_type") in ("dynamic", "longrope"):
            original = kind.get("original_max_position_embeddings") or getattr(
                config, "original_max_position_embeddings", config.max_position_embeddings
            )
            if longest > original:
                return f"its positions change in texts of more than {original} tokens"
    return None


def _run_trial(model: PreTrainedModel, prompt: Sequence[int]) -> TrialResult:
    """Return the result of the trial, run once per model."""
    if model not in _trial_results:
        least, most = TRIAL_TOKENS
        ids = (list(prompt) * least)[: min(max(len(prompt), least), most)]
        # Any failure of the trial must lead to `transformers.generate`.
        try:
            _trial_results[model] = _compare_logits(model, ids)
        except Exception as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            _trial_results[model] = (
                first if isinstance(error, UnsupportedAttentionError) else f"trial: {first}",
                0,
            )
    return _trial_results[model]


@torch.inference_mode()
def _compare_logits(model: PreTrainedModel, ids: list[int]) -> TrialResult:
    """Compare the engine's logits with the model's own and return the result."""
    tokens = torch.tensor([ids], device=model.device)
    output: Any = model(input_ids=tokens, use_cache=False)
    # At the third last, the second last and the last token.
    plain = output.logits[0, -3:].float()
    cache = SharedKVCache(rows=2)
    with use_shared_attention(model):
        ours = _run_through_engine(model, cache, ids)
    layers = unwrap_causal_lm(model).config.get_text_config().num_hidden_layers
    if len(cache.slot_buffers) != layers:
        return f"{len(cache.slot_buffers)} of its {layers} layers use the attention interface", 0
    difference = float((ours - plain).norm() / plain.norm().clamp_min(1e-12))
    rounded = model.dtype != torch.float32 or getattr(
        unwrap_causal_lm(model), "is_quantized", False
    )
    # Written so that a NaN difference is refused too.
    if not difference <= (ROUNDED_TOLERANCE if rounded else EXACT_TOLERANCE):
        return f"its logits differ by {difference:.1e} in a trial", 0
    size = sum(t[0, :, 0].nbytes for kv in cache.slot_buffers.values() for t in kv)
    return None, size


def _run_through_engine(
    model: PreTrainedModel, cache: SharedKVCache, ids: list[int]
) -> torch.Tensor:
    """Return the engine's logits at the last three tokens.

    The tokens are split into two prefixes, A and its child B; the two rows hold the rest, without
    the last one and without the last three tokens.
    """
    forward, device, count = ForwardPass(model, cache), model.device, len(ids)
    a, b = count // 3, count // 2
    row, shorter = ids[b:-1], ids[b:-3]
    both: list[tuple[int, torch.Tensor | None]] = [(0, None), (1, None)]
    cache.plan = ForwardPlan("prefix", prefix=0, width=a)
    forward(torch.tensor([ids[:a]], device=device), build_positions([0], a, device))
    cache.plan = ForwardPlan("prefix", prefixes=both[:1], prefix=1, width=b - a)
    forward(torch.tensor([ids[a:b]], device=device), build_positions([a], b - a, device))
    width = len(row)
    cache.plan = ForwardPlan("prefill", prefixes=both, width=width)
    padded = torch.tensor([row, [*shorter, 0, 0]], device=device)
    forward(padded, build_positions([b, b], width, device))
    steps = []
    for step in range(2):
        columns = torch.tensor([width + step, width - 2 + step], device=device)
        cache.plan = ForwardPlan("decode", prefixes=both, width=width + step + 1, columns=columns)
        # The longer row's second logits are not compared.
        inputs = torch.tensor([[ids[-1]], [ids[-3 + step]]], device=device)
        steps.append(forward(inputs, columns[:, None] + b))
    return torch.stack([steps[0][1], steps[1][1], steps[0][0]]).float()
