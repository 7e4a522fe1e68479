"""Which models our engine serves exactly; for the others one sentence says why not.

Two looks. Signs in the configuration tell what a short trial cannot show: windows, states,
positions that depend on a sequence's length. Then a trial, once per model: some tokens of a
real prompt go through the model as it is and through our engine's calls (a run, a run below
it, two rows of unlike lengths, two steps); the logits must be the same.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch

from tuneoff.generation.forward import Forward, positions_from, serving
from tuneoff.generation.shared_cache import Call, SharedCache
from tuneoff.models.free_memory import available_bytes
from tuneoff.models.packing import causal_lm
from tuneoff.models.tree_attention import UnservedError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Tokens of the trial, and how far its logits may be off, relative to their size: rounding,
# which quantized and half-precision weights have more of.
TRIAL_TOKENS = (12, 256)
EXACT, ROUNDED = 1e-4, 5e-2
# Of the free memory, for keys and values: while buffers grow, one layer's are there twice,
# and activations and logits need some too.
MEMORY_SHARE = 0.5
# The reason (None: served), and the bytes of one token's keys and values.
Found = tuple[str | None, int]
_tried: WeakKeyDictionary[Any, Found] = WeakKeyDictionary()


def unserved(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], max_new_tokens: int
) -> str | None:
    """Why the engine cannot answer these prompts with this model; None if it can."""
    longest = max(prompts, key=len)
    sign = _sign(causal_lm(model), len(longest) + max_new_tokens)
    return sign or _trial(model, longest)[0]


def rows_that_fit(model: PreTrainedModel, own_tokens: int) -> int:
    """How many rows of so many own tokens may be answered at a time: at least one, and no
    more than there is memory for. Without a trial there is no limit."""
    tokens, size = tokens_that_fit(model)
    return max(1, tokens // own_tokens) if size else sys.maxsize


def tokens_that_fit(model: PreTrainedModel, promised_bytes: int = 0) -> tuple[int, int]:
    """How many tokens' keys and values `MEMORY_SHARE` of the free memory holds, `promised_bytes`
    of which are others', and the bytes of one; zeros without a trial that went well."""
    _, size = _tried.get(model, (None, 0))
    if size == 0:
        return 0, 0
    free = max(0, available_bytes(model.device) - promised_bytes)
    return int(free * MEMORY_SHARE) // size, size


def _sign(model: PreTrainedModel, longest: int) -> str | None:
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
    return _rope_sign(config, longest)


def _rope_sign(config: Any, longest: int) -> str | None:
    """Some rotary embeddings change for all tokens once a text is long."""
    rope = getattr(config, "rope_parameters", None) or {}
    for kind in [rope, *(inner for inner in rope.values() if isinstance(inner, dict))]:
        if kind.get("rope_type") in ("dynamic", "longrope"):
            original = kind.get("original_max_position_embeddings") or getattr(
                config, "original_max_position_embeddings", config.max_position_embeddings
            )
            if longest > original:
                return f"its positions change in texts of more than {original} tokens"
    return None


def _trial(model: PreTrainedModel, prompt: Sequence[int]) -> Found:
    if model not in _tried:
        least, most = TRIAL_TOKENS
        ids = (list(prompt) * least)[: min(max(len(prompt), least), most)]
        # Whatever a model does that we did not think of must lead to the slower way.
        try:
            _tried[model] = _compare(model, ids)
        except Exception as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            _tried[model] = first if isinstance(error, UnservedError) else f"trial: {first}", 0
    return _tried[model]


@torch.inference_mode()
def _compare(model: PreTrainedModel, ids: list[int]) -> Found:
    tokens = torch.tensor([ids], device=model.device)
    output: Any = model(input_ids=tokens, use_cache=False)
    # After the last but two, the last but one and the last token.
    plain = output.logits[0, -3:].float()
    cache = SharedCache(rows=2)
    with serving(model):
        ours = _through_engine(model, cache, ids)
    layers = causal_lm(model).config.get_text_config().num_hidden_layers
    if len(cache.own) != layers:
        return f"{len(cache.own)} of its {layers} layers use the attention interface", 0
    difference = float((ours - plain).norm() / plain.norm().clamp_min(1e-12))
    rounded = model.dtype != torch.float32 or getattr(causal_lm(model), "is_quantized", False)
    # Written so that a difference that is no number is refused too.
    if not difference <= (ROUNDED if rounded else EXACT):
        return f"its logits differ by {difference:.1e} in a trial", 0
    size = sum(t[0, :, 0].nbytes for kv in cache.own.values() for t in kv)
    return None, size


def _through_engine(model: PreTrainedModel, cache: SharedCache, ids: list[int]) -> torch.Tensor:
    """Logits after the last three tokens: A and B are runs, the rows are what follows but
    three tokens and but one."""
    forward, device, count = Forward(model, cache), model.device, len(ids)
    a, b = count // 3, count // 2
    row, shorter = ids[b:-1], ids[b:-3]
    both: list[tuple[int, torch.Tensor | None]] = [(0, None), (1, None)]
    cache.call = Call("run", run=0, width=a)
    forward(torch.tensor([ids[:a]], device=device), positions_from([0], a, device))
    cache.call = Call("run", parts=both[:1], run=1, width=b - a)
    forward(torch.tensor([ids[a:b]], device=device), positions_from([a], b - a, device))
    width = len(row)
    cache.call = Call("fill", parts=both, width=width)
    padded = torch.tensor([row, [*shorter, 0, 0]], device=device)
    forward(padded, positions_from([b, b], width, device))
    found = []
    for step in range(2):
        columns = torch.tensor([width + step, width - 2 + step], device=device)
        cache.call = Call("step", parts=both, width=width + step + 1, columns=columns)
        # The longer row's second token is of no interest.
        inputs = torch.tensor([[ids[-1]], [ids[-3 + step]]], device=device)
        found.append(forward(inputs, columns[:, None] + b))
    return torch.stack([found[0][1], found[1][1], found[0][0]]).float()
