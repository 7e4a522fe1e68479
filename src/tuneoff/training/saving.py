"""Weights on disk: those that a training ends with, and those it had when its epochs ended.

They are written beside their place and renamed, so that a folder of that name is complete.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tuneoff.config import LocalSettings
from tuneoff.records import TrainingRecord
from tuneoff.rundir import ContenderDir
from tuneoff.training.card import write_card

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Called with the step that ended an epoch, when its weights are in `ContenderDir.epoch(step)`.
OnEpoch = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Saver:
    """Saves one training's model below its folder."""

    settings: LocalSettings
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    directory: ContenderDir

    def epoch(self, step: int) -> None:
        """The weights as they are after a step, with their tokenizer; what is there already
        stays."""
        final = self.directory.epoch(step)
        if not final.is_dir():
            beside = self._weights(final)
            self.tokenizer.save_pretrained(beside)
            beside.rename(final)

    def finish(self, record: TrainingRecord) -> None:
        """Everything that the model is used with; checkpoints to go on from are dropped."""
        directory = self.directory
        final = directory.model if self.settings.method == "full" else directory.adapter
        beside = self._weights(final)
        self.tokenizer.save_pretrained(beside)
        write_card(beside / "README.md", self.settings, record)
        directory.write_training(record)
        beside.rename(final)
        shutil.rmtree(directory.checkpoints, ignore_errors=True)

    def _weights(self, final: Path) -> Path:
        beside = final.with_name(f".{final.name}.part")
        shutil.rmtree(beside, ignore_errors=True)
        self.model.save_pretrained(beside, safe_serialization=True)
        return beside
