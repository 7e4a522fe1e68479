"""What training an open model will take: seconds, memory, and which accelerators hold it.

Time on an accelerator follows from the operations to compute. A forward pass multiplies every token
with every weight (2 operations each) and attends to the tokens before it. The backward pass takes
as much again for the activations, and once more for the gradients of trained weights. Checkpointing
computes the forward pass twice (Kaplan et al. 2020, without their approximation of attention).
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuneoff import environment
from tuneoff.bakeoff.plan.schema import PlannedContender, PlannedTraining
from tuneoff.bakeoff.plan.token_counts import ApproximateView, OpenView, SplitTallies
from tuneoff.config.contenders import LocalConfig
from tuneoff.contenders.variants import list_variants
from tuneoff.costs.price_book import (
    PriceBook,
    add_hour_price,
    explain_missing_hour_price,
    format_hour_source,
    is_stale,
)
from tuneoff.costs.price_file import Accelerator
from tuneoff.costs.token_costs import price_hours
from tuneoff.errors import TuneoffError, explain_unknown
from tuneoff.models.parameters import Parameters
from tuneoff.prefix_sharing import tree as prefix_tree
from tuneoff.prompts import Template
from tuneoff.records import Example
from tuneoff.training.arguments import compute_evaluation_interval, count_planned_steps
from tuneoff.training.batching import MIN_SHARED_TOKENS
from tuneoff.training.learning_rate_search import CANDIDATE_RATES, MAX_TRIAL_VALIDATION, TRIAL_STEPS

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from tuneoff.models.memory import MemoryEstimate


# Share of an accelerator's peak that training reaches. The seed's own hours on an A40 come to 40%
# (SQL) and 55% (ViGGO), with checkpointing counted, padding and validation left out.
UTILIZATION = 0.35
TERA = 1e12


@dataclass(frozen=True, slots=True)
class TokenOperations:
    """Floating-point operations per token."""

    training: float
    """In training."""
    forward: float
    """In a forward pass alone."""

    def seconds(
        self, trained_tokens: float, validated_tokens: float, peak_teraflops: float
    ) -> float:
        """Return the seconds on an accelerator of this peak, at `UTILIZATION` of it."""
        operations = self.training * trained_tokens + self.forward * validated_tokens
        return operations / (peak_teraflops * TERA * UTILIZATION)


def count_operations(
    config: PretrainedConfig, settings: LocalConfig, parameters: Parameters, length: float
) -> TokenOperations:
    """Return the operations per token in examples of this mean length.

    The head counts although only learned tokens pass through it; this errs on the safe side.
    """
    text = config.get_text_config()
    head = text.vocab_size * text.hidden_size
    multiplied = sum(matrix.size for matrix in parameters.linear) + head
    heads = text.num_attention_heads
    width = heads * (getattr(text, "head_dim", None) or text.hidden_size // heads)
    # Queries with keys and weights with values, over half the length on average.
    attended = 4 * text.num_hidden_layers * width * length / 2
    adapter = parameters.adapter(settings.lora.r) if settings.method == "lora" else 0
    forward = 2 * (multiplied + adapter) + attended
    gradients = 2 * (multiplied if settings.method == "full" else adapter)
    again = forward if settings.train.gradient_checkpointing else 0
    return TokenOperations(training=2 * forward + gradients + again, forward=forward)


GIB = 2**30
SAMPLED_BATCHES = 4


@dataclass(frozen=True, slots=True)
class LocalPlanInput:
    """One contender and what its plan needs."""

    settings: LocalConfig
    base: str
    view: OpenView | ApproximateView
    template: Template
    tallies: SplitTallies
    sample: Sequence[Example]
    """Training examples."""
    prices: PriceBook
    day: datetime.date
    measure: bool
    """Allow the training probe of twenty seconds."""


@dataclass(frozen=True, slots=True)
class TrainingExtent:
    """How much is trained."""

    steps: int
    """Training steps."""
    searching: int
    """Steps before them that search for a learning rate."""
    epochs: float
    tokens: float
    """Trained tokens of both kinds of steps."""
    validated: float
    """Validated tokens during training."""
    share: float
    """Share of tokens that is computed where prefixes are shared."""


def plan_local(inputs: LocalPlanInput) -> PlannedContender:
    """Return the plan of a model tuned on this machine, or on the hardware that the file names."""
    settings, warnings = inputs.settings, list[str]()
    extent = _compute_extent(inputs)
    if isinstance(inputs.view, ApproximateView):
        warnings.append(
            f"the tokenizer of {settings.base} is not in the local cache; its tokens are counted "
            "with gpt-4o's, up to 20% fewer."
        )
    times = sum(training.fraction for training in list_variants(settings))
    base_memory = _find_base_memory(inputs, extent, warnings)
    seconds, seconds_basis = _estimate_seconds(inputs, extent, base_memory, warnings)
    seconds = None if seconds is None else seconds * times
    usd, rate = _price_hours(inputs, seconds, warnings)
    over = f", {times:g} times" if times != 1 else ""
    at_most = "at most " if settings.train.until else ""
    basis = f"{at_most}{extent.steps:,} steps of {settings.train.batch_size} examples"
    if extent.searching:
        basis += f" and {extent.searching:,} that look for a learning rate"
    basis += f"{over}{seconds_basis}{rate}"
    if base_memory is not None:
        basis += f"; {_format_fitting(base_memory.bytes, inputs.prices)}"
    train = inputs.tallies["train"]
    training = PlannedTraining(
        examples=train.examples,
        epochs=round(extent.epochs, 2),
        tokens_per_epoch=train.scale_to_split(train.whole),
        tokens_billed=None,
        seconds=seconds,
        memory_bytes=base_memory.bytes if base_memory else None,
        usd=usd,
        basis=basis,
    )
    return PlannedContender(
        name=settings.name, id=settings.id, training=training, warnings=tuple(warnings)
    )


def _compute_extent(inputs: LocalPlanInput) -> TrainingExtent:
    """Return how much is trained."""
    rules, train = inputs.settings.train, inputs.tallies["train"]
    validation = inputs.tallies["validation"]
    steps = count_planned_steps(rules, train.examples)
    epochs = steps / math.ceil(train.examples / rules.batch_size)
    tokens = epochs * train.scale_to_split(train.whole)
    evaluations = steps // compute_evaluation_interval(rules, train.examples)
    validated = float(evaluations * validation.scale_to_split(validation.whole))
    searching = 0
    if rules.learning_rate == "search":
        rates = len(CANDIDATE_RATES[inputs.settings.method])
        searching = rates * min(TRIAL_STEPS, math.ceil(train.examples / rules.batch_size))
        tokens += searching * rules.batch_size * train.whole / max(1, train.counted)
        judged = rates * min(MAX_TRIAL_VALIDATION, validation.examples)
        validated += judged * validation.whole / max(1, validation.counted)
    share = _compute_prefix_share(inputs) if rules.share_prefixes else 1.0
    return TrainingExtent(steps, searching, epochs, tokens, validated, share)


def _compute_prefix_share(inputs: LocalPlanInput) -> float:
    """Return the share of tokens that prefix trees compute, in batches as trained."""
    rules = inputs.settings.train
    rows = [inputs.view.ids(example) for example in inputs.sample]
    size = min(rules.micro_batch_size or rules.batch_size, len(rows))
    computed = unshared = 0
    for number in range(min(SAMPLED_BATCHES, max(1, len(rows) // size))):
        batch = rows[number * size : (number + 1) * size]
        tree = prefix_tree.build_tree(
            [prefix_tree.WeightedSequence(row, [1.0] * len(row)) for row in batch if row],
            MIN_SHARED_TOKENS,
        )
        computed += len(tree)
        unshared += sum(map(len, batch))
    return computed / max(1, unshared)


@dataclass(frozen=True, slots=True)
class BaseMemory:
    """What is known about the base."""

    config: PretrainedConfig
    bytes: int
    """Minimum memory that training takes."""


def _find_base_memory(
    inputs: LocalPlanInput, extent: TrainingExtent, warnings: list[str]
) -> BaseMemory | None:
    """Return what is known about the base; warn and return None for an unknown architecture."""
    from tuneoff.models.loading import find_base_config

    config = find_base_config(inputs.base)
    if config is None:
        warnings.append(
            f"the architecture of {inputs.settings.base} is unknown here, so memory and seconds "
            "are, too: load it once, or give a local folder."
        )
        return None
    estimated = _estimate_memory(inputs, config)
    rules, train = inputs.settings.train, inputs.tallies["train"]
    longest = max(train.longest, inputs.tallies["validation"].longest)
    at_once = longest
    if rules.micro_batch_size is not None:
        mean = train.whole / max(1, train.counted)
        tokens_per_example = mean * extent.share if rules.share_prefixes else longest
        at_once = max(longest, math.ceil(rules.micro_batch_size * tokens_per_example))
    return BaseMemory(
        config, estimated.total_bytes(at_once, 0 if rules.share_prefixes else longest)
    )


def _estimate_memory(inputs: LocalPlanInput, config: PretrainedConfig) -> MemoryEstimate:
    """Return the memory estimate of training on the hardware that will be used."""
    import torch

    from tuneoff.models.loading import choose_dtype, get_device
    from tuneoff.models.memory import estimate_memory, shard_estimate
    from tuneoff.prefix_sharing.micro_batch import MAX_LOGITS

    precision = inputs.settings.train.precision
    is_other_machine = _find_other_accelerator(inputs.settings) is not None
    uses_bfloat16 = is_other_machine and precision == "auto"
    dtype = torch.bfloat16 if uses_bfloat16 else choose_dtype(precision)
    memory = estimate_memory(
        config,
        inputs.settings,
        dtype,
        gradient_checkpointing=inputs.settings.train.gradient_checkpointing,
        logits_chunk=MAX_LOGITS // config.get_text_config().vocab_size,
        on_accelerator=is_other_machine or get_device().type != "cpu",
    )
    hardware, parallel = inputs.settings.hardware, inputs.settings.train.parallel
    return shard_estimate(memory, hardware.count) if hardware and parallel == "fsdp" else memory


def _format_fitting(needed: int, prices: PriceBook) -> str:
    """Say which accelerators of the book hold this many bytes, one of them each."""
    from tuneoff.models.memory import USABLE_FRACTION

    def holds(accelerator: Accelerator) -> bool:
        return needed <= USABLE_FRACTION * accelerator.memory_gb * GIB

    accelerators = prices.accelerators()
    fitting = [
        f"{accelerator.name} ({accelerator.memory_gb:g} GB)"
        for accelerator in accelerators
        if holds(accelerator)
    ]
    too_small = [
        f"{accelerator.name} ({accelerator.memory_gb:g} GB)"
        for accelerator in accelerators
        if not holds(accelerator)
    ]
    sentence = f"needs {needed / GIB:.1f} GiB at least: "
    if not too_small:
        return f"{sentence}fits every accelerator of the book"
    sentence += (
        f"fits {', '.join(fitting)}" if fitting else "fits no single accelerator of the book"
    )
    return sentence + (f"; not {', '.join(too_small)}" if fitting else "")


def _find_other_accelerator(settings: LocalConfig) -> str | None:
    """Return the accelerator that the file names, unless it is this machine's."""
    named = settings.hardware.accelerator if settings.hardware else None
    if named is None:
        return None
    return None if environment.is_accelerator(named, environment.get_accelerator()) else named


