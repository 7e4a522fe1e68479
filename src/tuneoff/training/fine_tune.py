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

from tuneoff.config.contenders import LocalConfig
from tuneoff.errors import ConfigError, ContenderError
from tuneoff.models import loading
from tuneoff.models.embedding import check_tokens
from tuneoff.models.loading import (
    choose_dtype,
    choose_rendering,
    count_positions,
    get_device,
    load_tokenizer,
    release_memory,
)
from tuneoff.prompts import Template, collect_roles
from tuneoff.records import Example, LossRow, Split, TrainingRecord
from tuneoff.storage.run_dir import ContenderDir
from tuneoff.tokenization.chat_template import write_adapted_template
from tuneoff.tokenization.examples import (
    EncodedExample,
    count_content_tokens,
    describe_truncation,
    encode_example,
)
from tuneoff.training import memory
from tuneoff.training.batching import SHAPE_MULTIPLE, MicroBatcher
from tuneoff.training.checkpoints import ModelSaver, OnEpoch
from tuneoff.training.convergence import (
    classify_loss_curve,
    find_best_row,
    find_overfitting_step,
    is_out_of_patience,
)
from tuneoff.training.distributed.launcher import DistributedJob, count_processes, run_in_processes
from tuneoff.training.distributed.process_group import (
    SINGLE_PROCESS,
    ProcessGroup,
    join_process_group,
)
from tuneoff.training.model_card import render_template_notes

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, TrainerCallback

    from tuneoff.models.memory import MemoryEstimate
    from tuneoff.training.callbacks import OnStep
    from tuneoff.training.trainer import BakeOffTrainer, Say

# Maximum tokens of one forward pass on a CPU: more are not faster, and take memory.
MAX_CPU_TOKENS = 4096


