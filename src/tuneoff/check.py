"""`tuneoff check`: checks a bake-off file or a data file, without spending or writing anything."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from tuneoff import machine, prepare, references
from tuneoff.bakeoff_file import load
from tuneoff.config import BakeOff
from tuneoff.contender_settings import Hardware, LocalSettings, PromptedSettings, RecordedSettings
from tuneoff.contenders import with_vllm
from tuneoff.costs.pricebook import PriceBook, no_hour
from tuneoff.init import form_of
from tuneoff.records import SPLITS, Split
from tuneoff.spending import (
    asked_models,
    explain_doubts,
    judge_price,
    paid,
    refuse_ended,
    refused_today,
)
from tuneoff.tasks import chat, splits
from tuneoff.tasks.columns import find_columns
from tuneoff.tasks.rows import NOT_READ, SUFFIXES

# A data set that is neither a local file nor generated would have to be downloaded.
NOT_LOCAL = "the data set was not looked at: it would come from the hub (set data_dir to check it)"


def check_file(file: Path | str) -> dict[str, Any]:
    """Return what a bake-off file or a data file holds, with warnings: `{"summary", "warnings",
    ...}`.

    Raises:
        ConfigError, DataError: the file cannot be used; one sentence says why.
    """
    file = Path(file)
    if file.suffix.lower() in (*SUFFIXES, *NOT_READ):
        return _check_data(file)
    return _check_bakeoff(load(file))


def _check_bakeoff(bakeoff: BakeOff) -> dict[str, Any]:
    """Return what a bake-off file holds, with warnings."""
    parts = prepare.parts(bakeoff)
    warnings: list[str] = []
    sizes: dict[Split, int] = {}
    duplicates: dict[str, Any] = {}
    shown: str | None = None
    if prepare.is_local(parts):
        examples, warnings = prepare.data(parts)
        sizes = {split: len(examples[split]) for split in SPLITS}
        left_out, lines = references.check_references(parts, examples["test"])
        warnings += lines
        if left_out:
            warnings.append(references.explain_left_out(parts, left_out, len(examples["test"])))
        usable = [example for example in examples["test"] if example.id not in left_out]
        if len(bakeoff.contenders) > 1 and usable:
            shown = prepare.what_can_be_shown(parts, usable)
        duplicates = {
            pair: {"exact": exact, "near": near}
            for pair, (exact, near) in splits.overlaps(examples).items()
        }
    else:
        warnings.append(NOT_LOCAL)
    prices, day = prepare.price_book(bakeoff), bakeoff.as_of or machine.today()
    for contender in bakeoff.contenders:
        if isinstance(contender, LocalSettings | PromptedSettings):
            with_vllm.ready(contender)
        refuse_ended(contender, prices, day)
    warnings += _prices(bakeoff, prices, day)
    today = machine.today()
    for contender in bakeoff.contenders:
        warnings += explain_doubts(contender, prices, today, parts.max_new_tokens)
    if bakeoff.as_of and bakeoff.as_of > machine.today():
        warnings.append(f"as_of {bakeoff.as_of} lies in the future.")
    counted = ", ".join(f"{count} {split}" for split, count in sizes.items())
    contenders = ", ".join(contender.name for contender in bakeoff.contenders)
    return {
        "summary": f"fine. Task {bakeoff.task.id}"
        + (f" ({counted})" if counted else "")
        + f"; contenders: {contenders}."
        + (f" {shown[0].upper()}{shown[1:]}" if shown else ""),
        "task": bakeoff.task.id,
        "contenders": [contender.name for contender in bakeoff.contenders],
        "split_sizes": sizes,
        "duplicates": duplicates,
        "warnings": warnings,
    }


def _prices(bakeoff: BakeOff, prices: PriceBook, day: datetime.date) -> list[str]:
    """Return a sentence for each missing price, for which a run would refuse or not count
    something.

    They are warnings only: the book does not know everything, and it may change until the run.
    """
    sentences = [refused_today(contender, prices) for contender in bakeoff.contenders]
    sentences += [judge_price(judge, prices)[1] for judge in asked_models(bakeoff)]
    for contender in bakeoff.contenders:
        hardware = _priced_by_hours(contender)
        if hardware is not None and hardware.accelerator is not None:
            sentences.append(no_hour(contender.name, hardware, prices, day))
    return [sentence for sentence in sentences if sentence is not None]


def _priced_by_hours(contender: Any) -> Hardware | None:
    """Return the hardware whose hours make a contender's costs; None where hours do not."""
    if isinstance(contender, RecordedSettings):
        reported = contender.training
        return contender.hardware if reported is not None and reported.hours else None
    own = isinstance(contender, LocalSettings | PromptedSettings) and not paid(contender)
    return contender.hardware if own else None


def _check_data(file: Path) -> dict[str, Any]:
    """Return what a data file holds, with warnings."""
    form = form_of(find_columns(file))
    warnings: list[str] = []
    examples = chat.checked_examples(file, None, warnings.append)
    exact, alike = splits.repeated_inputs(examples)
    return {
        "summary": f"fine. {len(examples)} examples ({form}).",
        "examples": len(examples),
        "form": form,
        "duplicates": {"exact": exact, "near": alike},
        "warnings": warnings,
    }
