"""The training loop: a `transformers.Trainer` whose batches are split into micro-batches.

The subclass changes five things:

- A batch is split into micro-batches (`batching.py`) whose losses add up to the batch's. So
  `batch_size` is the examples of an optimizer step, however they are computed.
- The validation loss is the mean over supervised tokens, not over batches.
- Checkpoints appear complete or not at all.
- Running out of memory halves the micro-batches, and training continues.
- A loss that is not finite, or worse than guessing, stops the training.

Everything else (accelerate, mixed precision, schedules, `report_to`) is transformers' own.

With several processes, each has a trainer that sees a single process (`arguments.py`). It gets
whole batches and computes its share of the micro-batches. Gradients and losses are summed here
(`distributed/process_group.py`), or by the model itself where it is sharded
(`distributed/fsdp.py`). Only the first process writes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME

from tuneoff.errors import ContenderError
from tuneoff.prefix_sharing.micro_batch import MicroBatch, install_micro_batch_loss
from tuneoff.tokenization.examples import IGNORE_INDEX, EncodedExample
from tuneoff.training.batching import MicroBatcher
from tuneoff.training.checkpoints import (
    PARTIAL_DIR,
    STATE_FILE,
    TrainingTotals,
    format_checkpoint_name,
    parse_checkpoint_step,
    publish_checkpoint,
)
from tuneoff.training.distributed import fsdp
from tuneoff.training.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from tuneoff.training.sampler import ExampleSampler

# Nats above the loss of a uniform guess over the vocabulary.
MAX_EXCESS_LOSS = 1.0
Say = Callable[[str], None]
# Called with the step of a checkpoint that is written and not yet renamed to its final name.
OnSaved = Callable[[int], None]
T = TypeVar("T")


class DivergedError(Exception):
    """The loss is not finite or worse than guessing; the message names the step."""


class ShardedOutOfMemoryError(ContenderError):
    """A process of a sharded training ran out of memory while the others waited for it.

    All processes must restart from the last checkpoint, with at most `most_tokens` per forward
    pass.
    """

    most_tokens: int | None = None


class BakeOffTrainer(Trainer):
    """A trainer that computes batches as micro-batches; `build_trainer` sets its attributes."""

    packer: MicroBatcher
    order: ExampleSampler
    totals: TrainingTotals
    training_began: float
    say: Say
    validation: Sequence[EncodedExample]
    on_saved: OnSaved
    group: ProcessGroup = SINGLE_PROCESS
    sharded: bool = False
    _validation_batches: list[MicroBatch] | None = None
    # The full states of a sharded model and its optimizer, while a checkpoint is written.
    _full_state: tuple[Any, Any] | None = None

    def _get_train_sampler(self, train_dataset: Any = None) -> ExampleSampler:
        return self.order

    def training_step(
        self, model: Any, inputs: Any, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Compute the gradients of one batch over all processes and return its mean loss.

        Raises:
            DivergedError: the loss is not finite.
        """
        model.train()
        examples: list[EncodedExample] = inputs["examples"]
        share = self._retry_smaller(examples, lambda: self._share(model, examples))
        if not self.sharded:
            self.group.all_reduce_gradients(model.parameters())
        loss, computed, unshared = self.group.all_reduce(*share)
        self.totals.tokens_computed += round(computed)
        self.totals.tokens_unshared += round(unshared)
        if not math.isfinite(loss):
            raise DivergedError(f"the loss is not a number at step {self.state.global_step + 1}")
        return torch.tensor(loss, device=self.args.device)

    def _share(self, model: Any, examples: Sequence[EncodedExample]) -> tuple[float, int, int]:
        """Run forward and backward over this process's micro-batches.

        Their gradients add up to those of the batch's mean loss.

        Returns:
            their part of the mean loss, the tokens computed, and the tokens without prefix sharing.
        """
        learned = sum(map(_count_supervised, examples))
        # A sharded model averages gradients over the processes; the scale turns that into a sum.
        counted = self.group.size if self.sharded else 1
        total = torch.zeros((), device=self.args.device)
        computed = unshared = 0
        for pack in list(
            self.packer.build_micro_batches(examples, self.group.rank, self.group.size)
        ):
            with self.compute_loss_context_manager():
                loss = model(pack=pack).loss * (counted / learned)
            self.accelerator.backward(loss)
            total += loss.detach()
            computed, unshared = computed + pack.tokens, unshared + pack.unshared
        return float(total) / counted, computed, unshared

    def _retry_smaller(self, examples: Sequence[EncodedExample], compute: Callable[[], T]) -> T:
        """Return what `compute` gives; halve the micro-batches while any process runs out of
        memory.

        `compute` communicates with no other process, unless the model is sharded.

        Raises:
            ContenderError: one example alone does not fit, or a sharded model did not.
        """
        while True:
            results: list[T] = []
            try:
                results.append(compute())
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # Outside of the handler: the error's traceback still holds the memory to be freed.
            if self.sharded and not results:
                raise self._build_restart_error(examples)
            if not self.group.is_any(not results):
                return results[0]
            self._halve_micro_batches(examples)

    def _build_restart_error(self, examples: Sequence[EncodedExample]) -> ShardedOutOfMemoryError:
        """Return the error that ends all processes of a sharded model.

        The others wait for this process in the middle of a layer, where nothing can be agreed.
        """
        if not self.packer.halve(examples):
            return ShardedOutOfMemoryError(self._explain_no_room(examples))
        error = ShardedOutOfMemoryError(
            f"contender {self.args.run_name}: out of memory; with train.micro_batch_size less is "
            "computed at once."
        )
        error.most_tokens = self.packer.most_tokens
        return error

    def _halve_micro_batches(self, examples: Sequence[EncodedExample]) -> None:
        """Free memory and halve the micro-batches.

        Raises:
            ContenderError: one example alone does not fit.
        """
        self.model_wrapped.zero_grad()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if not self.packer.halve(examples):
            raise ContenderError(self._explain_no_room(examples))
        self._validation_batches = None
        self.totals.most_tokens = self.packer.most_tokens
        self.say(
            f"out of memory: now at most {self.packer.most_tokens} tokens are computed at once; "
            "the batch stays the same."
        )

    def _explain_no_room(self, examples: Sequence[EncodedExample]) -> str:
        """Return the error for an example that does not fit into memory by itself."""
        longest = max(len(example.input_ids) for example in examples)
        return (
            f"contender {self.args.run_name}: an example of {longest} tokens does not fit into "
            "memory by itself; use train.gradient_checkpointing, quantization, a lower "
            "train.max_length or a smaller base."
        )

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Return the validation loss in nats per supervised token, logged as `eval_loss`.

        Raises:
            DivergedError: it is worse than a uniform guess.
        """
        loss = self.compute_validation_loss()
        metrics = {"eval_loss": loss}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        self._check_loss("validation", loss)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        super().log(logs, start_time)
        if not self.validation and "loss" in logs:
            self._check_loss("training", logs["loss"])

    def _check_loss(self, kind: str, loss: float) -> None:
        """Raise DivergedError if a loss is worse than a uniform guess over the vocabulary."""
        model: Any = self.model
        evenly = math.log(model.config.get_text_config().vocab_size)
        if not loss <= evenly + MAX_EXCESS_LOSS:
            raise DivergedError(
                f"the {kind} loss is {loss:.3g} at step {self.state.global_step}, worse than "
                "guessing"
            )

    def compute_validation_loss(self) -> float:
        """Return the mean cross-entropy over the validation set's supervised tokens, in nats."""
        share = self._retry_smaller(self.validation, self._compute_validation_share)
        total, count = self.group.all_reduce(*share)
        return total / max(count, 1.0)

    @torch.no_grad()
    def _compute_validation_share(self) -> tuple[float, float]:
        """Return the summed cross-entropy of this process's micro-batches, and their supervised
        tokens."""
        model: Any = self.model_wrapped
        model.eval()
        if self._validation_batches is None:
            packs = self.packer.build_micro_batches(
                self.validation, self.group.rank, self.group.size
            )
            self._validation_batches = list(packs)
        total, count = 0.0, 0.0
        for pack in self._validation_batches:
            with self.compute_loss_context_manager():
                total += float(model(pack=pack).loss)
            count += float(pack.weights.sum())
        if self.sharded:
            # Without a backward pass the outermost module would stay gathered.
            model.reshard()
        model.train()
        return total, count

    def _clip_grad_norm(self, model: Any) -> torch.Tensor:
        """Clip the gradients and return their norm, gathered for a sharded model."""
        norm: Any = super()._clip_grad_norm(model)  # type: ignore[no-untyped-call]
        whole: torch.Tensor = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        return whole

    def _get_output_dir(self, trial: Any) -> str:
        return str(Path(str(self.args.output_dir)) / PARTIAL_DIR)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint to a temporary folder, then rename it to its final name."""
        folder, step = Path(str(self.args.output_dir)), self.state.global_step
        self.totals.seconds = time.perf_counter() - self.training_began
        if self.sharded:
            whole: Any = self.model
            optimizer: Any = self.optimizer
            self._full_state = (
                fsdp.gather_state(fsdp.get_saved_state(whole), self.group),
                fsdp.gather_state(optimizer.state_dict(), self.group),
            )
        if self.group.is_first:
            self.totals.write(folder / PARTIAL_DIR / format_checkpoint_name(step))
            super()._save_checkpoint(model, trial)
        self._full_state = None
        self.on_saved(step)
        if self.group.is_first:
            publish_checkpoint(folder, step, self.state.best_global_step)
        if self.state.best_global_step == step:
            self.state.best_model_checkpoint = str(folder / format_checkpoint_name(step))

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, self._full_state[0] if self._full_state else state_dict)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """Write the full optimizer state of a sharded model, or leave it to transformers."""
        if self._full_state is None:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        scheduler: Any = self.lr_scheduler
        torch.save(self._full_state[1], Path(output_dir) / OPTIMIZER_NAME)
        torch.save(scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Load the full optimizer state into a sharded model, or leave it to transformers."""
        if not self.sharded or checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        scheduler: Any = self.lr_scheduler
        read = partial(torch.load, map_location="cpu", weights_only=True)
        fsdp.load_optimizer(self.optimizer, read(Path(checkpoint) / OPTIMIZER_NAME))
        scheduler.load_state_dict(read(Path(checkpoint) / SCHEDULER_NAME))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self.group.size == 1:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            whole: Any = self.model
            fsdp.load_weights(whole, Path(resume_from_checkpoint), self.group)

    def _load_best_model(self) -> None:
        if self.group.size == 1:
            super()._load_best_model()
        else:  # the checkpoint may lie on the first process's machine only
            self._load_from_checkpoint(str(self.state.best_model_checkpoint))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)
        self.group.seed_dropout(self.args.seed + self.state.global_step)