def tune(
    settings: LocalConfig,
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

    In a group (`group.join_process_group`) every process calls it, for one common training. A
    single process whose settings ask for several launches them. The record is the same everywhere.

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
    from tuneoff.training.callbacks import CheckpointCallback
    from tuneoff.training.model_setup import release_model

    group = join_process_group()
    record = group.broadcast(_read_finished_record(directory))
    if record is not None:
        return record
    count = count_processes(settings, say) if group is SINGLE_PROCESS else 1
    if count > 1:
        loading.drop_cached_base()  # it would take the processes' memory
        release_memory()
        job = DistributedJob(
            settings, base, train, validation, template, directory.path, on_epoch is not None
        )  # fmt: skip
        return run_in_processes(count, job, on_step, say, on_epoch)
    if not group.is_first:
        say = _ignore_line
    memory.reset_peak_memory()
    tokenizer = load_tokenizer(base)
    rendering = choose_rendering(tokenizer, settings.rendering)
    about = []
    if rendering == "chat":  # the template saved with the weights renders as in training
        turns = collect_roles([*train, *validation], template)
        about = write_adapted_template(tokenizer, turns, template.today)
    longest = resolve_max_length(settings, count_positions(base))
    rules = settings.train
    encoded, validated = (
        [
            encode_example(
                tokenizer, e, template, rendering, rules.loss_on, longest, rules.truncate
            )
            for e in split
        ]
        for split in (train, validation)
    )
    for split, split_encoded in ((train, encoded), (validation, validated)):
        ids = ((e.id, encoding.input_ids) for e, encoding in zip(split, split_encoded, strict=True))
        check_tokens(tokenizer, base, ids)
    cut: dict[Split, int] = {
        "train": sum(e.is_truncated for e in encoded),
        "validation": sum(e.is_truncated for e in validated),
    }
    if any(cut.values()):
        say(describe_truncation(settings.name, cut))
    raw = sum(count_content_tokens(tokenizer, example) for example in train)
    dtype = choose_dtype(settings.train.precision)
    examples = [*encoded, *validated]
    # Estimate before anything is loaded; afterwards the weights would count twice.
    divided = needs_fsdp(settings, base, dtype, examples, group)
    most = compute_max_tokens(settings, base, dtype, examples, group, divided)
    most = min(most, most_at_once or most)
    model, packer = _prepare_model_and_batcher(
        settings, base, examples, dtype, most, say, group, divided
    )
    saver = ModelSaver(
        settings, base, model, tokenizer, directory, group, render_template_notes(about)
    )
    callbacks = (
        [CheckpointCallback(on_checkpoint)] if on_checkpoint is not None and group.is_first else []
    )
    record = _train(
        saver, encoded, validated, packer, dtype, raw, on_step, say, on_epoch, callbacks
    )
    saver.save_final(record)
    group.barrier()
    if not divided:
        release_model(settings, base, model)
    return record


def _read_finished_record(directory: ContenderDir) -> TrainingRecord | None:
    """Return the record of a complete training, else None; delete leftover checkpoints."""
    record = directory.training()
    if record is None or directory.weights() is None:
        return None
    shutil.rmtree(directory.checkpoints, ignore_errors=True)  # a kill may have left them
    return record


def _ignore_line(line: str) -> None:
    """Ignore a line of a process that is not the first."""


def _prepare_model_and_batcher(
    settings: LocalConfig,
    base: str,
    examples: Sequence[EncodedExample],
    dtype: torch.dtype,
    most: int,
    say: Say,
    group: ProcessGroup,
    divided: bool,
) -> tuple[PreTrainedModel, MicroBatcher]:
    """Return the model on its device, whole or sharded, and how batches are split."""
    from tuneoff.training.model_setup import prepare_model

    if not divided:
        model = prepare_model(settings, base, dtype)
        group.broadcast_parameters(model.parameters())
        packer = build_micro_batcher(settings, model, examples, dtype, most, say)
    else:
        import torch

        from tuneoff.training.distributed import fsdp

        mesh = fsdp.build_mesh(group)
        # In turns, for main memory may hold only one whole model at a time.
        for turn in group.take_turns():
            if turn:
                model = prepare_model(settings, base, dtype, torch.device("cpu"))
                packer = build_micro_batcher(settings, model, examples, dtype, most, say)
                fsdp.shard(model, mesh, dtype)
    packer.trees = not group.is_any(not packer.trees)
    return model, packer


def resolve_max_length(settings: LocalConfig, positions: int) -> int:
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


def needs_fsdp(
    settings: LocalConfig,
    base: str,
    dtype: torch.dtype,
    examples: Sequence[EncodedExample],
    group: ProcessGroup,
) -> bool:
    """Return whether to shard the model over the processes of a group (FSDP).

    The file may say so; else it is done if a whole training does not fit onto one accelerator.
    """
    from tuneoff.models import memory as model_memory
    from tuneoff.models.memory import measure_available_bytes

    if group.size == 1 or settings.train.parallel == "ddp" or settings.quantization != "none":
        return False
    if settings.train.parallel == "fsdp":
        return True
    if get_device().type == "cpu":
        return False
    longest = max(len(example.input_ids) for example in examples)
    whole = _estimate_memory(settings, base, dtype).total_bytes(longest, longest)
    return group.is_any(
        whole > model_memory.USABLE_FRACTION * measure_available_bytes(get_device())
    )


def compute_max_tokens(
    settings: LocalConfig,
    base: str,
    dtype: torch.dtype,
    examples: Sequence[EncodedExample],
    group: ProcessGroup = SINGLE_PROCESS,
    divided: bool = False,
) -> int:
    """Return the tokens of one forward pass that fit into the memory that is free now."""
    from tuneoff.models import memory as model_memory
    from tuneoff.models.memory import measure_available_bytes

    on_cpu = get_device().type == "cpu"
    needs = _estimate_memory(settings, base, dtype)
    if divided:
        needs = model_memory.shard_estimate(needs, group.size)
    most = model_memory.count_micro_batch_tokens(
        needs,
        measure_available_bytes(get_device()) // (group.local_size if on_cpu else 1),
        max(len(example.input_ids) for example in examples),
        MAX_CPU_TOKENS if on_cpu else model_memory.MAX_TOKENS,
    )
    return round(min(parts[0] for parts in group.all_gather([most])))


def _estimate_memory(settings: LocalConfig, base: str, dtype: torch.dtype) -> MemoryEstimate:
    """Return the estimated memory of this training."""
    from transformers import AutoConfig

    from tuneoff.models import memory as model_memory
    from tuneoff.prefix_sharing.micro_batch import MAX_LOGITS

    config = AutoConfig.from_pretrained(base)
    return model_memory.estimate_memory(
        config,
        settings,
        dtype,
        gradient_checkpointing=settings.train.gradient_checkpointing,
        logits_chunk=MAX_LOGITS // config.get_text_config().vocab_size,
        on_accelerator=get_device().type != "cpu",
    )


def build_micro_batcher(
    settings: LocalConfig,
    model: PreTrainedModel,
    examples: Sequence[EncodedExample],
    dtype: torch.dtype,
    most_tokens: int,
    say: Say,
) -> MicroBatcher:
    """Return how batches are split: as trees if this model supports them, and how large."""
    from tuneoff.prefix_sharing.probe import explain_unshareable

    longest = max(len(example.input_ids) for example in examples)
    reason = explain_unshareable(model, longest) if settings.train.share_prefixes else None
    if reason is not None:
        say(f"{settings.name}: shared prefixes are not computed once, because {reason}.")
    trees = settings.train.share_prefixes and reason is None
    plain = get_device().type == "cpu" and dtype.itemsize == 4
    return MicroBatcher(
        get_device(),
        trees,
        most_tokens,
        settings.train.micro_batch_size,
        1 if plain else SHAPE_MULTIPLE,
    )


def _train(
    saver: ModelSaver,
    train: Sequence[EncodedExample],
    validation: Sequence[EncodedExample],
    packer: MicroBatcher,
    dtype: torch.dtype,
    tokens_raw: int,
    on_step: OnStep | None,
    say: Say,
    on_epoch: OnEpoch | None,
    others: Sequence[TrainerCallback],
) -> TrainingRecord:
    """Train, and return the record."""
    from tuneoff.training.arguments import DEFAULT_LEARNING_RATE, build_training_arguments
    from tuneoff.training.callbacks import EpochEndCallback, ProgressCallback
    from tuneoff.training.checkpoints import TrainingTotals, parse_checkpoint_step
    from tuneoff.training.learning_rate_search import search_learning_rate
    from tuneoff.training.sampler import ExampleSampler
    from tuneoff.training.trainer import DivergedError, build_trainer, fit

    settings, model = saver.settings, saver.model
    directory, group = saver.directory, saver.group
    asked = settings.train.learning_rate
    if asked == "search":
        rate = search_learning_rate(
            settings, model, train, validation, directory, packer, dtype, say, group
        )
    else:
        rate = asked or DEFAULT_LEARNING_RATE[settings.method]
    folder = directory.checkpoints.resolve()
    checkpoint = _find_common_checkpoint(folder, group)
    if group.is_first:
        directory.truncate_loss(parse_checkpoint_step(checkpoint) if checkpoint else -1)
    effort, rows = group.broadcast((TrainingTotals.of(checkpoint), list(directory.loss())))
    order = ExampleSampler(
        [e.input_ids for e in train],
        settings.train.batch_size,
        settings.train.grouping,
        settings.seed,
    )
    patience = settings.train.patience if settings.train.until else None
    watch = ProgressCallback(
        rows, directory.append_loss if group.is_first else _drop_row, len(train),
        settings.train.batch_size, effort, on_step, patience, bool(validation),
    )  # fmt: skip
    callbacks: list[TrainerCallback] = [watch, *others]
    per_epoch = math.ceil(len(train) / settings.train.batch_size)
    if on_epoch is not None:
        callbacks.append(EpochEndCallback(per_epoch, bool(validation)))

    def on_saved(step: int) -> None:
        # Save before training can resume from here: a resumed training does not repeat the epoch.
        if on_epoch is not None and step % per_epoch == 0:
            saver.save_epoch(step)
            if group.is_first:
                on_epoch(step)

    arguments = build_training_arguments(
        settings, folder, len(train), rate, dtype, bool(validation), group
    )  # fmt: skip
    trainer = build_trainer(
        model, arguments, train, validation, order, packer, effort, callbacks, say, on_saved, group
    )  # fmt: skip
    try:
        fit(trainer, checkpoint, patience is not None and is_out_of_patience(rows, patience))
    except DivergedError as error:
        raise ContenderError(
            f"contender {settings.name}: {error}; lower train.learning_rate ({rate:g}), "
            "or use precision: float32."
        ) from None
    return group.broadcast(_build_record(settings, trainer, train, directory, tokens_raw, rate))


def _find_common_checkpoint(folder: Path, group: ProcessGroup) -> Path | None:
    """Return the checkpoint to resume from: the first process's last, of which each has a copy.

    Raises:
        ContenderError: one process has no copy.
    """
    from tuneoff.training.checkpoints import (
        format_checkpoint_name,
        parse_checkpoint_step,
        recover_last_checkpoint,
    )

    own = recover_last_checkpoint(folder) if group.is_first else None
    step = group.broadcast(parse_checkpoint_step(own) if own else None)
    if step is None:
        return None
    if not group.is_first:
        recover_last_checkpoint(folder)  # corrects the paths in this copy
    if group.is_any(not (folder / format_checkpoint_name(step)).is_dir()):
        raise ContenderError(
            f"{folder / format_checkpoint_name(step)} must lie with every process of this "
            "training to go on from, "
            "and does not; copy it there, or remove the checkpoints to begin anew."
        )
    return folder / format_checkpoint_name(step)


def _drop_row(row: LossRow) -> None:
    """Ignore a loss row of a process that is not the first."""


def _build_record(
    settings: LocalConfig,
    trainer: BakeOffTrainer,
    train: Sequence[EncodedExample],
    directory: ContenderDir,
    tokens_raw: int,
    rate: float,
) -> TrainingRecord:
    """Return the record of the finished training."""
    from tuneoff.training.arguments import build_schedule

    rows = directory.loss()
    best = find_best_row(rows)
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
        tokens_computed=trainer.totals.tokens_computed,
        seconds=round(trainer.totals.seconds, 3),
        peak_memory_bytes=round(
            max(parts[0] for parts in trainer.group.all_gather([memory.measure_peak_bytes()]))
        ),
        best_step=best.step if best else None,
        overfitting_step=find_overfitting_step(rows),
        verdict=classify_loss_curve(
            rows, planned, build_schedule(settings.train, trainer.state.max_steps)
        ),
        trainable_parameters=sum(p.numel() for p in parameters if p.requires_grad),
        learning_rate=rate,
        learning_rates_tried={f"{rate:g}": loss for rate, loss in tried.items()},
    )
