"""Tuning one open model: encode, train, keep the best checkpoint, save, record.

Everything is written below the contender's folder. A run that was cut goes on from its
last complete checkpoint; a finished one is not trained again.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneoff.config import LocalSettings, LoraSettings
from tuneoff.errors import ConfigError, ContenderError
from tuneoff.models.loading import (
    device,
    dtype_of,
    load_model,
    load_tokenizer,
    positions_of,
    rendering_of,
)
from tuneoff.prompts import Template
from tuneoff.records import Example, TrainingRecord
from tuneoff.rundir import ContenderDir
from tuneoff.training import memory
from tuneoff.training.card import write_card
from tuneoff.training.convergence import best_row, overfitting_step, verdict
from tuneoff.training.encoding import Encoded, content_tokens, encode

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

DEFAULT_EPOCHS = 3.0
DEFAULT_LEARNING_RATE = {"lora": 2e-4, "full": 2e-5}
WARMUP_FRACTION = 0.05
EVALUATIONS_PER_EPOCH = 2


def tune(
    settings: LocalSettings,
    base: str,
    train: Sequence[Example],
    validation: Sequence[Example],
    template: Template,
    directory: ContenderDir,
    on_step: Callable[[int, int, float | None], None] | None = None,
) -> TrainingRecord:
    """Trains, and leaves `adapter/` or `model/`, `training.json` and `loss.jsonl`.

    Args:
        base: a resolved base (folder or hub id).
        on_step: called with (step, steps in all, training loss so far).

    Raises:
        ConfigError: base, target modules or lengths cannot be used.
        ContenderError: the loss is not a number.
    """
    record = directory.training()
    if record is not None and directory.weights() is not None:
        return record
    memory.reset_peak()
    tokenizer = load_tokenizer(base)
    rendering = rendering_of(tokenizer, settings.rendering)
    longest = max_length(settings, positions_of(base))
    sets = [
        [encode(tokenizer, e, template, rendering, settings.train.loss_on, longest) for e in split]
        for split in (train, validation)
    ]
    raw = sum(content_tokens(tokenizer, example) for example in train)
    dtype = dtype_of(settings.train.precision)
    model = prepare_model(settings, base, dtype)
    record = _train(settings, model, tokenizer, sets[0], sets[1], directory, on_step, raw, dtype)
    _save(settings, base, model, tokenizer, directory, record)
    return record


def prepare_model(settings: LocalSettings, base: str, dtype: torch.dtype) -> PreTrainedModel:
    """The base with what is trained on it: an adapter, or all parameters.

    Trained parameters are float32 whatever the precision; a base under an adapter is kept
    in the precision it is computed in.
    """
    import torch
    from transformers import set_seed

    set_seed(settings.seed)
    full = settings.method == "full"
    model = load_model(base, settings.quantization, torch.float32 if full else dtype)
    if full:
        return model
    import peft

    if settings.quantization != "none":
        model = peft.prepare_model_for_kbit_training(
            model, use_gradient_checkpointing=settings.train.gradient_checkpointing
        )
    lora = settings.lora
    config = peft.LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        lora_dropout=lora.dropout,
        target_modules=target_modules(model, lora),
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


def target_modules(model: PreTrainedModel, lora: LoraSettings) -> list[str] | str:
    """`attention` becomes the names of the linear layers inside attention blocks, which
    differ between architectures (q_proj, query_key_value, dense, …)."""
    if lora.target_modules == "all-linear":
        return "all-linear"
    if lora.target_modules != "attention":
        return list(lora.target_modules)
    inside: set[tuple[str, str]] = set()
    outside: set[tuple[str, str]] = set()
    for path, module in model.named_modules():
        parent, _, name = path.rpartition(".")
        if getattr(module, "weight", None) is None or module.weight.ndim != 2:
            continue
        attends = "attn" in parent.lower() or "attention" in parent.lower()
        (inside if attends else outside).add((name, path))
    if not inside:
        raise ConfigError(
            "lora.target_modules: attention finds no linear layer in this base; name the modules."
        )
    # A name that other layers have too (GPT-2's c_proj) is told apart by its whole path.
    others = {name for name, _ in outside}
    return sorted({path if name in others else name for name, path in inside})


def max_length(settings: LocalSettings, positions: int) -> int:
    """Longest example in tokens: what the file says, at most the model's positions."""
    asked = settings.train.max_length
    if asked is not None and asked > positions:
        raise ConfigError(
            f"contender {settings.name}: train.max_length {asked} is more than the base's "
            f"{positions} positions; lower it."
        )
    return asked or positions


