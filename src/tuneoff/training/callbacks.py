"""Callbacks of the trainer: `loss.jsonl`, progress, early stopping, epoch ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

from tuneoff.records import LossRow
from tuneoff.training.checkpoints import TrainingTotals
from tuneoff.training.convergence import is_out_of_patience
from tuneoff.training.memory import measure_peak_bytes

# Called with (step, all steps, a few words: loss, speed, memory).
OnStep = Callable[[int, int, str], None]
MEBIBYTE = 1024**2
MIN_SHOWN_SHARING = 1.1


class ProgressCallback(TrainerCallback):
    """Appends the trainer's logs to `loss.jsonl` and reports steps.

    It stops a training that is `until: converged` when its rows say so (patience None: never).
    """

    def __init__(
        self,
        rows: list[LossRow],
        append: Callable[[LossRow], None],
        examples: int,
        batch_size: int,
        effort: TrainingTotals,
        on_step: OnStep | None = None,
        patience: int | None = None,
        validated: bool = True,
    ) -> None:
        self.rows, self.append, self.examples, self.batch_size = rows, append, examples, batch_size
        self.totals, self.on_step, self.patience = effort, on_step, patience
        self.validated = validated
        self.train_loss: float | None = rows[-1].train if rows else None
        self.began: tuple[float, int] | None = None

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if logs and "loss" in logs:
            self.train_loss = float(logs["loss"])
            if not self.validated:
                self._add(state, None)

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any
    ) -> None:
        self._add(state, metrics["eval_loss"])
        if self.patience is not None and is_out_of_patience(self.rows, self.patience):
            control.should_training_stop = True

    def _add(self, state: Any, validation: float | None) -> None:
        """Append a loss row at the current step."""
        seen = round((state.epoch or 0.0) * self.examples)
        row = LossRow(state.global_step, seen, self.train_loss, validation)
        self.append(row)
        self.rows.append(row)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Report the step with its loss, speed and memory."""
        if self.began is None:
            self.began = (time.perf_counter(), state.global_step)
        if self.on_step is not None:
            self.on_step(state.global_step, state.max_steps, self._format_note(state))

    def _format_note(self, state: Any) -> str:
        """Return loss, speed, remaining time, prefix sharing and memory in a few words."""
        words = [] if self.train_loss is None else [f"loss {self.train_loss:.3f}"]
        began, first = self.began or (0.0, 0)
        seconds = time.perf_counter() - began
        if seconds > 1 and state.global_step > first:
            steps = (state.global_step - first) / seconds
            words.append(f"{steps * self.batch_size:.3g} examples/s")
            words.append(f"{format_duration((state.max_steps - state.global_step) / steps)} left")
        shared = self.totals.tokens_unshared / max(1, self.totals.tokens_computed)
        if shared > MIN_SHOWN_SHARING:
            words.append(f"{shared:.1f} tokens for each computed")
        words.append(f"{measure_peak_bytes() / MEBIBYTE:,.0f} MiB")
        return ", ".join(words)


class EpochEndCallback(TrainerCallback):
    """Validates and saves at the end of each epoch.

    It skips regular validations within a quarter of an epoch of that.
    """

    def __init__(self, steps_per_epoch: int, validated: bool) -> None:
        self.steps_per_epoch, self.validated = steps_per_epoch, validated

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Request validation and checkpoint at an epoch's end, and cancel those close to it."""
        step, past = state.global_step, state.global_step % self.steps_per_epoch
        beside = min(past, self.steps_per_epoch - past) < self.steps_per_epoch / 4
        if past == 0:
            control.should_log = control.should_save = True
            control.should_evaluate = self.validated
        elif beside and step < state.max_steps:
            control.should_log = control.should_save = control.should_evaluate = False


def format_duration(seconds: float) -> str:
    """Return a rough duration in words: `40 s`, `12 min`, `3.2 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


class CheckpointCallback(TrainerCallback):
    """Reports every complete checkpoint."""

    def __init__(self, told: Callable[[], None]) -> None:
        self._told = told

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._told()
