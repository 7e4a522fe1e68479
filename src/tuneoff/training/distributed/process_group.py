"""The processes that train one model together, and their collective operations.

Every process builds the same micro-batches and computes its share of them. Decisions (memory ran
out, stop the training, resume from which checkpoint) use numbers that are equal everywhere to the
bit: values are gathered and added in one order. What only the first process can know it broadcasts.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from tuneoff.models.loading import get_device

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
# How long a collective operation waits. The first process may need long to write a large model; a
# process that died is noticed by its launcher.
COLLECTIVE_TIMEOUT = datetime.timedelta(hours=2)
# Gradient elements of one all-reduce.
BUCKET_SIZE = 2**25


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """A group of training processes. A group of one does not communicate."""

    rank: int = 0
    """The number of this process, from 0."""
    size: int = 1
    """The number of processes."""

    @property
    def is_first(self) -> bool:
        """Return whether this process reports and writes files (rank 0)."""
        return self.rank == 0

    @property
    def local_size(self) -> int:
        """Return how many of the processes share this machine's memory."""
        return min(self.size, int(os.environ.get("LOCAL_WORLD_SIZE", self.size)))

    def broadcast(self, value: T) -> T:
        """Return the first process's value; the others' values are ignored."""
        if self.size == 1:
            return value
        import torch.distributed as dist

        values: list[Any] = [value]
        dist.broadcast_object_list(values, src=0, device=_get_collective_device())
        received: T = values[0]
        return received

    def all_gather(self, numbers: Sequence[float]) -> list[list[float]]:
        """Return the numbers of every process, in order of rank."""
        if self.size == 1:
            return [list(numbers)]
        import torch
        import torch.distributed as dist

        own = torch.tensor(numbers, dtype=torch.float64, device=_get_collective_device())
        parts = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(parts, own)
        return [part.tolist() for part in parts]

    def all_reduce(self, *numbers: float) -> list[float]:
        """Return each number summed over all processes."""
        return [sum(parts) for parts in zip(*self.all_gather(numbers), strict=True)]

    def is_any(self, happened: bool) -> bool:
        """Return whether `happened` is true in any process."""
        return any(parts[0] for parts in self.all_gather([float(happened)]))

    def all_reduce_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Sum the gradients over all processes, for models that every process holds whole.

        This is not done inside the backward pass as `DistributedDataParallel` does. There, a
        process that runs out of memory would leave the others waiting for ever, and they could not
        agree on smaller micro-batches.
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
                or sum(gradient.numel() for gradient in waiting) + parameter.grad.numel()
                > BUCKET_SIZE
            ):
                _all_reduce_bucket(waiting)
                waiting = []
            waiting.append(parameter.grad)
        if waiting:
            _all_reduce_bucket(waiting)

    def broadcast_parameters(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Broadcast the first process's trained parameters to all processes."""
        if self.size == 1:
            return
        import torch.distributed as dist

        for parameter in parameters:
            if parameter.requires_grad:
                dist.broadcast(parameter.data, src=0)

    def take_turns(self) -> Iterable[bool]:
        """Yield once per process: True in the round that is this process's turn."""
        for turn in range(self.size):
            yield turn == self.rank
            self.barrier()

    def barrier(self) -> None:
        """Wait until every process has arrived."""
        self.is_any(False)

    def seed_dropout(self, seed: int) -> None:
        """Seed this process's dropout differently from the others'.

        The first process keeps the state that it would have as a single process.
        """
        if self.rank:
            import torch

            torch.manual_seed((seed + 7919 * self.rank) % 2**63)


SINGLE_PROCESS = ProcessGroup()


def join_process_group() -> ProcessGroup:
    """Return the process group of this process, and initialize it if necessary.

    It is an existing group, or the one that torchrun or `accelerate launch` describes in the
    environment; otherwise a group of one.
    """
    import torch
    import torch.distributed as dist

    if not dist.is_available():
        return SINGLE_PROCESS
    if not dist.is_initialized():
        if int(os.environ.get("WORLD_SIZE", "1")) < 2 or "RANK" not in os.environ:
            return SINGLE_PROCESS
        if get_device().type == "cuda":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        backend = "nccl" if get_device().type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=COLLECTIVE_TIMEOUT)
    return ProcessGroup(dist.get_rank(), dist.get_world_size())


def leave_process_group() -> None:
    """Close the group at the end of a process whose `join_process_group` opened it."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def _get_collective_device() -> torch.device:
    """Return the device on which this group's collective operations need their tensors."""
    import torch
    import torch.distributed as dist

    return get_device() if "nccl" in str(dist.get_backend()) else torch.device("cpu")


def _all_reduce_bucket(gradients: Sequence[torch.Tensor]) -> None:
    """All-reduce these gradients in one flat tensor."""
    import torch
    import torch.distributed as dist

    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    start = 0
    for gradient in gradients:
        gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
        start += gradient.numel()
