"""The resources of a cluster that a contender needs, in Ray's terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuneoff.config.contenders import LocalConfig

ACCELERATOR_PREFIX = "accelerator_type:"


@dataclass(frozen=True, slots=True)
class ResourceRequest:
    """The resources that a contender needs."""

    cards: int
    """Number of accelerators; 0: none."""
    kind: str | None
    """Ray's accelerator type; None: any."""
    processors: int = 1
    """Number of CPUs; counts only without accelerators."""

    def options(self, cards: int = 1) -> dict[str, Any]:
        """Return Ray's options for a task that holds this many of the accelerators."""
        if not self.cards:
            return {"num_cpus": 1}
        return {"num_cpus": 1, "num_gpus": cards, "accelerator_type": self.kind}

    def __str__(self) -> str:
        if not self.cards:
            return "a processor" if self.processors == 1 else f"{self.processors} processors"
        return f"{self.cards} × {self.kind or 'accelerator'}"


def build_resource_request(settings: Any, resources: Mapping[str, float]) -> ResourceRequest:
    """Return the resources of a contender in a cluster with these resources.

    A contender that names an accelerator waits for it. One that names none gets an accelerator if
    the cluster has any.
    """
    hardware = settings.hardware
    count = hardware.count if hardware else 1
    if hardware is not None and hardware.accelerator is not None:
        accelerator = hardware.accelerator
        offered = [
            resource.removeprefix(ACCELERATOR_PREFIX)
            for resource in resources
            if ACCELERATOR_PREFIX in resource
        ]
        kind = next(
            (resource for resource in offered if resource.lower() == accelerator.lower()),
            accelerator,
        )
        return ResourceRequest(count, kind)
    return ResourceRequest(count if resources.get("GPU") else 0, None, count)


def needs_more(wanted: ResourceRequest, nodes: Sequence[Mapping[str, float]], in_one: bool) -> bool:
    """Return whether the nodes lack the requested resources.

    With `in_one`, a single node must have all of them.
    """
    if not wanted.cards:
        return sum(node.get("CPU", 0) for node in nodes) < wanted.processors
    counts = [
        node.get("GPU", 0)
        for node in nodes
        if wanted.kind is None or f"{ACCELERATOR_PREFIX}{wanted.kind}" in node
    ]
    return (max if in_one else sum)([0, *counts]) < wanted.cards


def count_training_processes(settings: Any, wanted: ResourceRequest) -> int:
    """Return how many processes train a contender."""
    if not isinstance(settings, LocalConfig):
        return 1
    if wanted.cards:
        return wanted.cards
    return wanted.processors if settings.train.parallel != "auto" else 1


def count_cards_per_worker(settings: Any, wanted: ResourceRequest) -> int:
    """Return how many accelerators one answering worker holds: vLLM shards a model over all of
    them."""
    return max(1, wanted.cards) if settings.backend == "vllm" else 1


def count_answer_workers(settings: Any, wanted: ResourceRequest) -> int:
    """Return how many workers answer: one for each accelerator, or for each CPU without
    accelerators."""
    return 1 if settings.backend == "vllm" else (wanted.cards or wanted.processors)
