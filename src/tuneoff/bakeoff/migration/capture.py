"""Captures a tuned model's answers to a test set while it exists, and keeps them.

A run of its own answers (`capture.yaml`, `capture/`). It may be interrupted and resumes; its ledger
says what the answers cost.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from tuneoff.bakeoff import run
from tuneoff.bakeoff.migration.artifacts import CAPTURE_FILE, Manifest
from tuneoff.bakeoff.migration.exits import CAPTURED_NAME
from tuneoff.bakeoff.migration.listing import ProviderAccount
from tuneoff.config.load import load
from tuneoff.costs.ledger import Ledger
from tuneoff.errors import ConfigError, DataError
from tuneoff.progress import Progress
from tuneoff.records import to_row
from tuneoff.results import Results
from tuneoff.storage.files import write_lines, write_text
from tuneoff.storage.run_dir import RunDir

ANSWERS_FILE, RUN_FOLDER = "answers.jsonl", "capture"


def capture_answers(
    model: str,
    folder: Path,
    source: ProviderAccount,
    task: dict[str, Any],
    budget_usd: float | None,
    yes: bool,
    progress: Progress,
) -> dict[str, Any]:
    """Have a model answer the rest of its test set; return the record of its answers.

    Returns:
        `test` and `answered` (numbers of examples), `metric`, `score`, `sha256` and `limit` of the
            test set, and `metrics` as the user named them.

    Raises:
        ConfigError: another capture was begun in this folder, or the model cannot be asked.
        DataError: the model could not be asked.
        BudgetError: asking it could exceed the budget.
    """
    contender = {"name": CAPTURED_NAME, "id": "prompted", "model": model, "record": True}
    value = {
        "name": "capture",
        "task": task,
        "contenders": [{**contender, **source.written()}],
        "budget_usd": budget_usd,
    }
    file, run_dir, manifest = folder / CAPTURE_FILE, folder / RUN_FOLDER, Manifest(folder)
    if file.exists() and (run_dir / "bakeoff.yaml").exists():
        _refuse_another(file, value)
        before = yaml.safe_load(file.read_text(encoding="utf-8"))
        value = {**before, "task": task}  # the scoring may have changed
    write_text(file, yaml.safe_dump(value, sort_keys=False))
    test = (folder / task["test"]).read_bytes()
    asked = {"sha256": hashlib.sha256(test).hexdigest(), "limit": task.get("limit")}
    asked["metrics"] = task.get("metrics")
    noted = manifest.answers()
    if noted and noted["sha256"] != asked["sha256"]:
        raise ConfigError(
            f"{folder / task['test']}: it was changed since {model} answered it; undo the change, "
            "or give another --out."
        )
    if noted and (folder / ANSWERS_FILE).exists() and noted == {**noted, **asked}:
        return noted
    settings = load(file).model_copy(update={"budget_usd": budget_usd})
    results = run.run(
        settings, run_dir, yes=yes, progress=progress, command=f"tuneoff migrate {model}"
    )
    failed = results.contenders[0].error
    if failed is not None:
        raise DataError(f"{model} could not be asked: {failed}")
    predictions = RunDir(run_dir).contender(CAPTURED_NAME).predictions()
    write_lines(folder / ANSWERS_FILE, map(to_row, predictions.values()))
    facts = {**asked, **_read_facts(results)}
    manifest.record_answers(facts)
    return facts


def _read_facts(results: Results) -> dict[str, Any]:
    """Return what is recorded of a run's answers."""
    score = results.contenders[0].scores[results.primary_metric]
    return {
        "test": results.split_sizes["test"],
        "answered": score.n,
        "metric": results.primary_metric,
        "score": score.value,
    }


def sum_spent(folders: Iterable[Path]) -> Decimal:
    """Return the USD that captures in folders cost, uncertain amounts included."""
    total = Decimal(0)
    for folder in folders:
        spent = Ledger(RunDir(folder / RUN_FOLDER).events).spent()
        total += spent.known + spent.uncertain
    return total


def _refuse_another(file: Path, value: dict[str, Any]) -> None:
    """Raise ConfigError for another model or test set: captured answers are kept, so it needs its
    own folder."""
    before = yaml.safe_load(file.read_text(encoding="utf-8"))
    was, now = before["contenders"][0]["model"], value["contenders"][0]["model"]
    keys = {**before["task"], **value["task"]}
    keys.pop("metrics", None)  # how answers are scored may change
    changed = sorted(k for k in keys if before["task"].get(k) != value["task"].get(k))
    if was != now:
        changed = [f"the model was {was}"]
    if changed:
        raise ConfigError(
            f"{file.parent}: another capture was begun here (changed: {', '.join(changed)}); "
            "undo the change, or give another --out."
        )
