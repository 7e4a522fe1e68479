"""The bake-off file of a migration: the model that is being left, and what may follow it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tuneoff import machine
from tuneoff.tasks import chat

# What is tuned instead, unless others are named.
USUAL_BASES = ("Qwen/Qwen3-8B",)
HOSTED = "hosted"


def render_bakeoff(model: str, name: str, task: dict[str, Any], bases: Sequence[str]) -> str:
    contenders: list[dict[str, Any]] = [
        {"name": HOSTED, "id": "recorded", "model": model, "predictions": "answers.jsonl",
         "source": f"captured {machine.today()} by tuneoff migrate"},
    ]  # fmt: skip
    for base in bases:
        own = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in base)
        contenders.append(
            {
                "name": own.strip("._-")[-60:].lower() + "-lora",
                "id": "local",
                "base": base if not Path(base).exists() else str(Path(base).resolve()),
                "lora": {"r": 16, "alpha": 32, "target_modules": "all-linear"},
                "train": {"until": "converged", "epochs": 5},
            }
        )
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in name)
    value = {
        "name": kept.strip("._-")[:60] or "migration",
        "task": task,
        "migrating_from": HOSTED,
        "contenders": contenders,
    }
    head = (
        f"# Written by `tuneoff migrate`. Do open models match {model}?\n"
        "# Its answers are in answers.jsonl for good, whether it is still there or not.\n"
    )
    return head + yaml.safe_dump(value, sort_keys=False, allow_unicode=True)


def find_longest(path: Path) -> int:
    """Room for the longest answer: no usual tokenizer makes more than a token of two bytes."""
    longest = max(len(each.completion.encode()) for each in chat.read_examples(path))
    return max(16, min(4096, longest // 2 + 16))
