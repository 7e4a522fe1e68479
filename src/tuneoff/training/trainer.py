"""The training loop: a `transformers.Trainer` that counts tokens and writes `loss.jsonl`.

What the subclass adds: the validation loss is the mean over supervised tokens (not over
batches), every evaluation is a row of `loss.jsonl`, and the tokens that were computed,
padding included, are counted.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

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

from tuneoff.records import LossRow
from tuneoff.training.encoding import IGNORED, Encoded

EFFORT_FILE, STATE_FILE = "effort.json", "trainer_state.json"
OnStep = Callable[[int, int, float | None], None]


def collate(batch: Sequence[Mapping[str, Sequence[int]]], pad_id: int) -> dict[str, torch.Tensor]:
    """Right-padded tensors of shape (examples, longest)."""
    longest = max(len(row["input_ids"]) for row in batch)

    def padded(values: Sequence[int], fill: int) -> list[int]:
        return [*values, *[fill] * (longest - len(values))]

    return {
        "input_ids": torch.tensor([padded(row["input_ids"], pad_id) for row in batch]),
        "attention_mask": torch.tensor([padded([1] * len(row["input_ids"]), 0) for row in batch]),
        "labels": torch.tensor([padded(row["labels"], IGNORED) for row in batch]),
    }


@dataclass
class Effort:
    """What training has taken so far, over all the processes that took part in it."""

    tokens_computed: int = 0
    seconds: float = 0.0

    @classmethod
    def of(cls, checkpoint: Path | None) -> Effort:
        """The effort up to a checkpoint; nothing when training begins."""
        file = checkpoint / EFFORT_FILE if checkpoint else None
        return cls(**json.loads(file.read_text())) if file and file.is_file() else cls()


class BakeOffTrainer(Trainer):
    """Counts what it computes; its validation loss is exact."""

    effort: Effort
    effort_began: float

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        # Before everything else of the checkpoint, so that a complete one always has it.
        self.effort.seconds = time.perf_counter() - self.effort_began
        folder = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / EFFORT_FILE).write_text(json.dumps(asdict(self.effort)))
        super()._save_checkpoint(model, trial)

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        self.effort.tokens_computed += inputs["input_ids"].numel()
        return super().training_step(model, inputs, *args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Validation loss in nats per supervised token, logged as `eval_loss`."""
        loss = self._validation_loss()
        metrics = {"eval_loss": loss}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    @torch.no_grad()
    def _validation_loss(self) -> float:
        model: Any = self.model
        model.eval()
        total, count = 0.0, 0
        for batch in self.get_eval_dataloader():
            inputs = self._prepare_inputs(batch)
            with self.compute_loss_context_manager():
                logits = model(
                    input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
                ).logits
            targets = inputs["labels"][:, 1:]
            supervised = targets != IGNORED
            total += torch.nn.functional.cross_entropy(
                logits[:, :-1][supervised].float(), targets[supervised], reduction="sum"
            ).item()
            count += int(supervised.sum())
        model.train()
        return total / max(count, 1)


class LossFile(TrainerCallback):
    """Turns the trainer's logs into rows of `loss.jsonl` and calls `on_step`."""

    def __init__(
        self,
        append: Callable[[LossRow], None],
        examples: int,
        on_step: OnStep | None,
    ) -> None:
        self.append = append
        self.examples = examples
        self.on_step = on_step
        self.train_loss: float | None = None

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if logs and "loss" in logs:
            self.train_loss = float(logs["loss"])

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any
    ) -> None:
        seen = round((state.epoch or 0.0) * self.examples)
        self.append(LossRow(state.global_step, seen, self.train_loss, metrics["eval_loss"]))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.on_step is not None:
            self.on_step(state.global_step, state.max_steps, self.train_loss)


def build(
    model: PreTrainedModel,
    arguments: TrainingArguments,
    train: Sequence[Encoded],
    validation: Sequence[Encoded],
    pad_id: int,
    loss_file: LossFile,
    effort: Effort,
) -> BakeOffTrainer:
    """A trainer whose only output is `loss_file`; it goes on counting in `effort`."""
    trainer = BakeOffTrainer(
        model=model,
        args=arguments,
        train_dataset=_Encodings(train),
        eval_dataset=_Encodings(validation),
        data_collator=lambda batch: collate(batch, pad_id),
        callbacks=[loss_file],
    )
    trainer.effort = effort
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    return trainer


def fit(trainer: BakeOffTrainer, checkpoint: Path | None) -> None:
    """Trains from the start or from a checkpoint; afterwards the model is the best one."""
    trainer.effort_began = time.perf_counter() - trainer.effort.seconds
    if checkpoint is not None and step_of(checkpoint) >= trainer.args.max_steps:
        # Killed after the last step: nothing is left to train, only the best is to be loaded.
        trainer.state = TrainerState.load_from_json(str(checkpoint / STATE_FILE))
        trainer._load_best_model()
    else:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        trainer.effort.seconds = time.perf_counter() - trainer.effort_began


def step_of(checkpoint: Path) -> int:
    """The step at which a checkpoint was written."""
    return int(checkpoint.name.split("-")[1])


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint. `trainer_state.json` is written last of all, so where
    it is missing or torn a kill came in between."""
    complete = [path for path in folder.glob("checkpoint-*") if _is_complete(path)]
    return max(complete, key=step_of, default=None)


def _is_complete(checkpoint: Path) -> bool:
    """Whether a checkpoint can be resumed from. The path of the best one, which it holds, is
    made to fit where the run directory lies now."""
    file = checkpoint / STATE_FILE
    try:
        state = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return False
    if state.get("best_global_step"):
        best = checkpoint.with_name(f"checkpoint-{state['best_global_step']}")
        if state["best_model_checkpoint"] != str(best):
            state["best_model_checkpoint"] = str(best)
            file.write_text(json.dumps(state, indent=2) + "\n")
    return True


class _Encodings(torch.utils.data.Dataset[Mapping[str, Sequence[int]]]):
    """Rows as mappings, which `group_by_length` needs to find their lengths."""

    def __init__(self, examples: Sequence[Encoded]) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Mapping[str, Sequence[int]]:
        example = self.examples[index]
        return {"input_ids": example.input_ids, "labels": example.labels}
