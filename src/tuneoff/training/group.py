"""The processes that train one model together, and what they tell each other.

Every process builds the same packs and computes its share of them. What is decided (that
memory ran out, that a training stops, which checkpoint is gone on from) is decided from
numbers that are the same everywhere to the bit: parts are gathered and added in one order,
and what only the first process can know it tells the others.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from tuneoff.models.loading import device

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
# Waiting for the first process to write a large model is no hang; a process that died is
# noticed by whoever started it.
PATIENCE = datetime.timedelta(hours=2)
# Numbers of gradients that are added up by one call.
BUCKET = 2**25


@dataclass(frozen=True, slots=True)
class Group:
    """`size` processes, of which this is number `rank`. One alone talks to nobody."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that says and writes things."""
        return self.rank == 0

    @property
    def on_this_machine(self) -> int:
        """How many of the processes share this machine's memory."""
        return min(self.size, int(os.environ.get("LOCAL_WORLD_SIZE", self.size)))

    def from_first(self, value: T) -> T:
        """What the first process has here; the others' own value counts for nothing."""
        if self.size == 1:
            return value
        import torch.distributed as dist

        told: list[Any] = [value]
        dist.broadcast_object_list(told, src=0, device=_device())
        found: T = told[0]
        return found

    def all(self, numbers: Sequence[float]) -> list[list[float]]:
        """The numbers of every process, in order of rank."""
        if self.size == 1:
            return [list(numbers)]
        import torch
        import torch.distributed as dist

        own = torch.tensor(numbers, dtype=torch.float64, device=_device())
        parts = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(parts, own)
        return [part.tolist() for part in parts]

    def sums(self, *numbers: float) -> list[float]:
        """Each number added up over all processes."""
        return [sum(parts) for parts in zip(*self.all(numbers), strict=True)]

    def any(self, happened: bool) -> bool:
        """Whether something happened in any process."""
        return any(parts[0] for parts in self.all([float(happened)]))

    def add_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Adds up the gradients of models that every process holds as a whole.

        Not inside of the backward pass, as `DistributedDataParallel` does it: there, one process
        that runs out of memory leaves the others waiting for ever, and nobody can agree to
        compute less at once.
        """
        if self.size == 1:
            return
        import torch

        waiting: list[torch.Tensor] = []
        for parameter in parameters:
            if not parameter.requires_grad:
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            if waiting and (
                waiting[0].dtype != parameter.grad.dtype
                or sum(each.numel() for each in waiting) + parameter.grad.numel() > BUCKET
            ):
                _add(waiting)
                waiting = []
            waiting.append(parameter.grad)
        if waiting:
            _add(waiting)

    def share(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Has every process begin with the first one's trained parameters."""
        if self.size == 1:
            return
        import torch.distributed as dist

        for parameter in parameters:
            if parameter.requires_grad:
                dist.broadcast(parameter.data, src=0)

    def take_turns(self) -> Iterable[bool]:
        """As many rounds as there are processes, in one of which it is this one's turn."""
        for turn in range(self.size):
            yield turn == self.rank
            self.wait()

    def wait(self) -> None:
        """Until every process is here."""
        self.any(False)

    def own_randomness(self, seed: int) -> None:
        """Dropout that differs from the first process's, which keeps what it would have alone."""
        if self.rank:
            import torch

            torch.manual_seed((seed + 7919 * self.rank) % 2**63)


ALONE = Group()


def join() -> Group:
    """The group that this process was started in: one that is there already, or the one that
    torchrun or `accelerate launch` describes in the environment; else it is alone."""
    import torch
    import torch.distributed as dist

    if not dist.is_available():
        return ALONE
    if not dist.is_initialized():
        if int(os.environ.get("WORLD_SIZE", "1")) < 2 or "RANK" not in os.environ:
            return ALONE
        if device().type == "cuda":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        backend = "nccl" if device().type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=PATIENCE)
    return Group(dist.get_rank(), dist.get_world_size())


def leave() -> None:
    """Closes the group at the end of a process that `join` opened it in."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def _device() -> torch.device:
    """Where tensors must lie that are sent by this group's means."""
    import torch
    import torch.distributed as dist

    return device() if "nccl" in str(dist.get_backend()) else torch.device("cpu")


def _add(gradients: Sequence[torch.Tensor]) -> None:
    import torch
    import torch.distributed as dist

    flat = torch.cat([each.flatten() for each in gradients])
    dist.all_reduce(flat)
    start = 0
    for each in gradients:
        each.copy_(flat[start : start + each.numel()].view_as(each))
        start += each.numel()
