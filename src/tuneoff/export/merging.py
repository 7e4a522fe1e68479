"""The whole model of a contender: its adapter merged into the base, or its fully tuned weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tuneoff.bakeoff.answer_check import TunedContender
from tuneoff.errors import ContenderError
from tuneoff.export.options import Dtype
from tuneoff.models.head import is_tied, untie_head
from tuneoff.models.loading import load_model

if TYPE_CHECKING:
    import torch


def choose_export_dtype(tuned: TunedContender, wanted: Dtype) -> torch.dtype:
    """Return the dtype of a merged model's weights.

    `auto` means the dtype in which the base is stored; for a fully tuned model, its own.
    """
    import torch
    from transformers import AutoConfig

    named = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if wanted != "auto":
        return named[wanted]
    stored = tuned.weights if tuned.settings.method == "full" else tuned.base
    base_dtype = AutoConfig.from_pretrained(stored).dtype
    return base_dtype if base_dtype in named.values() else torch.float32


def describe_head(tuned: TunedContender, model: Any) -> list[str]:
    """Return a line for the card if the output head is no longer tied, as the base's is."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(tuned.base).get_text_config()
    if is_tied(model) or not getattr(config, "tie_word_embeddings", False):
        return []
    return ["The output head has weights of its own; in the base it is tied to the embedding."]


def load_whole_model(tuned: TunedContender, dtype: torch.dtype) -> Any:
    """Return the model on the CPU with its weights in `dtype`.

    A base that was quantized in training is loaded with its full weights. A tied head gets its own
    weights where the adapter changes only the head or only the embedding; the configuration says so
    then.

    Raises:
        ConfigError: the base cannot be loaded.
        ContenderError: a merged weight is not finite in this dtype.
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
