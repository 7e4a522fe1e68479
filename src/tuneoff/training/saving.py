"""Weights on disk: those that a training ends with, and those it had when its epochs ended.

They are written beside their place and renamed, so that a folder of that name is complete.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneoff.contender_settings import LocalSettings
from tuneoff.records import TrainingRecord
from tuneoff.rundir import ContenderDir
from tuneoff.training.card import write_card
from tuneoff.training.group import ALONE, Group

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Called with the step that ended an epoch, when its weights are in `ContenderDir.epoch(step)`.
OnEpoch = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Saver:
    """Saves one training's model below its folder. Of a group all call it, for a divided model
    must be gathered, and the first one writes. `base` is the resolved one, `about` lines for its
    card."""

    settings: LocalSettings
    base: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    directory: ContenderDir
    group: Group = ALONE
    about: Sequence[str] = ()

    def epoch(self, step: int) -> None:
        """The weights as they are after a step, with their tokenizer; what is there already
        stays."""
        final, state = self.directory.epoch(step), self._gathered()
        if self.group.first and not final.is_dir():
            beside = self._weights(final, state)
            self.tokenizer.save_pretrained(beside)
            beside.rename(final)

    def finish(self, record: TrainingRecord) -> None:
        """Everything that the model is used with; checkpoints to go on from are dropped."""
        directory, state = self.directory, self._gathered()
        if not self.group.first:
            return
        final = directory.model if self.settings.method == "full" else directory.adapter
        beside = self._weights(final, state)
        self.tokenizer.save_pretrained(beside)
        write_card(beside / "README.md", self.settings, self.base, record, about=self.about)
        directory.write_training(record)
        beside.rename(final)
        shutil.rmtree(directory.checkpoints, ignore_errors=True)

    def _gathered(self) -> Any:
        """What a divided model is as a whole; None for one that every process has as a whole."""
        if self.group.size == 1:
            return None
        from tuneoff.training import sharding

        if not sharding.is_sharded(self.model):
            return None
        return sharding.gathered(sharding.kept(self.model), self.group)

    def _weights(self, final: Path, state: Any) -> Path:
        beside = final.with_name(f".{final.name}.part")
        shutil.rmtree(beside, ignore_errors=True)
        # An adapter's file holds what was trained; PEFT would add a copy of an embedding under it.
        lora: dict[str, Any] = {}
        if self.settings.method == "lora":
            lora["save_embedding_layers"] = False
        self.model.save_pretrained(beside, safe_serialization=True, state_dict=state, **lora)
        return beside
