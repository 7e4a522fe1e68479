"""The model card that lies beside every adapter or model tuned here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from tuneoff.config import SHIPPED_BASE, LocalSettings
from tuneoff.records import TrainingRecord
from tuneoff.rundir import write_text


def write_card(
    path: Path,
    settings: LocalSettings,
    record: TrainingRecord,
    library: str | None = None,
    about: Sequence[str] = (),
) -> None:
    """README.md in the hub's format: a YAML head, then how it was trained.

    Args:
        library: what loads it; left out, what loads it as it was trained.
        about: lines about the form it is in.
    """
    head: dict[str, object] = {
        "library_name": library or ("peft" if settings.method == "lora" else "transformers"),
        "pipeline_tag": "text-generation",
        "tags": ["tuneoff", settings.method],
    }
    if settings.base != SHIPPED_BASE and not is_folder(settings.base):
        head["base_model"] = settings.base
    # A folder of this machine says nothing to others.
    base = Path(settings.base).name if is_folder(settings.base) else settings.base
    how = {**settings.model_dump(mode="json", exclude_defaults=True), "base": base}
    lines = [
        "---",
        yaml.safe_dump(head, sort_keys=False).strip(),
        "---",
        "",
        f"# {settings.name}",
        "",
        f"`{base}` tuned with tuneoff (method: {settings.method}).",
        "",
        *(text for line in about for text in (line, "")),
        f"- examples: {record.examples}, epochs: {record.epochs:g}, steps: {record.steps}",
        f"- trained parameters: {record.trainable_parameters}",
        f"- kept: {_kept(record)}",
        f"- seconds: {record.seconds}, peak memory: {record.peak_memory_bytes} bytes",
        "",
        "## Settings",
        "",
        "```yaml",
        yaml.safe_dump(how, sort_keys=False).strip(),
        "```",
        "",
    ]
    write_text(path, "\n".join(lines))


def is_folder(base: str) -> bool:
    """Whether a base is a folder, and not a hub id."""
    return base.startswith((".", "/", "~")) or Path(base).is_dir()


def _kept(record: TrainingRecord) -> str:
    if record.best_step is None:
        return f"the last step, {record.steps}"
    words = record.verdict or "no verdict"
    return f"step {record.best_step}, the best by validation loss ({words})"