def _count_supervised(example: EncodedExample) -> int:
    """Return the number of supervised tokens; the first token has no prediction."""
    return sum(label != IGNORE_INDEX for label in example.labels[1:])


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error is a failed allocation, on an accelerator or on the CPU."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return "out of memory" in text or "can't allocate memory" in text


def build_trainer(
    model: PreTrainedModel,
    arguments: TrainingArguments,
    train: Sequence[EncodedExample],
    validation: Sequence[EncodedExample],
    order: ExampleSampler,
    packer: MicroBatcher,
    effort: TrainingTotals,
    callbacks: Sequence[TrainerCallback] = (),
    say: Say = lambda line: None,
    on_saved: OnSaved = lambda step: None,
    group: ProcessGroup = SINGLE_PROCESS,
) -> BakeOffTrainer:
    """Return a trainer that continues to count in `effort`; only `callbacks` report progress."""
    trainer = BakeOffTrainer(
        model=model,
        args=arguments,
        train_dataset=_ExampleDataset(train),
        eval_dataset=_ExampleDataset(validation),
        data_collator=lambda batch: {"examples": list(batch)},
        callbacks=list(callbacks),
    )
    trainer.order, trainer.packer, trainer.validation = order, packer, validation
    trainer.totals, trainer.say, trainer.on_saved = effort, say, on_saved
    trainer.group, trainer.sharded = group, group.size > 1 and fsdp.is_sharded(model)
    # Transformers seeds all processes alike.
    group.seed_dropout(arguments.seed)
    if effort.most_tokens is not None:
        packer.most_tokens = min(packer.most_tokens, effort.most_tokens)
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    return trainer


