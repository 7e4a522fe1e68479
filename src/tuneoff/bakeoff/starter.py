"""`tuneoff init DATA`: reads a file of examples and writes a starter bake-off file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from tuneoff.config.base import Columns
from tuneoff.config.load import parse
from tuneoff.errors import ConfigError
from tuneoff.storage.files import write_text
from tuneoff.tasks import chat
from tuneoff.tasks.columns import describe_columns, find_columns

STARTER = """\
# Written by `tuneoff init`. Which model should I use for this task?
name: {name}
task:
{task}
contenders:
  # The base as it is, shown five examples: what tuning has to beat.
  - {{name: prompted, id: prompted, base: tiny, shots: 5}}
  # LoRA on all linear layers: the usual first choice.
  - name: lora
    id: local
    base: tiny          # a model of 5 M parameters that ships with tuneoff, to try things out;
                        # for real work: a folder, or a hub id such as Qwen/Qwen3-0.6B
    method: lora
    lora: {{r: 16, alpha: 32, target_modules: all-linear}}
    train: {{epochs: 3, batch_size: 16, learning_rate: 2.0e-3}}
  # All parameters.
  - name: full
    id: local
    base: tiny
    method: full
    train: {{epochs: 3, batch_size: 16, learning_rate: 1.0e-3}}
"""


def write_starter(
    data: Path | str, out: Path | str, test: Path | str | None = None
) -> dict[str, Any]:
    """Write `out`; return what was read: `{"examples", "form", "file", "warnings"}`.

    Args:
        test: examples for the test alone; without them the run carves some out of `data`.

    Raises:
        ConfigError: `out` is there already.
        DataError: the data cannot be read.
    """
    data, out = Path(data), Path(out)
    if out.exists():
        raise ConfigError(f"{out}: the file is there already; give another name with --out.")
    columns = find_columns(data)
    warnings: list[str] = []
    examples = chat.load_checked_examples(data, columns, warnings.append)
    task: dict[str, Any] = {"id": "chat", "train": _get_relative_path(data, out.parent)}
    if test is not None:
        examples += chat.load_checked_examples(Path(test), columns, warnings.append)
        task["test"] = _get_relative_path(Path(test), out.parent)
    if columns is not None:
        task["columns"] = columns.model_dump(mode="json", exclude_none=True)
    longest = max(len(example.completion.encode()) for example in examples)
    # A byte-level tokenizer makes at most one token per byte, mostly one per three. This is only a
    # bound.
    task["max_new_tokens"] = max(16, min(1024, -(-longest // 2) + 16))
    indented = "".join(
        f"  {line}\n" for line in yaml.safe_dump(task, sort_keys=False).splitlines()
    ).rstrip("\n")
    text = STARTER.format(name=_choose_name(data), task=indented)
    parse(text, out)
    write_text(out, text)
    return {
        "examples": len(examples),
        "form": describe_form(columns),
        "file": str(out),
        "warnings": warnings,
    }


def describe_form(columns: Columns | None) -> str:
    """Return in words what a file's rows are."""
    return "chat messages" if columns is None else f"columns: {describe_columns(columns)}"


def _get_relative_path(data: Path, folder: Path) -> str:
    """Return the path of a data file relative to a folder."""
    return os.path.relpath(data.resolve(), folder.resolve())


def _choose_name(data: Path) -> str:
    """Return the file's stem in the characters that a run's name may have."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in data.stem)
    return kept.strip("._-")[:60] or "my-data"
