"""Prepares the model to train: all parameters, or a LoRA adapter on a base (quantized or not)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tuneoff.config.contenders import LocalConfig
from tuneoff.errors import ConfigError, ContenderError
from tuneoff.models import loading
from tuneoff.models.loading import choose_dtype, load_model
from tuneoff.models.parameters import resolve_target_modules
from tuneoff.storage.run_dir import ContenderDir

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def prepare_model(
    settings: LocalConfig, base: str, dtype: torch.dtype, place: torch.device | None = None
) -> PreTrainedModel:
    """Return the base ready for training: with a fresh adapter, or with all parameters.

    Trained parameters are float32 in any precision. A base under an adapter keeps the precision
    that it computes in.

    Args:
        place: the device of a model for this training only; left out, `device()`.

    Raises:
        ConfigError: base or target modules cannot be used.
    """
    import torch
    from transformers import set_seed

    if settings.method == "full":
        loading.drop_cached_base()
        model = load_model(base, "none", torch.float32, place)
        set_seed(settings.seed)
        return model
    model = (
        loading.borrow_base(base, settings.quantization, dtype)
        if place is None
        else load_model(base, settings.quantization, dtype, place)
    )
    # Seed after loading: loading a base draws random numbers, borrowing a cached one does not.
    set_seed(settings.seed)
    return add_adapter(settings, model)


def add_adapter(settings: LocalConfig, model: PreTrainedModel) -> PreTrainedModel:
    """Return the loaded base with a fresh LoRA adapter."""
    import peft

    if settings.quantization != "none":
        # Checkpointing is switched on by the trainer, for every kind of model alike.
        model = peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    lora = settings.lora
    config = peft.LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        lora_dropout=lora.dropout,
        target_modules=resolve_target_modules(model, lora),
        use_dora=lora.use_dora,
        use_rslora=lora.use_rslora,
        task_type="CAUSAL_LM",
    )
    try:
        adapted: Any = peft.get_peft_model(model, config, autocast_adapter_dtype=True)
    except ValueError as error:
        raise ConfigError(
            f"contender {settings.name}: LoRA cannot be put on this base "
            f"({str(error).splitlines()[0]}); see lora.target_modules."
        ) from None
    wrapped: PreTrainedModel = adapted
    return wrapped


def load_tuned(settings: LocalConfig, base: str, directory: ContenderDir) -> PreTrainedModel:
    """Return the tuned model ready to answer: the base with its adapter, or the saved model.

    Raises:
        ContenderError: it was not tuned yet.
    """
    weights = directory.weights()
    if weights is None:
        raise ContenderError(f"contender {settings.name}: it was not tuned yet; run it first.")
    dtype = choose_dtype(settings.train.precision)
    if settings.method == "full":
        loading.drop_cached_base()
        return load_model(str(weights), "none", dtype)
    import peft

    model = loading.borrow_base(base, settings.quantization, dtype)
    # Do not merge: in half precision merging rounds part of the adapter away, and the served model
    # must be the scored one.
    adapted: Any = peft.PeftModel.from_pretrained(model, str(weights))
    answering: PreTrainedModel = adapted
    return answering


def release_model(settings: LocalConfig, base: str, model: PreTrainedModel) -> None:
    """Release the base of a LoRA contender for the next contender that uses it."""
    if settings.method == "lora":
        dtype = choose_dtype(settings.train.precision)
        loading.release_base(base, settings.quantization, dtype, model)
