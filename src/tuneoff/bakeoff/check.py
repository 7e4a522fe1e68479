"""`tuneoff check`: checks a bake-off file or a data file, without spending or writing anything."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from tuneoff import environment
from tuneoff.bakeoff import prepare, references
from tuneoff.bakeoff.budget import explain_doubts
from tuneoff.bakeoff.starter import describe_form
from tuneoff.config.contenders import Hardware, LocalConfig, PromptedConfig, RecordedConfig
from tuneoff.config.load import load
from tuneoff.config.schema import BakeOff
from tuneoff.contenders import vllm_inference
from tuneoff.costs.contender_prices import (
    check_not_ended,
    explain_refusal_today,
    find_judge_price,
    is_hosted,
    load_price_book,
)
from tuneoff.costs.price_book import PriceBook, explain_missing_hour_price
from tuneoff.records import SPLITS, Split
from tuneoff.scoring.added_metrics import list_judging_models
from tuneoff.tasks import chat, splits
from tuneoff.tasks.columns import find_columns
from tuneoff.tasks.readers import SUFFIXES, UNSUPPORTED_SUFFIXES

# A data set that is neither a local file nor generated would have to be downloaded.
NOT_LOCAL_WARNING = (
    "the data set was not looked at: it would come from the hub (set data_dir to check it)"
)


def check_file(file: Path | str) -> dict[str, Any]:
    """Return what a bake-off file or a data file holds, with warnings: `{"summary", "warnings",
    ...}`.

    Raises:
        ConfigError, DataError: the file cannot be used; one sentence says why.
    """
    file = Path(file)
    if file.suffix.lower() in (*SUFFIXES, *UNSUPPORTED_SUFFIXES):
        return _check_data(file)
    return _check_bakeoff(load(file))


def _check_bakeoff(bakeoff: BakeOff) -> dict[str, Any]:
    """Return what a bake-off file holds, with warnings."""
    parts = prepare.resolve(bakeoff)
    warnings: list[str] = []
    sizes: dict[Split, int] = {}
    duplicates: dict[str, Any] = {}
    shown: str | None = None
    if prepare.is_local(parts):
        examples, warnings = prepare.load_examples(parts)
        sizes = {split: len(examples[split]) for split in SPLITS}
        left_out, lines = references.check_references(parts, examples["test"])
        warnings += lines
        if left_out:
            warnings.append(references.explain_left_out(parts, left_out, len(examples["test"])))
        usable = [example for example in examples["test"] if example.id not in left_out]
        if len(bakeoff.contenders) > 1 and usable:
            shown = prepare.describe_test_power(parts, usable)
        duplicates = {
            pair: {"exact": exact, "near": near}
            for pair, (exact, near) in splits.count_overlaps(examples).items()
        }
    else:
        warnings.append(NOT_LOCAL_WARNING)
    prices, day = load_price_book(bakeoff), bakeoff.as_of or environment.today()
    for contender in bakeoff.contenders:
        if isinstance(contender, LocalConfig | PromptedConfig):
            vllm_inference.check_vllm(contender)
        check_not_ended(contender, prices, day)
    warnings += _check_prices(bakeoff, prices, day)
    today = environment.today()
    for contender in bakeoff.contenders:
        warnings += explain_doubts(contender, prices, today, parts.max_new_tokens)
    if bakeoff.as_of and bakeoff.as_of > environment.today():
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


def _check_prices(bakeoff: BakeOff, prices: PriceBook, day: datetime.date) -> list[str]:
    """Return a sentence for each missing price, for which a run would refuse or not count
    something.

    They are warnings only: the book does not know everything, and it may change until the run.
    """
    sentences = [explain_refusal_today(contender, prices) for contender in bakeoff.contenders]
    sentences += [find_judge_price(judge, prices)[1] for judge in list_judging_models(bakeoff)]
    for contender in bakeoff.contenders:
        hardware = _find_priced_hardware(contender)
        if hardware is not None and hardware.accelerator is not None:
            sentences.append(explain_missing_hour_price(contender.name, hardware, prices, day))
    return [sentence for sentence in sentences if sentence is not None]


def _find_priced_hardware(contender: Any) -> Hardware | None:
    """Return the hardware whose hours make a contender's costs; None where hours do not."""
    if isinstance(contender, RecordedConfig):
        reported = contender.training
        return contender.hardware if reported is not None and reported.hours else None
    own = isinstance(contender, LocalConfig | PromptedConfig) and not is_hosted(contender)
    return contender.hardware if own else None


def _check_data(file: Path) -> dict[str, Any]:
    """Return what a data file holds, with warnings."""
    form = describe_form(find_columns(file))
    warnings: list[str] = []
    examples = chat.load_checked_examples(file, None, warnings.append)
    exact, alike = splits.count_repeated_inputs(examples)
    return {
        "summary": f"fine. {len(examples)} examples ({form}).",
        "examples": len(examples),
        "form": form,
        "duplicates": {"exact": exact, "near": alike},
        "warnings": warnings,
    }
