"""Checkpoints that survive a kill at any moment.

A checkpoint is written to a temporary folder and renamed when it is complete. So a folder named
`checkpoint-STEP` is always complete. The last two and the best are kept. Each holds `effort.json`:
the totals of the training so far, over all its processes, and the token limit of one forward pass,
which running out of memory may have lowered.

`ModelSaver` saves the final weights and those at the end of each epoch in the same way: a folder
with its final name is complete.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneoff.config.contenders import LocalConfig
from tuneoff.records import TrainingRecord
from tuneoff.storage.files import remove_folder
from tuneoff.storage.run_dir import ContenderDir
from tuneoff.training.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from tuneoff.training.model_card import write_card

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


TOTALS_FILE, STATE_FILE = "effort.json", "trainer_state.json"
PARTIAL_DIR = ".writing"
KEEP_LAST = 2


@dataclass
class TrainingTotals:
    """The totals of a training so far, as stored in `effort.json`."""

    tokens_computed: int = 0
    """Tokens that went through forward passes; a shared prefix counts once."""
    tokens_unshared: int = 0
    """Tokens of the same examples without prefix sharing."""
    seconds: float = 0.0
    """Time spent training, in seconds."""
    most_tokens: int | None = None
    """Maximum tokens of one forward pass; None until memory ran out."""

    @classmethod
    def of(cls, checkpoint: Path | None) -> TrainingTotals:
        """Return the totals stored in a checkpoint; zeros at the start of a training."""
        file = checkpoint / TOTALS_FILE if checkpoint else None
        return cls(**json.loads(file.read_text())) if file and file.is_file() else cls()

    def write(self, folder: Path) -> None:
        """Write the totals into a checkpoint's folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / TOTALS_FILE).write_text(json.dumps(asdict(self)))


def format_checkpoint_name(step: int) -> str:
    """Return the folder name that transformers expects for a checkpoint."""
    return f"checkpoint-{step}"


def parse_checkpoint_step(checkpoint: Path) -> int:
    """Return the step at which a checkpoint was written."""
    return int(checkpoint.name.split("-")[1])


def list_checkpoints(folder: Path) -> list[Path]:
    """Return all checkpoints, oldest first."""
    return sorted(folder.glob("checkpoint-*"), key=parse_checkpoint_step)


def recover_last_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint, ready to resume from; None if there is none.

    Removes what a kill left half written. Corrects the best checkpoint's path in the trainer's
    state, for the run directory may have been moved.
    """
    shutil.rmtree(folder / PARTIAL_DIR, ignore_errors=True)
    existing = list_checkpoints(folder)
    if not existing:
        return None
    file = existing[-1] / STATE_FILE
    state = json.loads(file.read_bytes())
    best = state.get("best_global_step")
    path = str(folder / format_checkpoint_name(best)) if best else None
    if state.get("best_model_checkpoint") != path:
        state["best_model_checkpoint"] = path
        beside = file.with_suffix(".part")
        beside.write_text(json.dumps(state, indent=2) + "\n")
        beside.replace(file)
    return existing[-1]


def publish_checkpoint(folder: Path, step: int, best_step: int | None) -> Path:
    """Move a complete checkpoint to its final folder, delete those not kept, and return it."""
    final = folder / format_checkpoint_name(step)
    (folder / PARTIAL_DIR / format_checkpoint_name(step)).rename(final)
    shutil.rmtree(folder / PARTIAL_DIR, ignore_errors=True)
    for old in list_checkpoints(folder)[:-KEEP_LAST]:
        if parse_checkpoint_step(old) != best_step:
            remove_folder(old)
    return final


# Called with the step that ended an epoch, when its weights are in `ContenderDir.epoch(step)`.
OnEpoch = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class ModelSaver:
    """Saves one training's model below its folder.

    All processes of a group must call it, for a sharded model must be gathered; the first one
    writes.
    """

    settings: LocalConfig
    base: str
    """The resolved base."""
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    directory: ContenderDir
    group: ProcessGroup = SINGLE_PROCESS
    about: Sequence[str] = ()
    """Lines for the model card."""

    def save_epoch(self, step: int) -> None:
        """Save the weights of an epoch with their tokenizer, unless they exist."""
        final, state = self.directory.epoch(step), self._gather_state()
        if self.group.is_first and not final.is_dir():
            beside = self._weights(final, state)
            self.tokenizer.save_pretrained(beside)
            beside.rename(final)

    def save_final(self, record: TrainingRecord) -> None:
        """Save the final model, its card and its record, then delete the checkpoints."""
        directory, state = self.directory, self._gather_state()
        if not self.group.is_first:
            return
        final = directory.model if self.settings.method == "full" else directory.adapter
        beside = self._weights(final, state)
        self.tokenizer.save_pretrained(beside)
        write_card(beside / "README.md", self.settings, self.base, record, about=self.about)
        directory.write_training(record)
        beside.rename(final)
        shutil.rmtree(directory.checkpoints, ignore_errors=True)

    def _gather_state(self) -> Any:
        """Return the full state of a sharded model; None if every process holds it whole."""
        if self.group.size == 1:
            return None
        from tuneoff.training.distributed import fsdp

        if not fsdp.is_sharded(self.model):
            return None
        return fsdp.gather_state(fsdp.get_saved_state(self.model), self.group)

    def _weights(self, final: Path, state: Any) -> Path:
        """Write the weights into a temporary folder beside the final one and return it."""
        beside = final.with_name(f".{final.name}.part")
        shutil.rmtree(beside, ignore_errors=True)
        # An adapter's file holds what was trained; PEFT would add a copy of an embedding under it.
        lora: dict[str, Any] = {}
        if self.settings.method == "lora":
            lora["save_embedding_layers"] = False
        self.model.save_pretrained(beside, safe_serialization=True, state_dict=state, **lora)
        return beside
