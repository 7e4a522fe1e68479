"""Saves weights: the final ones, and those at the end of each epoch.

A folder is written under a temporary name and renamed, so a folder with its final name is complete.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneoff.config.contenders import LocalConfig
from tuneoff.records import TrainingRecord
from tuneoff.storage.run_dir import ContenderDir
from tuneoff.training.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from tuneoff.training.model_card import write_card

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

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

    def epoch(self, step: int) -> None:
        """Save the weights of an epoch with their tokenizer, unless they exist."""
        final, state = self.directory.epoch(step), self._gather_state()
        if self.group.first and not final.is_dir():
            beside = self._weights(final, state)
            self.tokenizer.save_pretrained(beside)
            beside.rename(final)

    def finish(self, record: TrainingRecord) -> None:
        """Save the final model, its card and its record, then delete the checkpoints."""
        directory, state = self.directory, self._gather_state()
        if not self.group.first:
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
