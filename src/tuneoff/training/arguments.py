"""Turns the settings of a bake-off file into transformers' training arguments: how long to train,
how fast, and how often to validate and save."""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneoff.config.contenders import LocalConfig, TrainConfig
from tuneoff.models.loading import get_device
from tuneoff.training.convergence import Schedule
from tuneoff.training.distributed.process_group import SINGLE_PROCESS, ProcessGroup

if TYPE_CHECKING:
    import torch
    from transformers import TrainingArguments

DEFAULT_EPOCHS, MAX_EPOCHS = 3.0, 30.0
DEFAULT_LEARNING_RATE = {"lora": 2e-4, "full": 2e-5}
WARMUP_FRACTION = 0.05
EVALUATIONS_PER_EPOCH = 2
SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


def count_planned_steps(train: TrainConfig, examples: int) -> int:
    """Return the maximum number of optimizer steps.

    It is `max_steps` of the file, or its epochs over this number of examples.
    """
    epochs = train.epochs or (DEFAULT_EPOCHS if train.until is None else MAX_EPOCHS)
    return train.max_steps or math.ceil(epochs * math.ceil(examples / train.batch_size))


def compute_evaluation_interval(train: TrainConfig, examples: int) -> int:
    """Return the number of steps between two validations; by default half an epoch."""
    per_epoch = math.ceil(examples / train.batch_size)
    return train.evaluate_every or math.ceil(per_epoch / EVALUATIONS_PER_EPOCH)


def build_schedule(train: TrainConfig, steps: int) -> Schedule:
    """Return the learning-rate schedule over this number of planned steps."""
    warmup = train.warmup_steps
    if warmup is None:
        warmup = math.ceil(WARMUP_FRACTION * min(steps, 1000))
    return Schedule(
        train.schedule or ("linear" if train.until is None else "constant"), warmup, steps
    )


def build_training_arguments(
    settings: LocalConfig,
    folder: Path,
    examples: int,
    learning_rate: float,
    dtype: torch.dtype,
    validated: bool = True,
    group: ProcessGroup = SINGLE_PROCESS,
) -> TrainingArguments:
    """Return the arguments of a training that writes its checkpoints to `folder`.

    Args:
        validated: False when there are no validation examples; the last step is then kept.
    """
    import torch

    train = settings.train
    steps, every = (
        count_planned_steps(train, examples),
        compute_evaluation_interval(train, examples),
    )
    schedule = build_schedule(train, steps)
    report_to = list(train.report_to) if group.is_first else []
    if "tensorboard" in report_to:
        # Beside the checkpoints, which are removed when training is complete.
        os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(folder.parent / "tensorboard"))
    arguments = _build_single_device_arguments(
        group,
        output_dir=str(folder),
        use_cpu=get_device().type == "cpu",
        per_device_train_batch_size=train.batch_size,
        learning_rate=learning_rate,
        lr_scheduler_type=SCHEDULES[schedule.kind],
        warmup_steps=schedule.warmup,
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
        bf16=dtype == torch.bfloat16,
        fp16=dtype == torch.float16,
        seed=settings.seed,
        disable_tqdm=True,
        report_to=report_to or "none",
        run_name=settings.name,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
    )
    # One setting: transformers reads the new name from 5.23 on, and the old one before.
    arguments.activation_checkpointing = train.gradient_checkpointing
    arguments.gradient_checkpointing = train.gradient_checkpointing
    return arguments


def _build_single_device_arguments(group: ProcessGroup, **named: Any) -> TrainingArguments:
    """Return the arguments of a trainer that sees one process and one device, even in a group.

    Otherwise accelerate would wrap the model, split the examples over processes, and average what
    is a sum here. `batch_size` would then differ from the file's.
    """
    import torch
    from transformers import TrainingArguments

    place = get_device()
    if group.size > 1 and place.type == "cuda":
        place = torch.device("cuda", torch.cuda.current_device())
    with _hide_launcher_variables() if group.size > 1 else contextlib.nullcontext():
        arguments = TrainingArguments(**named)
    arguments._n_gpu = min(1, arguments.n_gpu)
    if place.index is not None:
        # transformers took the machine's first one.
        arguments.__dict__["_setup_devices"] = place
        torch.cuda.set_device(place)
    return arguments


# Environment variables by which launchers tell a process that it is one of several.
LAUNCHER_VARIABLES = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "PMI_SIZE",
    "OMPI_COMM_WORLD_SIZE",
    "MV2_COMM_WORLD_SIZE",
)


@contextlib.contextmanager
def _hide_launcher_variables() -> Iterator[None]:
    """Hide the launcher's environment variables, so that this process looks like a single one."""
    saved = {name: os.environ.pop(name) for name in LAUNCHER_VARIABLES if name in os.environ}
    logger = logging.getLogger("transformers.training_args")
    level = logger.level
    # It would warn about a process group that its arguments do not mention.
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
        os.environ.update(saved)
