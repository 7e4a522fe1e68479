"""The whole model of a contender: its adapter merged into the base, or what was trained whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tuneoff.answer_check import Tuned
from tuneoff.errors import ContenderError
from tuneoff.export.options import Dtype
from tuneoff.models.head import is_tied, untie_head
from tuneoff.models.loading import load_model

if TYPE_CHECKING:
    import torch


def dtype_for(tuned: Tuned, wanted: Dtype) -> torch.dtype:
    """The dtype of a merged model's weights; `auto` is the one that the base is stored in (of a
    model trained whole, its own)."""
    import torch
    from transformers import AutoConfig

    named = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if wanted != "auto":
        return named[wanted]
    stored = tuned.weights if tuned.settings.method == "full" else tuned.base
    found = AutoConfig.from_pretrained(stored).dtype
    return found if found in named.values() else torch.float32


def describe_head(tuned: Tuned, model: Any) -> list[str]:
    """Says, for the card, that a head which the base calls tied has weights of its own."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(tuned.base).get_text_config()
    if is_tied(model) or not getattr(config, "tie_word_embeddings", False):
        return []
    return ["The output head has weights of its own; in the base it is tied to the embedding."]


def whole_model(tuned: Tuned, dtype: torch.dtype) -> Any:
    """Return the model on the CPU, its weights in `dtype`; of a base that was quantized in
    training, the full weights. A tied head gets its own weights where the adapter changes it or the
    embedding alone, and the configuration says so.

    Raises:
        ConfigError: the base cannot be loaded.
        ContenderError: a merged weight is no number in this dtype.
    """
    import peft
    import torch

    cpu = torch.device("cpu")
    if tuned.settings.method == "full":
        return load_model(str(tuned.weights), "none", dtype, cpu)
    base = load_model(tuned.base, "none", dtype, cpu)
    with untie_head(base):
        adapted: Any = peft.PeftModel.from_pretrained(base, str(tuned.weights))
        try:
            return adapted.merge_and_unload(safe_merge=True)
        except ValueError as error:
            raise ContenderError(
                f"contender {tuned.settings.name}: its adapter cannot be merged in {dtype} "
                f"({str(error).splitlines()[0]}); try --dtype float32."
            ) from None
