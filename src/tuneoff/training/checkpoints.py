"""Checkpoints that survive a kill at any moment.

A checkpoint is written to a temporary folder and renamed when it is complete. So a folder named
`checkpoint-STEP` is always complete. The last two and the best are kept. Each holds `effort.json`:
the totals of the training so far, over all its processes, and the token limit of one forward pass,
which running out of memory may have lowered.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from tuneoff.storage.files import remove_folder

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
