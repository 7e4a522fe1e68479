"""A training probe: twenty seconds of training on this machine, extrapolated to the whole.

It trains on real batches of the bake-off's own examples, in two sizes smaller than its own, with
the trainer's own micro-batches and model. A step takes constant seconds (the optimizer, Python)
plus seconds per computed token; both are estimated from the two sizes. Nothing is kept.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuneoff.config.contenders import LocalConfig
from tuneoff.models.loading import choose_dtype, choose_rendering, count_positions, load_tokenizer
from tuneoff.prompts import Template
from tuneoff.records import Example
from tuneoff.tokenization.examples import EncodedExample, encode_example
from tuneoff.training.fine_tune import build_micro_batcher, compute_max_tokens, resolve_max_length

if TYPE_CHECKING:
    from tuneoff.training.batching import MicroBatcher

TARGET_SECONDS, MAX_VALIDATION_SECONDS = 20.0, 5.0
# Batch sizes are the file's own divided by these. Each size gets at least this many timed steps,
# unless a large model takes more than `MAX_SECONDS` for them.
BATCH_DIVISORS, MIN_STEPS, MAX_SECONDS = (8, 2), 3, 3 * TARGET_SECONDS
SAMPLED_BATCHES = 8


@dataclass(frozen=True, slots=True)
class TrainingSpeed:
    """Measured seconds."""

    per_step: float
    """Constant seconds per step."""
    per_token: float
    """Seconds per computed token, in addition."""
    per_validated_token: float
    """Seconds per validated token."""
    computed: float
    """Computed tokens per token of the examples."""

    def seconds(self, steps: int, trained_tokens: float, validated_tokens: float) -> float:
        """Return the seconds of a training with these (unshared) tokens."""
        trained = self.per_step * steps + self.per_token * self.computed * trained_tokens
        return trained + self.per_validated_token * self.computed * validated_tokens


def measure_speed(
    settings: LocalConfig, base: str, template: Template, examples: Sequence[Example]
) -> TrainingSpeed:
    """Measure on the device that a run would use, and return the speed.

    Raises:
        ConfigError, DataError: base, target modules or examples cannot be used.
    """
    from tuneoff.models import loading
    from tuneoff.prefix_sharing.micro_batch import install_micro_batch_loss
    from tuneoff.training.model_setup import prepare_model, release_model

    tokenizer = load_tokenizer(base)
    rendering = choose_rendering(tokenizer, settings.rendering)
    max_example_tokens, rules = resolve_max_length(settings, count_positions(base)), settings.train
    encoded = [
        encode_example(
            tokenizer, e, template, rendering, rules.loss_on, max_example_tokens, rules.truncate
        )
        for e in examples
    ]
    dtype = choose_dtype(rules.precision)
    max_tokens = compute_max_tokens(settings, base, dtype, encoded)
    model = prepare_model(settings, base, dtype)
    packer = build_micro_batcher(settings, model, encoded, dtype, max_tokens, lambda line: None)
    try:
        with install_micro_batch_loss(model, packer.trees):
            return _time_training(model, packer, encoded, rules.batch_size, _build_autocast(dtype))
    finally:
        release_model(settings, base, model)
        loading.drop_cached_base()


def _build_autocast(dtype: Any) -> Any:
    """Return a function that starts autocast for this dtype."""
    import torch

    from tuneoff.models.loading import get_device

    on = dtype in (torch.float16, torch.bfloat16)
    return lambda: torch.autocast(get_device().type, dtype=dtype, enabled=on)


def _time_training(
    model: Any,
    packer: MicroBatcher,
    encoded: Sequence[EncodedExample],
    batch_size: int,
    autocast: Any,
) -> TrainingSpeed:
    """Time training steps of two batch sizes and validation, and return the speed."""
    import torch

    drawer = random.Random(0)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-6)
    sizes = sorted({max(1, min(batch_size, len(encoded)) // part) for part in BATCH_DIVISORS})
    steps_by_size: dict[int, list[tuple[int, float]]] = {size: [] for size in sizes}
    model.train()
    started = time.perf_counter()
    for size in sizes:  # the first step prepares kernels and the optimizer's moments
        first = _time_step(model, packer, drawer.choices(encoded, k=size), optimizer, autocast)
        if time.perf_counter() - started > MAX_SECONDS:
            steps_by_size[size].append(first)
            break
    else:
        _time_steps(steps_by_size, started, lambda size: _time_step(
            model, packer, drawer.choices(encoded, k=size), optimizer, autocast
        ))  # fmt: skip
    timed = [steps for steps in steps_by_size.values() if steps]
    small, large = _compute_medians(timed[0]), _compute_medians(timed[-1])
    slope = (large[1] - small[1]) / (large[0] - small[0]) if large[0] > small[0] else 0.0
    per_token = slope if 0 < slope < large[1] / large[0] else large[1] / large[0]
    return TrainingSpeed(
        per_step=max(0.0, large[1] - per_token * large[0]),
        per_token=per_token,
        per_validated_token=_time_validation(model, packer, encoded, autocast),
        computed=_measure_share(packer, encoded, batch_size, drawer),
    )


def _time_steps(
    steps_by_size: dict[int, list[tuple[int, float]]],
    began: float,
    step: Callable[[int], tuple[int, float]],
) -> None:
    """Time steps of each size in turn, for `TARGET_SECONDS` or until there are enough of them."""
    warm = time.perf_counter()
    while True:
        for size, steps in steps_by_size.items():
            steps.append(step(size))
            if time.perf_counter() - began > MAX_SECONDS:
                return
        enough = min(len(steps) for steps in steps_by_size.values()) >= MIN_STEPS
        if enough and time.perf_counter() - warm >= TARGET_SECONDS:
            return


def _time_step(
    model: Any, packer: MicroBatcher, batch: Sequence[EncodedExample], optimizer: Any, autocast: Any
) -> tuple[int, float]:
    """Train one step and return its computed tokens and seconds."""
    started, tokens = time.perf_counter(), 0
    for pack in packer.build_micro_batches(batch):
        with autocast():
            loss = model(pack=pack).loss
        loss.backward()
        tokens += pack.tokens
    optimizer.step()
    optimizer.zero_grad()
    float(loss.detach())  # waits until an accelerator is done
    return tokens, time.perf_counter() - started


def _compute_medians(steps: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """Return the median tokens and the median seconds of the steps."""
    return statistics.median(t for t, _ in steps), statistics.median(s for _, s in steps)


def _time_validation(
    model: Any, packer: MicroBatcher, encoded: Sequence[EncodedExample], autocast: Any
) -> float:
    """Return the seconds per computed token without its backward pass."""
    import torch

    model.eval()
    tokens, started = 0, time.perf_counter()
    with torch.no_grad(), autocast():
        for pack in packer.build_micro_batches(encoded[:256]):
            float(model(pack=pack).loss)
            tokens += pack.tokens
            if time.perf_counter() - started > MAX_VALIDATION_SECONDS:
                break
    seconds = time.perf_counter() - started
    model.train()
    return seconds / tokens


def _measure_share(
    packer: MicroBatcher, encoded: Sequence[EncodedExample], batch_size: int, drawer: random.Random
) -> float:
    """Return the computed tokens per token of the examples, in batches of the file's own size."""
    computed = unshared = 0
    for _ in range(SAMPLED_BATCHES):
        for pack in packer.build_micro_batches(
            drawer.sample(list(encoded), min(batch_size, len(encoded)))
        ):
            computed += pack.tokens
            unshared += pack.unshared
    return computed / max(1, unshared)
