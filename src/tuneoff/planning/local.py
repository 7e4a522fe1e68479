"""What training an open model will take: seconds, memory, and which accelerators hold it."""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuneoff import machine
from tuneoff.contender_settings import LocalSettings
from tuneoff.contenders.trainings import trainings
from tuneoff.costs.arithmetic import hours_usd
from tuneoff.costs.pricebook import PriceBook, hour_source, no_hour, priced, stale
from tuneoff.costs.pricefile import Accelerator
from tuneoff.errors import TuneoffError, unknown
from tuneoff.models import prefix_tree
from tuneoff.planning.counting import ApproximateView, OpenView, Tallies
from tuneoff.planning.schema import PlannedContender, PlannedTraining
from tuneoff.prompts import Template
from tuneoff.records import Example
from tuneoff.training.arguments import evaluate_every, planned_steps
from tuneoff.training.packer import SHORTEST_SHARED
from tuneoff.training.search import RATES, STEPS, VALIDATION

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from tuneoff.models.memory import MemoryEstimate

GIB = 2**30
BATCHES = 4


@dataclass(frozen=True, slots=True)
class Asked:
    """One contender and what its plan needs to know. `sample` are training examples; `measure`
    allows the twenty seconds of training here."""

    settings: LocalSettings
    base: str
    view: OpenView | ApproximateView
    template: Template
    tallies: Tallies
    sample: Sequence[Example]
    prices: PriceBook
    day: datetime.date
    measure: bool


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is trained: steps, those before them that look for a learning rate, the examples'
    tokens of both, those that are validated on the way, and the share of tokens that is computed
    where prefixes are computed once."""

    steps: int
    searching: int
    epochs: float
    tokens: float
    validated: float
    share: float


def planned_local(asked: Asked) -> PlannedContender:
    """An open model tuned here, or on the hardware that the file names."""
    settings, warnings = asked.settings, list[str]()
    extent = _extent(asked)
    if isinstance(asked.view, ApproximateView):
        warnings.append(
            f"the tokenizer of {settings.base} is not in the local cache; its tokens are counted "
            "with gpt-4o's, up to 20% fewer."
        )
    times = sum(training.fraction for training in trainings(settings))
    held = _held(asked, extent, warnings)
    seconds, how = _seconds(asked, extent, held, warnings)
    seconds = None if seconds is None else seconds * times
    usd, rate = _usd(asked, seconds, warnings)
    over = f", {times:g} times" if times != 1 else ""
    most = "at most " if settings.train.until else ""
    basis = f"{most}{extent.steps:,} steps of {settings.train.batch_size} examples"
    if extent.searching:
        basis += f" and {extent.searching:,} that look for a learning rate"
    basis += f"{over}{how}{rate}"
    if held is not None:
        basis += f"; {_fits(held.bytes, asked.prices)}"
    train = asked.tallies["train"]
    training = PlannedTraining(
        examples=train.examples,
        epochs=round(extent.epochs, 2),
        tokens_per_epoch=train.of_all(train.whole),
        tokens_billed=None,
        seconds=seconds,
        memory_bytes=held.bytes if held else None,
        usd=usd,
        basis=basis,
    )
    return PlannedContender(
        name=settings.name, id=settings.id, training=training, warnings=tuple(warnings)
    )


def _extent(asked: Asked) -> Extent:
    rules, train = asked.settings.train, asked.tallies["train"]
    validation = asked.tallies["validation"]
    steps = planned_steps(rules, train.examples)
    epochs = steps / math.ceil(train.examples / rules.batch_size)
    tokens = epochs * train.of_all(train.whole)
    evaluations = steps // evaluate_every(rules, train.examples)
    validated = float(evaluations * validation.of_all(validation.whole))
    searching = 0
    if rules.learning_rate == "search":
        rates = len(RATES[asked.settings.method])
        searching = rates * min(STEPS, math.ceil(train.examples / rules.batch_size))
        tokens += searching * rules.batch_size * train.whole / max(1, train.counted)
        judged = rates * min(VALIDATION, validation.examples)
        validated += judged * validation.whole / max(1, validation.counted)
    share = _share(asked) if rules.share_prefixes else 1.0
    return Extent(steps, searching, epochs, tokens, validated, share)


def _share(asked: Asked) -> float:
    """Tokens of prefix trees over those of their examples, in batches as they are computed."""
    rules = asked.settings.train
    rows = [asked.view.ids(example) for example in asked.sample]
    size = min(rules.micro_batch_size or rules.batch_size, len(rows))
    computed = unshared = 0
    for number in range(min(BATCHES, max(1, len(rows) // size))):
        batch = rows[number * size : (number + 1) * size]
        tree = prefix_tree.build(
            [prefix_tree.Weighted(row, [1.0] * len(row)) for row in batch if row], SHORTEST_SHARED
        )
        computed += len(tree)
        unshared += sum(map(len, batch))
    return computed / max(1, unshared)


@dataclass(frozen=True, slots=True)
class Held:
    """What is known of the base: its configuration and the least memory that training takes."""

    config: PretrainedConfig
    bytes: int


def _held(asked: Asked, extent: Extent, warnings: list[str]) -> Held | None:
    from tuneoff.models.known import config_of

    config = config_of(asked.base)
    if config is None:
        warnings.append(
            f"the architecture of {asked.settings.base} is unknown here, so memory and seconds "
            "are, too: load it once, or give a local folder."
        )
        return None
    estimated = _estimate(asked, config)
    rules, train = asked.settings.train, asked.tallies["train"]
    longest = max(train.longest, asked.tallies["validation"].longest)
    at_once = longest
    if rules.micro_batch_size is not None:
        mean = train.whole / max(1, train.counted)
        each = mean * extent.share if rules.share_prefixes else longest
        at_once = max(longest, math.ceil(rules.micro_batch_size * each))
    return Held(config, estimated.total_bytes(at_once, 0 if rules.share_prefixes else longest))


def _estimate(asked: Asked, config: PretrainedConfig) -> MemoryEstimate:
    import torch

    from tuneoff.models.loading import device, dtype_of
    from tuneoff.models.memory import divided, estimate
    from tuneoff.models.packing import LOGITS_AT_ONCE

    precision = asked.settings.train.precision
    elsewhere = _accelerator_of(asked.settings) is not None
    there = elsewhere and precision == "auto"
    dtype = torch.bfloat16 if there else dtype_of(precision)
    found = estimate(
        config,
        asked.settings,
        dtype,
        gradient_checkpointing=asked.settings.train.gradient_checkpointing,
        logits_chunk=LOGITS_AT_ONCE // config.get_text_config().vocab_size,
        on_accelerator=elsewhere or device().type != "cpu",
    )
    hardware, parallel = asked.settings.hardware, asked.settings.train.parallel
    return divided(found, hardware.count) if hardware and parallel == "fsdp" else found


def _fits(needed: int, prices: PriceBook) -> str:
    """Which accelerators of the book hold so many bytes, one of them each."""
    from tuneoff.models.memory import USABLE

    def holds(each: Accelerator) -> bool:
        return needed <= USABLE * each.memory_gb * GIB

    accelerators = prices.accelerators()
    fit = [f"{each.name} ({each.memory_gb:g} GB)" for each in accelerators if holds(each)]
    small = [f"{each.name} ({each.memory_gb:g} GB)" for each in accelerators if not holds(each)]
    found = f"needs {needed / GIB:.1f} GiB at least: "
    if not small:
        return f"{found}fits every accelerator of the book"
    found += f"fits {', '.join(fit)}" if fit else "fits no single accelerator of the book"
    return found + (f"; not {', '.join(small)}" if fit else "")


def _accelerator_of(settings: LocalSettings) -> str | None:
    """The accelerator that the file names, unless it is this machine's."""
    named = settings.hardware.accelerator if settings.hardware else None
    if named is None:
        return None
    return None if machine.is_accelerator(named, machine.accelerator()) else named


