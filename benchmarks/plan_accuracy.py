"""How far a plan's seconds are from those that a training then takes, on this machine.

Data set: both sample tasks and, where it is (TUNEOFF_DATA), ViGGO; the shipped base.
Metric: planned / measured seconds of a training step (validation and checkpoint included),
median of `--repeats`; promised: within 25%.
Pattern: measured is a real training of `--steps` steps of 32 examples. Planned is what 20 s of
training say (`tuneoff.bakeoff.plan.speed_probe`) that see only the shorter half of the examples, in
batches of 4 and 16; measurement and training take turns, so that other work hits both.

    python benchmarks/plan_accuracy.py              ten minutes on two free cores

One JSON document to stdout, progress to stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tuneoff.bakeoff.plan import speed_probe
from tuneoff.config.contenders import LocalConfig
from tuneoff.config.schema import TaskConfig
from tuneoff.models.loading import SHIPPED_BASE_DIR
from tuneoff.records import Example, Split
from tuneoff.storage.run_dir import ContenderDir
from tuneoff.tasks.base import DataPaths, load_task
from tuneoff.training.fine_tune import tune

SAMPLES = {"functional": "functional_representation", "sql": "text_to_sql"}
WITHIN = 0.25


def data(name: str) -> tuple[Any, Mapping[Split, list[Example]]]:
    source = "sample" if name in SAMPLES else "viggo"
    task = load_task(SAMPLES.get(name, "functional_representation"))
    settings = TaskConfig(id=SAMPLES.get(name, "functional_representation"), source=source)
    folder = os.environ.get("TUNEOFF_DATA")
    found = task.load(settings, DataPaths(Path(), Path(folder) if folder else None))
    return task.template(settings), found


def compare(name: str, method: str, steps: int) -> dict[str, float]:
    template, splits = data(name)
    train, validation = splits["train"][:512], splits["validation"][:64]
    rules = {"max_steps": steps, "batch_size": 32, "evaluate_every": steps, "learning_rate": 1e-4}
    settings = LocalConfig.model_validate(
        {"name": "x", "id": "local", "method": method, "train": rules}
    )
    shorter = sorted(train, key=lambda e: len(str(e.inputs)) + len(e.completion))
    speed = speed_probe.measure_speed(
        settings, str(SHIPPED_BASE_DIR), template, shorter[: len(shorter) // 2]
    )
    with TemporaryDirectory() as folder:
        record = tune(
            settings, str(SHIPPED_BASE_DIR), train, validation, template, ContenderDir(Path(folder))
        )
    # What is computed of a batch is known before: here the rates are what is tested.
    mean = record.tokens_templated / (record.epochs * record.examples)
    planned = (
        speed.per_step * record.steps
        + speed.per_token * (record.tokens_computed or 0)
        + speed.per_validated_token * len(validation) * mean * speed.computed
    )
    return {"planned": planned / steps, "measured": (record.seconds or 0) / steps}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=speed_probe.TARGET_SECONDS)
    asked = parser.parse_args()
    speed_probe.TARGET_SECONDS = asked.seconds
    names = [*SAMPLES, *(["viggo"] if os.environ.get("TUNEOFF_DATA") else [])]
    found = {}
    for name in names:
        for method in ("lora", "full"):
            runs = [compare(name, method, asked.steps) for _ in range(asked.repeats)]
            ratio = statistics.median(run["planned"] / run["measured"] for run in runs)
            found[f"{name}, {method}"] = {
                "planned_seconds_per_step": [round(run["planned"], 3) for run in runs],
                "measured_seconds_per_step": [round(run["measured"], 3) for run in runs],
                "ratio": round(ratio, 3),
                "within": abs(ratio - 1) <= WITHIN,
            }
            print(f"{name}, {method}: {found[f'{name}, {method}']}", file=sys.stderr)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
