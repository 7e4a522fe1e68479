"""How long, how fast and how often: a bake-off file's settings as transformers takes them."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from tuneoff.config import LocalSettings, TrainSettings
from tuneoff.models.loading import device

if TYPE_CHECKING:
    import torch
    from transformers import TrainingArguments

DEFAULT_EPOCHS, MOST_EPOCHS = 3.0, 30.0
DEFAULT_LEARNING_RATE = {"lora": 2e-4, "full": 2e-5}
WARMUP_FRACTION = 0.05
EVALUATIONS_PER_EPOCH = 2
SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


def planned_steps(train: TrainSettings, examples: int) -> int:
    """Optimizer steps at most: what the file says, or its epochs over so many examples."""
    epochs = train.epochs or (DEFAULT_EPOCHS if train.until is None else MOST_EPOCHS)
    return train.max_steps or math.ceil(epochs * math.ceil(examples / train.batch_size))


def evaluate_every(train: TrainSettings, examples: int) -> int:
    """Steps between two validations; left out, twice an epoch."""
    per_epoch = math.ceil(examples / train.batch_size)
    return train.evaluate_every or max(1, per_epoch // EVALUATIONS_PER_EPOCH)


def training_arguments(
    settings: LocalSettings,
    folder: Path,
    examples: int,
    learning_rate: float,
    dtype: torch.dtype,
    validated: bool = True,
) -> TrainingArguments:
    """The arguments of a training whose checkpoints go to `folder`. Not `validated`: there are
    no validation examples, and the last step is what is kept."""
    import torch
    from transformers import TrainingArguments

    train = settings.train
    steps, every = planned_steps(train, examples), evaluate_every(train, examples)
    warmup = (
        math.ceil(WARMUP_FRACTION * min(steps, 1000))
        if train.warmup_steps is None
        else train.warmup_steps
    )
    schedule = train.schedule or ("linear" if train.until is None else "constant")
    if "tensorboard" in train.report_to:
        # Beside the checkpoints, which are removed when training is complete.
        os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(folder.parent / "tensorboard"))
    arguments = TrainingArguments(
        output_dir=str(folder),
        use_cpu=device().type == "cpu",
        per_device_train_batch_size=train.batch_size,
        learning_rate=learning_rate,
        lr_scheduler_type=SCHEDULES[schedule],
        warmup_steps=warmup,
        weight_decay=train.weight_decay,
        max_steps=steps,
        eval_strategy="steps" if validated else "no",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        logging_steps=every,
        load_best_model_at_end=validated,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        activation_checkpointing=train.gradient_checkpointing,
        bf16=dtype == torch.bfloat16,
        fp16=dtype == torch.float16,
        seed=settings.seed,
        disable_tqdm=True,
        report_to=list(train.report_to) or "none",
        run_name=settings.name,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
    )
    # One process trains on one device: with several, Trainer would wrap the model by itself
    # and `batch_size` would no longer be what the file says.
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments
