"""From the repetitions of all arms to the document that the benchmark prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from training.measure import Measurement

Arms = Mapping[str, Sequence[Measurement]]
TRL_PREFIX, OURS_PREFIX = "trl ", "tuneoff "
BY_LENGTH = "group_by_length"


def section(arms: Arms, grouping: str, gradient_difference: float) -> dict[str, Any]:
    """One data set. `grouping` is what `tuneoff` stands for: random or by_prefix.

    Speeds are examples a second, medians over the repetitions; `repetitions` has them all.
    """
    found = {arm: _speed(repetitions) for arm, repetitions in arms.items()}
    ours = {a.removeprefix(OURS_PREFIX): s for a, s in found.items() if a.startswith(OURS_PREFIX)}
    trl = {a.removeprefix(TRL_PREFIX): s for a, s in found.items() if a.startswith(TRL_PREFIX)}
    speeds = {"tuneoff": ours[grouping], "trl": trl}
    if grouping == "random":
        speeds["tuneoff_by_length"] = ours["by_length"]
    timed = arms[OURS_PREFIX + grouping][0]
    return {
        **speeds,
        **_ratios(ours, trl, grouping),
        "tokens_ratio": round(timed.tokens_in_data / timed.tokens_computed, 3),
        "max_relative_gradient_difference": gradient_difference,
        "peak_memory_bytes": {
            _key(arm, grouping): max(m.peak_memory_bytes for m in repetitions)
            for arm, repetitions in arms.items()
        },
        "repetitions": {
            _key(arm, grouping): [round(m.examples_per_second, 3) for m in repetitions]
            for arm, repetitions in arms.items()
        },
        "cpu_seconds_per_example": {
            _key(arm, grouping): round(median(m.cpu_seconds / m.examples for m in repetitions), 4)
            for arm, repetitions in arms.items()
        },
        "trainable_parameters": timed.trainable_parameters,
    }


def _ratios(ours: Mapping[str, float], trl: Mapping[str, float], grouping: str) -> dict[str, Any]:
    """`ratio_vs_best` divides by TRL's fastest mode, like by like: where that is
    group_by_length, our random batches give way to our length-sorted ones."""
    best = max(trl, key=lambda mode: trl[mode])
    unsorted = max(speed for mode, speed in trl.items() if mode != BY_LENGTH)
    if grouping != "random":
        ratio = ours[grouping] / trl[best]
        return {
            "ratio_vs_best": round(ratio, 2),
            "ratios": {f"{grouping}_vs_best": round(ratio, 2)},
        }
    ratios = {
        "random": ours["random"] / unsorted,
        "by_length": ours["by_length"] / trl[BY_LENGTH],
        "random_vs_best": ours["random"] / trl[best],
    }
    like = "by_length" if best == BY_LENGTH else "random"
    rounded = {name: round(ratio, 2) for name, ratio in ratios.items()}
    return {"ratio_vs_best": rounded[like], "ratios": rounded}


def _speed(repetitions: Sequence[Measurement]) -> float:
    return round(median(m.examples_per_second for m in repetitions), 3)


def _key(arm: str, grouping: str) -> str:
    """`tuneoff`, `tuneoff_by_length`, `trl_plain`, …"""
    return "tuneoff" if arm == OURS_PREFIX + grouping else arm.replace(" ", "_")
