"""`learning_rate: search`: a short training per candidate; the lowest validation loss wins.

Every contender gets the same budget: the `CANDIDATE_RATES` of its method, `TRIAL_STEPS` optimizer
steps each (one epoch if that is less) at a constant rate after `TRIAL_WARMUP` steps, evaluated on
at most `MAX_TRIAL_VALIDATION` validation examples. Each candidate starts from the same weights and
sees the same batches. A short training slightly favours high rates; it rules out rates that are
wrong by a factor of three or more. Trials are stored one by one, so an interrupted search resumes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tuneoff.config.contenders import LocalConfig
from tuneoff.errors import ContenderError
from tuneoff.storage.run_dir import ContenderDir
from tuneoff.tokenization.examples import EncodedExample
from tuneoff.training.batching import MicroBatcher
from tuneoff.training.distributed.process_group import SINGLE_PROCESS, ProcessGroup

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from tuneoff.training.trainer import Say

CANDIDATE_RATES = {"lora": (5e-5, 2e-4, 1e-3, 4e-3, 1e-2), "full": (1e-5, 5e-5, 2e-4, 1e-3, 3e-3)}
TRIAL_STEPS, TRIAL_WARMUP, MAX_TRIAL_VALIDATION = 40, 4, 200


def search_learning_rate(
    settings: LocalConfig,
    model: PreTrainedModel,
    train: Sequence[EncodedExample],
    validation: Sequence[EncodedExample],
    directory: ContenderDir,
    packer: MicroBatcher,
    dtype: torch.dtype,
    say: Say,
    group: ProcessGroup = SINGLE_PROCESS,
) -> float:
    """Return the rate with the lowest validation loss; the model is left unchanged.

    Raises:
        ContenderError: the loss was not finite with any rate.
    """
    losses = group.broadcast(directory.learning_rates())
    start = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    for rate in CANDIDATE_RATES[settings.method]:
        if rate in losses:
            continue
        some = validation[:MAX_TRIAL_VALIDATION]
        losses[rate] = _run_trial(settings, model, train, some, packer, dtype, rate, group)
        if group.is_first:
            directory.write_learning_rates(losses)
        for name, parameter in model.named_parameters():
            if name in start:
                parameter.data.copy_(start[name])
    finite = {rate: loss for rate, loss in losses.items() if loss is not None}
    if not finite:
        raise ContenderError(
            f"contender {settings.name}: learning_rate: search tried "
            f"{', '.join(f'{rate:g}' for rate in losses)} and the loss left the numbers with each; "
            "give a train.learning_rate that is lower."
        )
    best = min(finite, key=lambda rate: finite[rate])
    tried = ", ".join(
        f"{rate:g}: {'diverged' if loss is None else f'{loss:.3f}'}"
        for rate, loss in losses.items()
    )
    say(
        f"{settings.name}: learning rate {best:g} (validation loss after {TRIAL_STEPS} steps: "
        f"{tried})"
    )
    return best


def _run_trial(
    settings: LocalConfig,
    model: PreTrainedModel,
    train: Sequence[EncodedExample],
    validation: Sequence[EncodedExample],
    packer: MicroBatcher,
    dtype: torch.dtype,
    rate: float,
    group: ProcessGroup = SINGLE_PROCESS,
) -> float | None:
    """Return the validation loss after a short training; None when it diverged."""
    import tempfile
    from pathlib import Path

    from transformers import set_seed

    from tuneoff.prefix_sharing.micro_batch import install_micro_batch_loss
    from tuneoff.training.arguments import build_training_arguments
    from tuneoff.training.checkpoints import TrainingTotals
    from tuneoff.training.sampler import ExampleSampler
    from tuneoff.training.trainer import DivergedError, build_trainer

    steps = min(TRIAL_STEPS, math.ceil(len(train) / settings.train.batch_size))
    short = settings.train.model_copy(
        update={
            "max_steps": steps, "warmup_steps": min(TRIAL_WARMUP, steps), "schedule": "constant",
            "evaluate_every": steps, "report_to": (),
        }
    )  # fmt: skip
    set_seed(settings.seed)
    order = ExampleSampler(
        [e.input_ids for e in train], short.batch_size, short.grouping, settings.seed
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments = build_training_arguments(
            settings.model_copy(update={"train": short}), Path(folder), len(train), rate, dtype,
            group=group,
        )  # fmt: skip
        # Nothing is kept of a trial: no checkpoint, no validation but the one below.
        arguments.eval_strategy = arguments.save_strategy = "no"
        arguments.load_best_model_at_end = False
        trainer = build_trainer(
            model, arguments, train, validation, order, packer, TrainingTotals(), group=group
        )
        trainer.training_began = 0.0
        with install_micro_batch_loss(model, packer.trees):
            try:
                trainer.train()
                loss = trainer.compute_validation_loss()
            except DivergedError:
                return None
    return loss if math.isfinite(loss) else None
