"""What a contender asks of a cluster: the resources it names, in Ray's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuneoff.contender_settings import LocalSettings

ACCELERATOR = "accelerator_type:"


@dataclass(frozen=True, slots=True)
class Demand:
    """`cards` accelerators of a `kind` (None: any); without cards so many `processors`."""

    cards: int
    kind: str | None
    processors: int = 1

    def options(self, cards: int = 1) -> dict[str, Any]:
        """Ray's options for a task that holds so many of the cards."""
        if not self.cards:
            return {"num_cpus": 1}
        return {"num_cpus": 1, "num_gpus": cards, "accelerator_type": self.kind}

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


def lacking(wanted: Demand, nodes: Sequence[Mapping[str, float]], in_one: bool) -> bool:
    """Whether a cluster of machines with these resources has less than that, or, where it must be
    `in_one` of them, no machine that has."""
    if not wanted.cards:
        return sum(node.get("CPU", 0) for node in nodes) < wanted.processors
    fitting = [
        node.get("GPU", 0)
        for node in nodes
        if wanted.kind is None or f"{ACCELERATOR}{wanted.kind}" in node
    ]
    return (max if in_one else sum)([0, *fitting]) < wanted.cards


def together(settings: Any, wanted: Demand) -> int:
    """How many processes train a contender."""
    if not isinstance(settings, LocalSettings):
        return 1
    if wanted.cards:
        return wanted.cards
    return wanted.processors if settings.train.parallel != "auto" else 1


def cards_in_one(settings: Any, wanted: Demand) -> int:
    """How many cards a worker that answers holds: vLLM lays one model over all of them."""
    return max(1, wanted.cards) if settings.backend == "vllm" else 1


def shards(settings: Any, wanted: Demand) -> int:
    """How many workers answer: one a card, or a processor where there are no cards."""
    return 1 if settings.backend == "vllm" else (wanted.cards or wanted.processors)
