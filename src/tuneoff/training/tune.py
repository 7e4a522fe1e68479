"""Tunes one open model: encode, train, keep the best checkpoint, save, record.

Everything is written below the contender's folder. An interrupted run resumes from its last
checkpoint; a finished one is not trained again. In a group each process calls `tune`, with a folder
of its own or a shared one; the first writes.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tuneoff.contender_settings import LocalSettings
from tuneoff.errors import ConfigError, ContenderError
from tuneoff.models import bases
from tuneoff.models.embedding import check_tokens
from tuneoff.models.loading import (
    device,
    dtype_of,
    load_tokenizer,
    positions_of,
    release_memory,
    rendering_of,
)
from tuneoff.prompts import Template, conversations
from tuneoff.records import Example, LossRow, Split, TrainingRecord
from tuneoff.rundir import ContenderDir
from tuneoff.tokenization.chat_template import write_adapted
from tuneoff.training import memory
from tuneoff.training.card import template_lines
from tuneoff.training.convergence import best_row, out_of_patience, overfitting_step, verdict
from tuneoff.training.cutting import cut_line
from tuneoff.training.encoding import Encoded, content_tokens, encode
from tuneoff.training.group import ALONE, Group, join
from tuneoff.training.packer import FEW_SHAPES, Packer
from tuneoff.training.processes import Job, in_processes, processes
from tuneoff.training.saving import OnEpoch, Saver

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, TrainerCallback

    from tuneoff.models.memory import MemoryEstimate
    from tuneoff.training.trainer import BakeOffTrainer, Say
    from tuneoff.training.watch import OnStep

# Maximum tokens of one forward pass on a CPU: more are not faster, and take memory.
CPU_TOKENS = 4096


def tune(
    settings: LocalSettings,
    base: str,
    train: Sequence[Example],
    validation: Sequence[Example],
    template: Template,
    directory: ContenderDir,
    on_step: OnStep | None = None,
    say: Say = lambda line: None,
    on_epoch: OnEpoch | None = None,
    most_at_once: int | None = None,
    on_checkpoint: Callable[[], None] | None = None,
) -> TrainingRecord:
    """Train and return the record; write `adapter/` or `model/`, `training.json` and `loss.jsonl`.

    In a group (`group.join`) every process calls it, for one common training. A single process
    whose settings ask for several launches them. The record is the same everywhere.

    Args:
        base: a resolved base (folder or hub id).
        validation: its loss decides which checkpoint is kept; without any, the last one is.
        on_step: called with (step, all steps, a few words about it), in every process.
        say: called with each line for the user, in the first process.
        on_epoch: called when an epoch's weights are saved. A resumed training may repeat a call. In
            a group all processes pass it, or none.
        most_at_once: maximum tokens of one forward pass, where memory is known to hold no more.
        on_checkpoint: called when a checkpoint is complete, in the first process; not where this
            call launches several processes.

    Raises:
        ConfigError: base, target modules or lengths cannot be used.
        DataError: an example is too long, or has a token without an embedding.
        ContenderError: the loss is not a number.
    """
    from tuneoff.training.method import finished
    from tuneoff.training.watch import Complete

    group = join()
    record = group.from_first(_finished(directory))
    if record is not None:
        return record
    count = processes(settings, say) if group is ALONE else 1
    if count > 1:
        bases.forget()  # it would take the processes' memory
        release_memory()
        job = Job(
            settings, base, train, validation, template, directory.path, on_epoch is not None
        )  # fmt: skip
        return in_processes(count, job, on_step, say, on_epoch)
    if not group.first:
        say = _silence
    memory.reset_peak()
    tokenizer = load_tokenizer(base)
    rendering = rendering_of(tokenizer, settings.rendering)
    about = []
    if rendering == "chat":  # the template saved with the weights renders as in training
        turns = conversations([*train, *validation], template)
        about = write_adapted(tokenizer, turns, template.today)
    longest = max_length(settings, positions_of(base))
    rules = settings.train
    encoded, validated = (
        [
            encode(tokenizer, e, template, rendering, rules.loss_on, longest, rules.truncate)
            for e in split
        ]
        for split in (train, validation)
    )
    for split, split_encoded in ((train, encoded), (validation, validated)):
        ids = ((e.id, encoding.input_ids) for e, encoding in zip(split, split_encoded, strict=True))
        check_tokens(tokenizer, base, ids)
    cut: dict[Split, int] = {
        "train": sum(e.cut for e in encoded),
        "validation": sum(e.cut for e in validated),
    }
    if any(cut.values()):
        say(cut_line(settings.name, cut))
    raw = sum(content_tokens(tokenizer, example) for example in train)
    dtype = dtype_of(settings.train.precision)
    examples = [*encoded, *validated]
    # Estimate before anything is loaded; afterwards the weights would count twice.
    divided = is_divided(settings, base, dtype, examples, group)
    most = most_tokens(settings, base, dtype, examples, group, divided)
    most = min(most, most_at_once or most)
    model, packer = _prepared(settings, base, examples, dtype, most, say, group, divided)
    saver = Saver(settings, base, model, tokenizer, directory, group, template_lines(about))
    callbacks = [Complete(on_checkpoint)] if on_checkpoint is not None and group.first else []
    record = _train(
        saver, encoded, validated, packer, dtype, raw, on_step, say, on_epoch, callbacks
    )
    saver.finish(record)
    group.wait()
    if not divided:
        finished(settings, base, model)
    return record


def _finished(directory: ContenderDir) -> TrainingRecord | None:
    """Return the record of a complete training, else None; delete leftover checkpoints."""
    record = directory.training()
    if record is None or directory.weights() is None:
        return None
    shutil.rmtree(directory.checkpoints, ignore_errors=True)  # a kill may have left them
    return record


def _silence(line: str) -> None:
    """Ignore a line of a process that is not the first."""


def _prepared(
    settings: LocalSettings,
    base: str,
    examples: Sequence[Encoded],
    dtype: torch.dtype,
    most: int,
    say: Say,
    group: Group,
    divided: bool,
) -> tuple[PreTrainedModel, Packer]:
    """Return the model on its device, whole or sharded, and how batches are split."""
    from tuneoff.training.method import prepare_model

    if not divided:
        model = prepare_model(settings, base, dtype)
        group.share(model.parameters())
        packer = packer_for(settings, model, examples, dtype, most, say)
    else:
        import torch

        from tuneoff.training import sharding

        mesh = sharding.mesh_of(group)
        # In turns, for main memory may hold only one whole model at a time.
        for turn in group.take_turns():
            if turn:
                model = prepare_model(settings, base, dtype, torch.device("cpu"))
                packer = packer_for(settings, model, examples, dtype, most, say)
                sharding.shard(model, mesh, dtype)
    packer.trees = not group.any(not packer.trees)
    return model, packer


def max_length(settings: LocalSettings, positions: int) -> int:
    """Return the maximum tokens of an example: the file's value or the model's positions.

    Raises:
        ConfigError: the file's value is more than the positions.
    """
    asked = settings.train.max_length
    if asked is not None and asked > positions:
        raise ConfigError(
            f"contender {settings.name}: train.max_length {asked} is more than the base's "
            f"{positions} positions; lower it."
        )
    return asked or positions


def is_divided(
    settings: LocalSettings,
    base: str,
    dtype: torch.dtype,
    examples: Sequence[Encoded],
    group: Group,
) -> bool:
    """Return whether to shard the model over the processes of a group (FSDP).

    The file may say so; else it is done if a whole training does not fit onto one accelerator.
    """
    from tuneoff.models import memory as needed
    from tuneoff.models.free_memory import available_bytes

    if group.size == 1 or settings.train.parallel == "ddp" or settings.quantization != "none":
        return False
    if settings.train.parallel == "fsdp":
        return True
    if device().type == "cpu":
        return False
    longest = max(len(example.input_ids) for example in examples)
    whole = _estimate(settings, base, dtype).total_bytes(longest, longest)
    return group.any(whole > needed.USABLE * available_bytes(device()))


def most_tokens(
    settings: LocalSettings,
    base: str,
    dtype: torch.dtype,
    examples: Sequence[Encoded],
    group: Group = ALONE,
    divided: bool = False,
) -> int:
    """Return the tokens of one forward pass that fit into the memory that is free now."""
    from tuneoff.models import memory as needed
    from tuneoff.models.free_memory import available_bytes

    on_cpu = device().type == "cpu"
    needs = _estimate(settings, base, dtype)
    if divided:
        needs = needed.divided(needs, group.size)
    most = needed.pack_tokens(
        needs,
        available_bytes(device()) // (group.on_this_machine if on_cpu else 1),
        max(len(example.input_ids) for example in examples),
        CPU_TOKENS if on_cpu else needed.MOST_TOKENS,
    )
    return round(min(parts[0] for parts in group.all([most])))


def _estimate(settings: LocalSettings, base: str, dtype: torch.dtype) -> MemoryEstimate:
    """Return the estimated memory of this training."""
    from transformers import AutoConfig

    from tuneoff.models import memory as needed
    from tuneoff.models.packing import LOGITS_AT_ONCE

    config = AutoConfig.from_pretrained(base)
    return needed.estimate(
        config,
        settings,
        dtype,
        gradient_checkpointing=settings.train.gradient_checkpointing,
        logits_chunk=LOGITS_AT_ONCE // config.get_text_config().vocab_size,
        on_accelerator=device().type != "cpu",
    )


def packer_for(
    settings: LocalSettings,
    model: PreTrainedModel,
    examples: Sequence[Encoded],
    dtype: torch.dtype,
    most_tokens: int,
    say: Say,
) -> Packer:
    """Return how batches are split: as trees if this model supports them, and how large."""
    from tuneoff.models.probe import reason_against

    longest = max(len(example.input_ids) for example in examples)
    reason = reason_against(model, longest) if settings.train.share_prefixes else None
    if reason is not None:
        say(f"{settings.name}: shared prefixes are not computed once, because {reason}.")
    trees = settings.train.share_prefixes and reason is None
    plain = device().type == "cpu" and dtype.itemsize == 4
    return Packer(
        device(),
        trees,
        most_tokens,
        settings.train.micro_batch_size,
        1 if plain else FEW_SHAPES,
    )


def _train(
    saver: Saver,
    train: Sequence[Encoded],
    validation: Sequence[Encoded],
    packer: Packer,
    dtype: torch.dtype,
    tokens_raw: int,
    on_step: OnStep | None,
    say: Say,
    on_epoch: OnEpoch | None,
    others: Sequence[TrainerCallback],
) -> TrainingRecord:
    """Train, and return the record."""
    from tuneoff.training.arguments import DEFAULT_LEARNING_RATE, training_arguments
    from tuneoff.training.checkpoints import Effort, step_of
    from tuneoff.training.order import ExampleOrder
    from tuneoff.training.search import search
    from tuneoff.training.trainer import DivergedError, build, fit
    from tuneoff.training.watch import EpochEnds, Watch

    settings, model = saver.settings, saver.model
    directory, group = saver.directory, saver.group
    asked = settings.train.learning_rate
    if asked == "search":
        rate = search(settings, model, train, validation, directory, packer, dtype, say, group)
    else:
        rate = asked or DEFAULT_LEARNING_RATE[settings.method]
    folder = directory.checkpoints.resolve()
    checkpoint = _common_checkpoint(folder, group)
    if group.first:
        directory.cut_loss(step_of(checkpoint) if checkpoint else -1)
    effort, rows = group.from_first((Effort.of(checkpoint), list(directory.loss())))
    order = ExampleOrder(
        [e.input_ids for e in train],
        settings.train.batch_size,
        settings.train.grouping,
        settings.seed,
    )
    patience = settings.train.patience if settings.train.until else None
    watch = Watch(
        rows, directory.append_loss if group.first else _unwritten, len(train),
        settings.train.batch_size, effort, on_step, patience, bool(validation),
    )  # fmt: skip
    callbacks: list[TrainerCallback] = [watch, *others]
    per_epoch = math.ceil(len(train) / settings.train.batch_size)
    if on_epoch is not None:
        callbacks.append(EpochEnds(per_epoch, bool(validation)))

    def on_saved(step: int) -> None:
        # Save before training can resume from here: a resumed training does not repeat the epoch.
        if on_epoch is not None and step % per_epoch == 0:
            saver.epoch(step)
            if group.first:
                on_epoch(step)

    arguments = training_arguments(
        settings, folder, len(train), rate, dtype, bool(validation), group
    )  # fmt: skip
    trainer = build(
        model, arguments, train, validation, order, packer, effort, callbacks, say, on_saved, group
    )  # fmt: skip
    try:
        fit(trainer, checkpoint, patience is not None and out_of_patience(rows, patience))
    except DivergedError as error:
        raise ContenderError(
            f"contender {settings.name}: {error}; lower train.learning_rate ({rate:g}), "
            "or use precision: float32."
        ) from None
    return group.from_first(_record(settings, trainer, train, directory, tokens_raw, rate))


def _common_checkpoint(folder: Path, group: Group) -> Path | None:
    """Return the checkpoint to resume from: the first process's last, of which each has a copy.

    Raises:
        ContenderError: one process has no copy.
    """
    from tuneoff.training.checkpoints import last_checkpoint, name_of, step_of

    own = last_checkpoint(folder) if group.first else None
    step = group.from_first(step_of(own) if own else None)
    if step is None:
        return None
    if not group.first:
        last_checkpoint(folder)  # corrects the paths in this copy
    if group.any(not (folder / name_of(step)).is_dir()):
        raise ContenderError(
            f"{folder / name_of(step)} must lie with every process of this training to go on from, "
            "and does not; copy it there, or remove the checkpoints to begin anew."
        )
    return folder / name_of(step)


def _unwritten(row: LossRow) -> None:
    """Ignore a loss row of a process that is not the first."""


def _record(
    settings: LocalSettings,
    trainer: BakeOffTrainer,
    train: Sequence[Encoded],
    directory: ContenderDir,
    tokens_raw: int,
    rate: float,
) -> TrainingRecord:
    """Return the record of the finished training."""
    from tuneoff.training.arguments import schedule_of

    rows = directory.loss()
    best = best_row(rows)
    epochs = float(trainer.state.epoch or 0.0)
    per_epoch = sum(len(example.input_ids) for example in train)
    planned = None if settings.train.until else trainer.state.max_steps
    tried = directory.learning_rates()
    parameters = trainer.model.parameters()  # type: ignore[union-attr]
    return TrainingRecord(
        examples=len(train),
        epochs=round(epochs, 4),
        steps=trainer.state.global_step,
        tokens_raw=round(tokens_raw * epochs),
        tokens_templated=round(per_epoch * epochs),
        tokens_billed=None,
        tokens_computed=trainer.effort.tokens_computed,
        seconds=round(trainer.effort.seconds, 3),
        peak_memory_bytes=round(
            max(parts[0] for parts in trainer.group.all([memory.peak_bytes()]))
        ),
        best_step=best.step if best else None,
        overfitting_step=overfitting_step(rows),
        verdict=verdict(rows, planned, schedule_of(settings.train, trainer.state.max_steps)),
        trainable_parameters=sum(p.numel() for p in parameters if p.requires_grad),
        learning_rate=rate,
        learning_rates_tried={f"{rate:g}": loss for rate, loss in tried.items()},
    )