def fit(trainer: BakeOffTrainer, checkpoint: Path | None, finished: bool) -> None:
    """Train from the start or from a checkpoint, then load the best model.

    Without validation the last model is kept.

    Args:
        finished: the training was killed after its last step, so only load the checkpoint.

    Raises:
        DivergedError: there was no checkpoint to fall back on.
    """
    trainer.training_began = time.perf_counter() - trainer.totals.seconds
    model: PreTrainedModel = trainer.model  # type: ignore[assignment]
    if checkpoint is not None and (
        finished or parse_checkpoint_step(checkpoint) >= trainer.args.max_steps
    ):
        trainer.state = TrainerState.load_from_json(str(checkpoint / STATE_FILE))
        if not trainer.validation:
            trainer.state.best_model_checkpoint = str(checkpoint)
        trainer._load_best_model()
        return
    with install_micro_batch_loss(model, trainer.packer.trees):
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except DivergedError as error:
            _restore_best(trainer, error)
    trainer.totals.seconds = time.perf_counter() - trainer.training_began


def _restore_best(trainer: BakeOffTrainer, error: DivergedError) -> None:
    """Load the best checkpoint after a divergence and tell the user; without one, raise the
    error."""
    best = trainer.state.best_model_checkpoint
    if not trainer.group.broadcast(best is not None and Path(best).is_dir()):
        raise error
    trainer.say(
        f"{error}: the training stopped, and the best checkpoint (step "
        f"{trainer.state.best_global_step}) is kept; a lower train.learning_rate may go further."
    )
    trainer._load_best_model()


class _ExampleDataset(torch.utils.data.Dataset[EncodedExample]):
    """A data set of encoded examples."""

    def __init__(self, examples: Sequence[EncodedExample]) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> EncodedExample:
        return self.examples[index]
