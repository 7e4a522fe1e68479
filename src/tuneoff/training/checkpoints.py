"""Checkpoints that a kill at any moment cannot spoil.

A checkpoint is written in a folder of its own beside the others and renamed when it is
whole, so a folder named `checkpoint-STEP` always is. The last two and the best are kept.
Each holds `effort.json`: what training has taken so far, over all the processes that took
part in it, and how much is computed at once, which running out of memory may have lowered.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from tuneoff.files import remove_folder

EFFORT_FILE, STATE_FILE = "effort.json", "trainer_state.json"
WRITING = ".writing"
LAST_KEPT = 2


@dataclass
class Effort:
    """What training has taken so far. `most_tokens` is how many are computed at once."""

    tokens_computed: int = 0
    tokens_unshared: int = 0
    seconds: float = 0.0
    most_tokens: int | None = None

    @classmethod
    def of(cls, checkpoint: Path | None) -> Effort:
        """The effort up to a checkpoint; nothing when training begins."""
        file = checkpoint / EFFORT_FILE if checkpoint else None
        return cls(**json.loads(file.read_text())) if file and file.is_file() else cls()

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / EFFORT_FILE).write_text(json.dumps(asdict(self)))


def name_of(step: int) -> str:
    """The folder's name, which transformers expects."""
    return f"checkpoint-{step}"


def step_of(checkpoint: Path) -> int:
    """The step at which a checkpoint was written."""
    return int(checkpoint.name.split("-")[1])


def checkpoints(folder: Path) -> list[Path]:
    """All checkpoints, the oldest first."""
    return sorted(folder.glob("checkpoint-*"), key=step_of)


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint, ready to be resumed from. What a kill left half written is
    removed; the path of the best one, which the trainer's state holds, is made to fit where
    the run directory lies now."""
    shutil.rmtree(folder / WRITING, ignore_errors=True)
    found = checkpoints(folder)
    if not found:
        return None
    file = found[-1] / STATE_FILE
    state = json.loads(file.read_bytes())
    best = state.get("best_global_step")
    path = str(folder / name_of(best)) if best else None
    if state.get("best_model_checkpoint") != path:
        state["best_model_checkpoint"] = path
        beside = file.with_suffix(".part")
        beside.write_text(json.dumps(state, indent=2) + "\n")
        beside.replace(file)
    return found[-1]


def publish(folder: Path, step: int, best_step: int | None) -> Path:
    """Moves a finished checkpoint from `WRITING` to its place, and drops what is not kept."""
    final = folder / name_of(step)
    (folder / WRITING / name_of(step)).rename(final)
    shutil.rmtree(folder / WRITING, ignore_errors=True)
    for old in checkpoints(folder)[:-LAST_KEPT]:
        if step_of(old) != best_step:
            remove_folder(old)
    return final
