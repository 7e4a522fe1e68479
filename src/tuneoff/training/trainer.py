"""The training loop: a `transformers.Trainer` whose batches are packs.

What the subclass changes: a batch is cut into packs (`packer.py`) whose losses add up to the
batch's, so `batch_size` is examples an optimizer step, however they are computed; the
validation loss is the mean over supervised tokens (not over batches); checkpoints appear
whole or not at all; running out of memory halves what is computed at once and goes on; a
loss that is not a number, or worse than guessing, stops the training. Everything else
(accelerate, mixed precision, schedules, `report_to`) is transformers' own.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
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

from tuneoff.errors import ContenderError
from tuneoff.models.packing import Pack, loss_over_packs
from tuneoff.training.checkpoints import STATE_FILE, WRITING, Effort, publish, step_of
from tuneoff.training.encoding import IGNORED, Encoded
from tuneoff.training.order import ExampleOrder
from tuneoff.training.packer import Packer

# Nats over the loss of guessing every token of the vocabulary evenly.
WORSE_THAN_GUESSING = 1.0
Say = Callable[[str], None]
# Called with a step when its checkpoint is written and not published yet.
OnSaved = Callable[[int], None]
T = TypeVar("T")


class DivergedError(Exception):
    """The loss left the numbers, or is worse than guessing; the message says at which step."""


class BakeOffTrainer(Trainer):
    """See the module's docstring. The attributes are set by `build`."""

    packer: Packer
    order: ExampleOrder
    effort: Effort
    effort_began: float
    say: Say
    validation: Sequence[Encoded]
    on_saved: OnSaved
    _validation_packs: list[Pack] | None = None

    def _get_train_sampler(self, train_dataset: Any = None) -> ExampleOrder:
        return self.order

    def training_step(
        self, model: Any, inputs: Any, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        model.train()
        examples: list[Encoded] = inputs["examples"]
        loss = self._within_memory(examples, lambda: self._whole_batch(model, examples))
        if not torch.isfinite(loss):
            raise DivergedError(f"the loss is not a number at step {self.state.global_step + 1}")
        return loss

    def _whole_batch(self, model: Any, examples: Sequence[Encoded]) -> torch.Tensor:
        """Forward and backward of every pack; the gradients add up to the batch's mean."""
        # Over all processes, whose gradients DDP averages: so each must count as many times.
        learned = torch.tensor(float(sum(map(_learned, examples))), device=self.args.device)
        scale = self.accelerator.num_processes / self.accelerator.gather(learned).sum()
        packs = list(self.packer.packs(examples))
        total = torch.zeros((), device=self.args.device)
        for number, pack in enumerate(packs, 1):
            last = number == len(packs)
            with contextlib.nullcontext() if last else self.accelerator.no_sync(model):
                with self.compute_loss_context_manager():
                    loss = model(pack=pack).loss * scale
                self.accelerator.backward(loss)
            total += loss.detach()
        self.effort.tokens_computed += sum(pack.tokens for pack in packs)
        self.effort.tokens_unshared += sum(pack.unshared for pack in packs)
        return total

    def _within_memory(self, examples: Sequence[Encoded], compute: Callable[[], T]) -> T:
        """Computes, and again with half as much at once while memory runs out.

        Raises:
            ContenderError: one example alone does not fit.
        """
        while True:
            try:
                return compute()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # Outside of the handler: the error's traceback holds what is to be given back.
            self._halve(examples)

    def _halve(self, examples: Sequence[Encoded]) -> None:
        self.model_wrapped.zero_grad()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if not self.packer.halve(examples):
            longest = max(len(example.input_ids) for example in examples)
            raise ContenderError(
                f"contender {self.args.run_name}: an example of {longest} tokens does not fit into "
                "memory by itself; use train.gradient_checkpointing, quantization, a lower "
                "train.max_length or a smaller base."
            )
        self._validation_packs = None
        self.effort.most_tokens = self.packer.most_tokens
        self.say(
            f"out of memory: now at most {self.packer.most_tokens} tokens are computed at once; "
            "the batch stays the same."
        )

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Validation loss in nats per supervised token, logged as `eval_loss`.

        Raises:
            DivergedError: it is worse than guessing every token evenly.
        """
        loss = self._within_memory(self.validation, self.validation_loss)
        metrics = {"eval_loss": loss}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        self._refuse_worse_than_guessing("validation", loss)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        super().log(logs, start_time)
        if not self.validation and "loss" in logs:
            self._refuse_worse_than_guessing("training", logs["loss"])

    def _refuse_worse_than_guessing(self, kind: str, loss: float) -> None:
        model: Any = self.model
        evenly = math.log(model.config.get_text_config().vocab_size)
        if not loss <= evenly + WORSE_THAN_GUESSING:
            raise DivergedError(
                f"the {kind} loss is {loss:.3g} at step {self.state.global_step}, worse than "
                "guessing"
            )

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Mean cross-entropy over the validation set's supervised tokens, in nats."""
        model: Any = self.model_wrapped
        model.eval()
        if self._validation_packs is None:
            self._validation_packs = list(self.packer.packs(self.validation))
        total, count = 0.0, 0.0
        for pack in self._validation_packs:
            with self.compute_loss_context_manager():
                total += float(model(pack=pack).loss)
            count += float(pack.weights.sum())
        model.train()
        return total / max(count, 1.0)

    def _get_output_dir(self, trial: Any) -> str:
        return str(Path(str(self.args.output_dir)) / WRITING)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder, step = Path(str(self.args.output_dir)), self.state.global_step
        self.effort.seconds = time.perf_counter() - self.effort_began
        self.effort.write(folder / WRITING / f"checkpoint-{step}")
        super()._save_checkpoint(model, trial)
        self.on_saved(step)
        final = publish(folder, step, self.state.best_global_step)
        if self.state.best_global_step == step:
            self.state.best_model_checkpoint = str(final)


def _learned(example: Encoded) -> int:
    """Supervised tokens; the first one has nothing before it that could predict it."""
    return sum(label != IGNORED for label in example.labels[1:])


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is a failed allocation, on an accelerator or on the CPU."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return "out of memory" in text or "can't allocate memory" in text


def build(
    model: PreTrainedModel,
    arguments: TrainingArguments,
    train: Sequence[Encoded],
    validation: Sequence[Encoded],
    order: ExampleOrder,
    packer: Packer,
    effort: Effort,
    callbacks: Sequence[TrainerCallback] = (),
    say: Say = lambda line: None,
    on_saved: OnSaved = lambda step: None,
) -> BakeOffTrainer:
    """A trainer that goes on counting in `effort`; only `callbacks` tell what it does."""
    trainer = BakeOffTrainer(
        model=model,
        args=arguments,
        train_dataset=_Encodings(train),
        eval_dataset=_Encodings(validation),
        data_collator=lambda batch: {"examples": list(batch)},
        callbacks=list(callbacks),
    )
    trainer.order, trainer.packer, trainer.validation = order, packer, validation
    trainer.effort, trainer.say, trainer.on_saved = effort, say, on_saved
    if effort.most_tokens is not None:
        packer.most_tokens = effort.most_tokens
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    return trainer


def fit(trainer: BakeOffTrainer, checkpoint: Path | None, finished: bool) -> None:
    """Trains from the start or from a checkpoint; afterwards the model is the best one, without
    validation the last one.

    `finished`: killed after the last step, so that only this one is to be loaded.

    Raises:
        DivergedError: before there was a checkpoint to fall back on.
    """
    trainer.effort_began = time.perf_counter() - trainer.effort.seconds
    model: PreTrainedModel = trainer.model  # type: ignore[assignment]
    if checkpoint is not None and (finished or step_of(checkpoint) >= trainer.args.max_steps):
        trainer.state = TrainerState.load_from_json(str(checkpoint / STATE_FILE))
        if not trainer.validation:
            trainer.state.best_model_checkpoint = str(checkpoint)
        trainer._load_best_model()
        return
    with loss_over_packs(model, trainer.packer.trees):
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except DivergedError as error:
            _fall_back(trainer, error)
    trainer.effort.seconds = time.perf_counter() - trainer.effort_began


def _fall_back(trainer: BakeOffTrainer, error: DivergedError) -> None:
    best = trainer.state.best_model_checkpoint
    if best is None or not Path(best).is_dir():
        raise error
    trainer.say(
        f"{error}: the training stopped, and the best checkpoint (step "
        f"{trainer.state.best_global_step}) is kept; a lower train.learning_rate may go further."
    )
    trainer._load_best_model()


class _Encodings(torch.utils.data.Dataset[Encoded]):
    def __init__(self, examples: Sequence[Encoded]) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Encoded:
        return self.examples[index]