def _seconds(
    asked: Asked, extent: Extent, held: Held | None, warnings: list[str]
) -> tuple[float | None, str]:
    """Seconds of one training on all examples, and the words that say where they come from."""
    named = _accelerator_of(asked.settings)
    if named is None:
        return _here(asked, extent, held, warnings)
    accelerator = asked.prices.accelerator(named)
    if accelerator is None:
        names = [each.name for each in asked.prices.accelerators()]
        warnings.append(f"hardware: {unknown('accelerator', named, names)}; hours are not known.")
        return None, ""
    if held is None:
        return None, ""
    from tuneoff.models.parameters import parameters_of
    from tuneoff.planning.flops import UTILIZATION, work_of

    train = asked.tallies["train"]
    parameters = parameters_of(held.config, asked.settings.lora)
    work = work_of(held.config, asked.settings, parameters, train.whole / max(1, train.counted))
    count = asked.settings.hardware.count if asked.settings.hardware else 1
    seconds = work.seconds(
        extent.tokens * extent.share,
        extent.validated * extent.share,
        accelerator.peak_teraflops * count,
    )
    return seconds, (
        f", {extent.share:.0%} of their tokens computed, at {UTILIZATION:.0%} of "
        f"{named}'s {accelerator.peak_teraflops:g} TFLOPS: {_long(seconds)}"
    )


