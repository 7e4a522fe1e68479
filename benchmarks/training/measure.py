"""Timing one arm: which batches it computes, and how long they take.

An arm's own sampler orders the whole training split, as in a real epoch. Few of its batches
can be timed, and in length-sorted order the first ones are the longest; so the batches are
ranked by their number of tokens, and those at evenly spaced ranks are computed: their mean
stands for the epoch's. The warm-up computes the smallest batch and is not timed. All
repetitions compute the same batches, so that they differ by the machine's noise alone.

Units: wall seconds, examples (the original ones, however they are packed), bytes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers import Trainer, TrainerCallback, set_seed

from tuneoff.training import memory


@dataclass(frozen=True, slots=True)
class Job:
    """One repetition of one arm, carried out by a process of its own.

    `shape` names a model of random weights (`training/shapes.py`); without one, the model is
    `base`. `micro_batch_size` is what the arms that pad compute at once, `most_tokens` what
    tuneoff does (None: as in a run on a CPU).
    """

    arm: str
    data: str
    base: str
    method: str = "lora"
    lora: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int = 32
    warmup_steps: int = 1
    steps: int = 3
    threads: int = 2
    micro_batch_size: int = 32
    most_tokens: int | None = None
    learning_rate: float = 2e-4
    seed: int = 0
    device: str = "cpu"
    precision: str = "float32"
    quantization: str = "none"
    shape: str | None = None
    checkpointing: bool = False

    def arguments(self, folder: str) -> dict[str, Any]:
        """What every arm's trainer is told; the rest is its own default."""
        return {
            "output_dir": folder,
            "use_cpu": self.device == "cpu",
            "bf16": self.precision == "bf16",
            "activation_checkpointing": self.checkpointing,
            "learning_rate": self.learning_rate,
            "lr_scheduler_type": "linear",
            "warmup_steps": 0,
            "max_steps": self.warmup_steps + self.steps,
            "logging_strategy": "no",
            "save_strategy": "no",
            "eval_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            "dataloader_pin_memory": False,
            "seed": self.seed,
        }


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one job found. All counts are over the timed steps."""

    examples: int
    seconds: float
    cpu_seconds: float
    tokens_in_data: int
    tokens_computed: int
    peak_memory_bytes: int
    trainable_parameters: int

    @property
    def examples_per_second(self) -> float:
        return self.examples / self.seconds


def chosen_batches(
    order: Sequence[int], rows_per_step: int, tokens: Sequence[int], job: Job
) -> list[list[int]]:
    """The warm-up batches, then the timed ones, each a list of rows.

    Args:
        order: the rows of an epoch as the arm's sampler gives them.
        tokens: of each row.
    """
    whole = len(order) - len(order) % rows_per_step
    batches = [list(order[at : at + rows_per_step]) for at in range(0, whole, rows_per_step)]
    ranked = sorted(batches, key=lambda batch: sum(tokens[row] for row in batch))
    if len(ranked) < job.steps:
        raise SystemExit(f"{len(ranked)} batches are too few for {job.steps} steps; lower --steps")
    warmup = [ranked[0]] * job.warmup_steps
    timed = [ranked[int((k + 0.5) * len(ranked) / job.steps)] for k in range(job.steps)]
    return warmup + timed


class _Fixed(Sampler[int]):
    """Gives the chosen rows in the chosen order."""

    def __init__(self, batches: Sequence[Sequence[int]]) -> None:
        self.rows = [row for batch in batches for row in batch]

    def __iter__(self) -> Iterator[int]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


class Stopwatch(TrainerCallback):
    """Seconds from the end of the warm-up to the end of the last step: of the wall's clock,
    and of all the process's threads (which says whether others took the processor away)."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.began = self.ended = (0.0, 0.0)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        memory.reset_peak_memory()
        self._look(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._look(state.global_step)

    def _look(self, step: int) -> None:
        if self.job.device == "cuda":
            torch.cuda.synchronize()
        now = (time.perf_counter(), time.process_time())
        if step == self.job.warmup_steps:
            self.began = now
        self.ended = now

    @property
    def seconds(self) -> float:
        return self.ended[0] - self.began[0]

    @property
    def cpu_seconds(self) -> float:
        return self.ended[1] - self.began[1]


def fix_batches(
    trainer: Trainer, rows_per_step: int, tokens: Sequence[int], job: Job
) -> list[list[int]]:
    """Lets a trainer compute chosen batches of its own order; returns the timed ones."""
    set_seed(trainer.args.seed)
    sampler: Any = trainer._get_train_sampler()
    batches = chosen_batches(list(sampler), rows_per_step, tokens, job)
    trainer._get_train_sampler = lambda *_: _Fixed(batches)  # type: ignore[method-assign]
    return batches[job.warmup_steps :]


def trainable(model: Any) -> int:
    """How many parameters are trained."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