def _arguments(
    settings: LocalSettings, directory: ContenderDir, examples: int, dtype: torch.dtype
) -> TrainingArguments:
    import torch
    from transformers import TrainingArguments

    train = settings.train
    micro = train.micro_batch_size or train.batch_size
    steps_per_epoch = math.ceil(examples / train.batch_size)
    steps = train.max_steps or math.ceil((train.epochs or DEFAULT_EPOCHS) * steps_per_epoch)
    every = train.evaluate_every or max(1, steps_per_epoch // EVALUATIONS_PER_EPOCH)
    warmup = (
        math.ceil(WARMUP_FRACTION * steps) if train.warmup_steps is None else train.warmup_steps
    )
    schedules = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}
    arguments = TrainingArguments(
        output_dir=str(directory.checkpoints.resolve()),
        use_cpu=device().type == "cpu",
        per_device_train_batch_size=micro,
        per_device_eval_batch_size=micro,
        gradient_accumulation_steps=train.batch_size // micro,
        learning_rate=train.learning_rate or DEFAULT_LEARNING_RATE[settings.method],
        lr_scheduler_type=schedules[train.schedule],
        warmup_steps=warmup,
        weight_decay=train.weight_decay,
        max_steps=steps,
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,
        logging_steps=every,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        train_sampling_strategy="group_by_length" if train.group_by_length else "random",
        activation_checkpointing=train.gradient_checkpointing,
        bf16=dtype == torch.bfloat16,
        fp16=dtype == torch.float16,
        seed=settings.seed,
        disable_tqdm=True,
        report_to="none",
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
    )
    # One process trains on one device: with several, Trainer would wrap the model by itself
    # and `batch_size` would no longer be what the file says.
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments


def _train(
    settings: LocalSettings,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: Sequence[Encoded],
    validation: Sequence[Encoded],
    directory: ContenderDir,
    on_step: Callable[[int, int, float | None], None] | None,
    tokens_raw: int,
    dtype: torch.dtype,
) -> TrainingRecord:
    from tuneoff.training.trainer import Effort, LossFile, build, fit, last_checkpoint, step_of

    checkpoint = last_checkpoint(directory.checkpoints.resolve())
    directory.cut_loss(step_of(checkpoint) if checkpoint else -1)
    arguments = _arguments(settings, directory, len(train), dtype)
    effort = Effort.of(checkpoint)
    losses = LossFile(directory.append_loss, len(train), on_step)
    pad_id = int(tokenizer.pad_token_id or 0)
    trainer = build(model, arguments, train, validation, pad_id, losses, effort)
    fit(trainer, checkpoint)
    rows = directory.loss()
    best = best_row(rows)
    if best is None:
        raise ContenderError(
            f"contender {settings.name}: the validation loss is not a number; "
            "lower train.learning_rate, or use precision: float32."
        )
    epochs = float(trainer.state.epoch or 0.0)
    per_epoch = sum(len(example.input_ids) for example in train)
    return TrainingRecord(
        examples=len(train),
        epochs=round(epochs, 4),
        steps=trainer.state.global_step,
        tokens_raw=round(tokens_raw * epochs),
        tokens_templated=round(per_epoch * epochs),
        tokens_billed=None,
        tokens_computed=effort.tokens_computed,
        seconds=round(effort.seconds, 3),
        peak_memory_bytes=memory.peak_bytes(),
        best_step=best.step,
        overfitting_step=overfitting_step(rows),
        verdict=verdict(rows, trainer.state.max_steps),
        trainable_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
    )


def _save(
    settings: LocalSettings,
    base: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    directory: ContenderDir,
    record: TrainingRecord,
) -> None:
    """Saves beside and renames, so that a folder of that name is always complete."""
    final = directory.model if settings.method == "full" else directory.adapter
    beside = final.with_name(f".{final.name}.part")
    if beside.exists():
        shutil.rmtree(beside)
    model.save_pretrained(beside, safe_serialization=True)
    tokenizer.save_pretrained(beside)
    write_card(beside / "README.md", settings, record)
    directory.write_training(record)
    beside.rename(final)
    shutil.rmtree(directory.checkpoints, ignore_errors=True)


def trained(settings: LocalSettings, base: str, directory: ContenderDir) -> PreTrainedModel:
    """The tuned model, ready to answer: the base with its adapter, or the saved model.

    Raises:
        ContenderError: it was not tuned yet.
    """
    weights: Path | None = directory.weights()
    if weights is None:
        raise ContenderError(f"contender {settings.name}: it was not tuned yet; run it first.")
    dtype = dtype_of(settings.train.precision)
    if settings.method == "full":
        return load_model(str(weights), "none", dtype)
    import peft

    model = load_model(base, settings.quantization, dtype)
    adapted: Any = peft.PeftModel.from_pretrained(model, str(weights))
    if settings.quantization == "none":
        adapted = adapted.merge_and_unload()
    answering: PreTrainedModel = adapted
    return answering
