"""Twenty seconds of training on this machine, and what they say of the whole.

Real batches of the bake-off's own examples, of two sizes smaller than its own, through the
trainer's own packs and model. A step's seconds are a constant (the optimizer, Python) and so
much a computed token; both come from the two sizes. Nothing is kept.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuneoff.contender_settings import LocalSettings
from tuneoff.models.loading import dtype_of, load_tokenizer, positions_of, rendering_of
from tuneoff.prompts import Template
from tuneoff.records import Example
from tuneoff.training.encoding import Encoded, encode
from tuneoff.training.tune import max_length, most_tokens, packer_for

if TYPE_CHECKING:
    from tuneoff.training.packer import Packer

SECONDS, VALIDATING_SECONDS = 20.0, 5.0
# Batches of these parts of the file's own; a size has as many timed steps, unless a large model
# takes more than TOO_LONG for them.
PARTS, FEWEST_STEPS, TOO_LONG = (8, 2), 3, 3 * SECONDS
BATCHES = 8


@dataclass(frozen=True, slots=True)
class Speed:
    """Seconds of a step and, beside them, of a computed token; of a validated token; and the
    tokens that are computed of each one that the examples have."""

    per_step: float
    per_token: float
    per_validated_token: float
    computed: float

    def seconds(self, steps: int, trained_tokens: float, validated_tokens: float) -> float:
        """Of a training with so many (unshared) tokens."""
        trained = self.per_step * steps + self.per_token * self.computed * trained_tokens
        return trained + self.per_validated_token * self.computed * validated_tokens


def measure(
    settings: LocalSettings, base: str, template: Template, examples: Sequence[Example]
) -> Speed:
    """Measures, on the device that a run would use.

    Raises:
        ConfigError, DataError: base, target modules or examples cannot be used.
    """
    from tuneoff.models import bases
    from tuneoff.models.packing import loss_over_packs
    from tuneoff.training.method import finished, prepare_model

    tokenizer = load_tokenizer(base)
    rendering = rendering_of(tokenizer, settings.rendering)
    longest, rules = max_length(settings, positions_of(base)), settings.train
    encoded = [
        encode(tokenizer, e, template, rendering, rules.loss_on, longest, rules.truncate)
        for e in examples
    ]
    dtype = dtype_of(rules.precision)
    most = most_tokens(settings, base, dtype, encoded)
    model = prepare_model(settings, base, dtype)
    packer = packer_for(settings, model, encoded, dtype, most, lambda line: None)
    try:
        with loss_over_packs(model, packer.trees):
            return _timed(model, packer, encoded, rules.batch_size, _autocast(dtype))
    finally:
        finished(settings, base, model)
        bases.forget()


def _autocast(dtype: Any) -> Any:
    import torch

    from tuneoff.models.loading import device

    on = dtype in (torch.float16, torch.bfloat16)
    return lambda: torch.autocast(device().type, dtype=dtype, enabled=on)


def _timed(
    model: Any, packer: Packer, encoded: Sequence[Encoded], batch_size: int, autocast: Any
) -> Speed:
    import torch

    drawer = random.Random(0)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-6)
    sizes = sorted({max(1, min(batch_size, len(encoded)) // part) for part in PARTS})
    found: dict[int, list[tuple[int, float]]] = {size: [] for size in sizes}
    model.train()
    began = time.perf_counter()
    for size in sizes:  # the first step prepares kernels and the optimizer's moments
        first = _step(model, packer, drawer.choices(encoded, k=size), optimizer, autocast)
        if time.perf_counter() - began > TOO_LONG:
            found[size].append(first)
            break
    else:
        _fill(found, began, lambda size: _step(
            model, packer, drawer.choices(encoded, k=size), optimizer, autocast
        ))  # fmt: skip
    timed = [steps for steps in found.values() if steps]
    small, large = _medians(timed[0]), _medians(timed[-1])
    slope = (large[1] - small[1]) / (large[0] - small[0]) if large[0] > small[0] else 0.0
    per_token = slope if 0 < slope < large[1] / large[0] else large[1] / large[0]
    return Speed(
        per_step=max(0.0, large[1] - per_token * large[0]),
        per_token=per_token,
        per_validated_token=_validated(model, packer, encoded, autocast),
        computed=_computed(packer, encoded, batch_size, drawer),
    )


def _fill(
    found: dict[int, list[tuple[int, float]]],
    began: float,
    step: Callable[[int], tuple[int, float]],
) -> None:
    """Times steps of each size in turn, for SECONDS, or until there are enough of them."""
    warm = time.perf_counter()
    while True:
        for size, steps in found.items():
            steps.append(step(size))
            if time.perf_counter() - began > TOO_LONG:
                return
        enough = min(len(steps) for steps in found.values()) >= FEWEST_STEPS
        if enough and time.perf_counter() - warm >= SECONDS:
            return


def _step(
    model: Any, packer: Packer, batch: Sequence[Encoded], optimizer: Any, autocast: Any
) -> tuple[int, float]:
    """(computed tokens, seconds) of one step."""
    began, tokens = time.perf_counter(), 0
    for pack in packer.packs(batch):
        with autocast():
            loss = model(pack=pack).loss
        loss.backward()
        tokens += pack.tokens
    optimizer.step()
    optimizer.zero_grad()
    float(loss.detach())  # waits for an accelerator to be done
    return tokens, time.perf_counter() - began


def _medians(steps: Sequence[tuple[int, float]]) -> tuple[float, float]:
    return statistics.median(t for t, _ in steps), statistics.median(s for _, s in steps)


def _validated(model: Any, packer: Packer, encoded: Sequence[Encoded], autocast: Any) -> float:
    """Seconds of one computed token without its backward pass."""
    import torch

    model.eval()
    tokens, began = 0, time.perf_counter()
    with torch.no_grad(), autocast():
        for pack in packer.packs(encoded[:256]):
            float(model(pack=pack).loss)
            tokens += pack.tokens
            if time.perf_counter() - began > VALIDATING_SECONDS:
                break
    seconds = time.perf_counter() - began
    model.train()
    return seconds / tokens


def _computed(
    packer: Packer, encoded: Sequence[Encoded], batch_size: int, drawer: random.Random
) -> float:
    """Computed tokens for each one of the examples, in batches of the file's own size."""
    computed = unshared = 0
    for _ in range(BATCHES):
        for pack in packer.packs(drawer.sample(list(encoded), min(batch_size, len(encoded)))):
            computed += pack.tokens
            unshared += pack.unshared
    return computed / max(1, unshared)
