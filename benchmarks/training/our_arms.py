"""The arms of tuneoff's engine, and the proof that its gradients are the plain ones.

The trainer is the one that `tuneoff run` uses, its batches cut as there
(`training/batching.py`); only logs, checkpoints and evaluation are off, as in every arm.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from training.data import DataSet
from training.measure import Job, Measurement, Stopwatch, fix_batches, trainable
from tuneoff.prefix_sharing.micro_batch import install_micro_batch_loss
from tuneoff.prefix_sharing.probe import explain_unshareable
from tuneoff.tokenization.examples import IGNORE_INDEX, EncodedExample
from tuneoff.training import memory
from tuneoff.training.batching import SHAPE_MULTIPLE, MicroBatcher
from tuneoff.training.checkpoints import TrainingTotals
from tuneoff.training.fine_tune import MAX_CPU_TOKENS
from tuneoff.training.sampler import ExampleSampler, Grouping
from tuneoff.training.trainer import BakeOffTrainer, build_trainer, fit

if TYPE_CHECKING:
    from transformers import PreTrainedModel, TrainerCallback


def measure(grouping: Grouping, model: PreTrainedModel, data: DataSet, job: Job) -> Measurement:
    """One repetition with one grouping."""
    watch = Stopwatch(job)
    with tempfile.TemporaryDirectory() as folder:
        trainer = _trainer(grouping, model, data, job, folder, [watch])
        timed = fix_batches(trainer, job.batch_size, data.lengths, job)
        fit(trainer, None, finished=False)
    peak = memory.measure_peak_bytes()
    batches = [[data.examples[row] for row in batch] for batch in timed]
    return Measurement(
        examples=sum(map(len, batches)),
        seconds=watch.seconds,
        cpu_seconds=watch.cpu_seconds,
        tokens_in_data=sum(len(example.input_ids) for batch in batches for example in batch),
        tokens_computed=sum(
            p.tokens for batch in batches for p in trainer.packer.build_micro_batches(batch)
        ),
        peak_memory_bytes=peak,
        trainable_parameters=trainable(model),
    )


def gradient_difference(
    grouping: Grouping, model: PreTrainedModel, data: DataSet, job: Job
) -> float:
    """Largest ‖g−g′‖₂/‖g‖₂ over the trained tensors, for one batch.

    g is the plain model's, one example at a time; g′ is the engine's training step. Dropout
    must be off in `model`. A tensor whose gradient is zero must stay zero: else infinite.
    """
    one = replace(job, warmup_steps=0, steps=1)
    with tempfile.TemporaryDirectory() as folder:
        trainer = _trainer(grouping, model, data, one, folder, [])
        [rows] = fix_batches(trainer, one.batch_size, data.lengths, one)
        batch = [data.examples[row] for row in rows]
        plain = _plain_gradients(model, batch)
        model.zero_grad()
        with install_micro_batch_loss(model, trainer.packer.trees):
            trainer.training_step(model, {"examples": batch})
        ours = _gradients(model)
    return max(_relative(plain[name], ours[name]) for name in plain)


def _trainer(
    grouping: Grouping,
    model: PreTrainedModel,
    data: DataSet,
    job: Job,
    folder: str,
    callbacks: Sequence[TrainerCallback],
) -> BakeOffTrainer:
    from transformers import TrainingArguments

    longest = max(data.lengths)
    reason = explain_unshareable(model, longest)
    if reason is not None:
        raise SystemExit(f"there is nothing to compare: trees cannot be computed, for {reason}")
    packer = MicroBatcher(
        torch.device(job.device),
        trees=True,
        most_tokens=max(job.most_tokens or MAX_CPU_TOKENS, longest),
        multiple=1 if job.device == "cpu" and job.precision == "float32" else SHAPE_MULTIPLE,
    )
    arguments = TrainingArguments(
        **job.arguments(folder),
        per_device_train_batch_size=job.batch_size,
        remove_unused_columns=False,
    )
    ids = [example.input_ids for example in data.examples]
    return build_trainer(
        model,
        arguments,
        data.examples,
        data.examples[:1],
        ExampleSampler(ids, job.batch_size, grouping, job.seed),
        packer,
        TrainingTotals(),
        callbacks,
    )


def _plain_gradients(
    model: PreTrainedModel, batch: Sequence[EncodedExample]
) -> dict[str, torch.Tensor]:
    """The same mean loss, one example at a time, without padding."""
    model.train()
    learned = sum(label != IGNORE_INDEX for example in batch for label in example.labels[1:])
    for example in batch:
        logits = model(input_ids=torch.tensor([example.input_ids])).logits[0, :-1]
        targets = torch.tensor(example.labels[1:])
        loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
        (loss / learned).backward()
    return _gradients(model)


def _gradients(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def _relative(plain: torch.Tensor, ours: torch.Tensor) -> float:
    norm, difference = float(plain.norm()), float((plain - ours).norm())
    if norm == 0:
        return 0.0 if difference == 0 else float("inf")
    return difference / norm