def _estimate_seconds(
    inputs: LocalPlanInput, extent: TrainingExtent, held: BaseMemory | None, warnings: list[str]
) -> tuple[float | None, str]:
    """Return the seconds of one training on all examples, and their basis in words."""
    named = _find_other_accelerator(inputs.settings)
    if named is None:
        return _measure_here(inputs, extent, held, warnings)
    accelerator = inputs.prices.accelerator(named)
    if accelerator is None:
        names = [each.name for each in inputs.prices.accelerators()]
        warnings.append(
            f"hardware: {explain_unknown('accelerator', named, names)}; hours are not known."
        )
        return None, ""
    if held is None:
        return None, ""
    from tuneoff.models.parameters import inspect_parameters

    train = inputs.tallies["train"]
    parameters = inspect_parameters(held.config, inputs.settings.lora)
    work = count_operations(
        held.config, inputs.settings, parameters, train.whole / max(1, train.counted)
    )
    count = inputs.settings.hardware.count if inputs.settings.hardware else 1
    seconds = work.seconds(
        extent.tokens * extent.share,
        extent.validated * extent.share,
        accelerator.peak_teraflops * count,
    )
    return seconds, (
        f", {extent.share:.0%} of their tokens computed, at {UTILIZATION:.0%} of "
        f"{named}'s {accelerator.peak_teraflops:g} TFLOPS: {_format_duration(seconds)}"
    )


