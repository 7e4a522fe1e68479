"""Writes the model card that lies beside every adapter or model tuned here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from tuneoff.config.contenders import SHIPPED_BASE, LocalConfig
from tuneoff.records import TrainingRecord
from tuneoff.storage.files import write_text


def write_card(
    path: Path,
    settings: LocalConfig,
    resolved: str,
    record: TrainingRecord,
    library: str | None = None,
    about: Sequence[str] = (),
) -> None:
    """Write README.md in the hub's format: a YAML head, then how the model was trained.

    Args:
        resolved: the base as it was loaded (`resolve_base`).
        library: the library that loads it; by default the one that trained it.
        about: lines about the format of the weights.
    """
    head: dict[str, object] = {
        "library_name": library or ("peft" if settings.method == "lora" else "transformers"),
        "pipeline_tag": "text-generation",
        "tags": ["tuneoff", settings.method],
    }
    base = settings.base
    if base != SHIPPED_BASE and is_folder(resolved):
        base = Path(resolved).name  # a folder of this machine says nothing to others
    elif base != SHIPPED_BASE:
        head["base_model"] = base
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
        f"- kept: {_describe_kept_step(record)}",
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


def render_template_notes(notes: Sequence[str]) -> list[str]:
    """Return card lines that say how the chat template was adapted.

    The saved template contains the adaptation itself.
    """
    if not notes:
        return []
    return [f"Its chat template was adapted, or does more than write turns: {'; '.join(notes)}."]


def is_folder(resolved: str) -> bool:
    """Return whether a resolved base is a folder rather than a hub id.

    A resolved folder is absolute: it was looked up from the bake-off file's folder, not from the
    current one.
    """
    return Path(resolved).is_absolute()


def _describe_kept_step(record: TrainingRecord) -> str:
    """Describe the checkpoint that was kept: the last step, or the best with its verdict."""
    if record.best_step is None:
        return f"the last step, {record.steps}"
    words = record.verdict or "no verdict"
    return f"step {record.best_step}, the best by validation loss ({words})"