def _here(
    asked: Asked, extent: Extent, held: Held | None, warnings: list[str]
) -> tuple[float | None, str]:
    from tuneoff.models.free_memory import available_bytes
    from tuneoff.models.loading import device
    from tuneoff.tokens import file_of
    from tuneoff.training.trainer import is_out_of_memory

    weights = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
    if not any(file_of(asked.base, name) for name in weights):
        warnings.append(
            f"{asked.settings.base} is not on this machine, so its speed was not measured: load "
            "it once, or name hardware.accelerator."
        )
        return None, ""
    if not asked.measure:
        return None, ""
    if held is not None and held.bytes > available_bytes(device()):
        warnings.append("it does not fit into this machine's memory; its speed was not measured.")
        return None, ""
    from tuneoff.planning.measuring import measure

    try:
        speed = measure(asked.settings, asked.base, asked.template, asked.sample)
    except (TuneoffError, RuntimeError, MemoryError) as error:
        if not isinstance(error, TuneoffError) and not is_out_of_memory(error):
            raise
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        warnings.append(f"speed was not measured: {first}")
        return None, ""
    seconds = speed.seconds(extent.steps + extent.searching, extent.tokens, extent.validated)
    return seconds, (
        f", {speed.computed:.0%} of their tokens computed, as fast as 20 s of training here: "
        f"{_long(seconds)}"
    )


def _long(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.2f} h"


def _usd(asked: Asked, seconds: float | None, warnings: list[str]) -> tuple[float | None, str]:
    """The price of the hours, and the words that say where it comes from; nothing is priced
    where the file names no hardware."""
    if asked.settings.hardware is None or seconds is None:
        return None, ""
    hardware, hour = priced(asked.settings.hardware, asked.prices, asked.day)
    if hour is not None and stale(hour, asked.day):
        warnings.append(
            f"the price of an hour of {hour.accelerator} was read on {hour.retrieved}; "
            f"look again: {hour.source}."
        )
    usd = hours_usd(seconds, hardware)
    if usd is None:
        unpriced = no_hour(asked.settings.name, hardware, asked.prices, asked.day)
        warnings += [unpriced] if unpriced else []
        return None, ""
    count = f" × {hardware.count}" if hardware.count > 1 else ""
    return float(usd), f" × ${hardware.usd_per_hour:g}/h{count} ({hour_source(hour)})"
