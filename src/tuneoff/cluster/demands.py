"""What a contender asks of a cluster: the resources it names, in Ray's words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tuneoff.config import LocalSettings

ACCELERATOR = "accelerator_type:"


@dataclass(frozen=True, slots=True)
class Demand:
    """`cards` accelerators of a `kind` (None: any); without cards so many `processors`."""

    cards: int
    kind: str | None
    processors: int = 1

    def options(self, cards: int | None = None) -> dict[str, Any]:
        """Ray's options for a task that holds so many of the cards (left out: all)."""
        if not self.cards:
            return {"num_cpus": 1}
        return {"num_cpus": 1, "num_gpus": cards or self.cards, "accelerator_type": self.kind}

    def __str__(self) -> str:
        if not self.cards:
            return "a processor" if self.processors == 1 else f"{self.processors} processors"
        return f"{self.cards} × {self.kind or 'accelerator'}"


def demand(settings: Any, resources: Mapping[str, float]) -> Demand:
    """What a contender runs on, in a cluster with these resources. One that names an accelerator
    waits for it; one that names none takes one if there are any."""
    hardware = settings.hardware
    count = hardware.count if hardware else 1
    if hardware is not None and hardware.accelerator is not None:
        named = hardware.accelerator
        offered = [each.removeprefix(ACCELERATOR) for each in resources if ACCELERATOR in each]
        kind = next((each for each in offered if each.lower() == named.lower()), named)
        return Demand(count, kind)
    return Demand(count if resources.get("GPU") else 0, None, count)


def lacking(wanted: Demand, resources: Mapping[str, float]) -> bool:
    """Whether the cluster, as it is now, has less than that."""
    if not wanted.cards:
        return resources.get("CPU", 0) < wanted.processors
    there = wanted.kind is None or f"{ACCELERATOR}{wanted.kind}" in resources
    return not there or resources.get("GPU", 0) < wanted.cards


def together(settings: Any, wanted: Demand) -> int:
    """How many processes train a contender."""
    if not isinstance(settings, LocalSettings):
        return 1
    if wanted.cards:
        return wanted.cards
    return wanted.processors if settings.train.parallel != "auto" else 1


def shards(settings: Any, wanted: Demand) -> int:
    """How many workers answer: one a card. vLLM lays one model over all cards by itself."""
    return 1 if settings.backend == "vllm" else (wanted.cards or wanted.processors)