def _measure_here(
    inputs: LocalPlanInput, extent: TrainingExtent, held: BaseMemory | None, warnings: list[str]
) -> tuple[float | None, str]:
    """Return the seconds by a training probe on this machine, and their basis in words."""
    from tuneoff.models.loading import get_device
    from tuneoff.models.memory import measure_available_bytes
    from tuneoff.tokenization.offline import find_file
    from tuneoff.training.trainer import is_out_of_memory

    weights = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
    if not any(find_file(inputs.base, name) for name in weights):
        warnings.append(
            f"{inputs.settings.base} is not on this machine, so its speed was not measured: load "
            "it once, or name hardware.accelerator."
        )
        return None, ""
    if not inputs.measure:
        return None, ""
    if held is not None and held.bytes > measure_available_bytes(get_device()):
        warnings.append("it does not fit into this machine's memory; its speed was not measured.")
        return None, ""
    from tuneoff.bakeoff.plan.speed_probe import measure_speed

    try:
        speed = measure_speed(inputs.settings, inputs.base, inputs.template, inputs.sample)
    except (TuneoffError, RuntimeError, MemoryError) as error:
        if not isinstance(error, TuneoffError) and not is_out_of_memory(error):
            raise
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        warnings.append(f"speed was not measured: {first}")
        return None, ""
    seconds = speed.seconds(extent.steps + extent.searching, extent.tokens, extent.validated)
    return seconds, (
        f", {speed.computed:.0%} of their tokens computed, as fast as 20 s of training here: "
        f"{_format_duration(seconds)}"
    )


def _format_duration(seconds: float) -> str:
    """Return a duration in words."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.2f} h"


def _price_hours(
    inputs: LocalPlanInput, seconds: float | None, warnings: list[str]
) -> tuple[float | None, str]:
    """Return the price of the hours, and its basis in words.

    Nothing is priced where the file names no hardware.
    """
    if inputs.settings.hardware is None or seconds is None:
        return None, ""
    hardware, hour = add_hour_price(inputs.settings.hardware, inputs.prices, inputs.day)
    if hour is not None and is_stale(hour, inputs.day):
        warnings.append(
            f"the price of an hour of {hour.accelerator} was read on {hour.retrieved}; "
            f"look again: {hour.source}."
        )
    usd = price_hours(seconds, hardware)
    if usd is None:
        unpriced = explain_missing_hour_price(
            inputs.settings.name, hardware, inputs.prices, inputs.day
        )
        warnings += [unpriced] if unpriced else []
        return None, ""
    count = f" × {hardware.count}" if hardware.count > 1 else ""
    return float(usd), f" × ${hardware.usd_per_hour:g}/h{count} ({format_hour_source(hour)})"
