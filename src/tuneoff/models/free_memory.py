"""Measures the memory that is free now, in bytes.

That is the accelerator's memory, or this process's share of main memory. A container (cgroup) may
limit the share far below what the machine has.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
# (limit, used, the line of memory.stat that is reclaimable) in cgroup versions 2 and 1.
VERSION_2 = ("memory.max", "memory.current", "inactive_file")
VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def measure_available_bytes(device: torch.device | None = None) -> int:
    """Return the free bytes of a device (None or the CPU: main memory)."""
    if device is not None and device.type == "cuda":
        import torch

        free, _ = torch.cuda.mem_get_info(device)
        # Memory that PyTorch has reserved and does not use is free for PyTorch.
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    import psutil  # type: ignore[import-untyped]

    return min([int(psutil.virtual_memory().available), *_find_cgroup_free()])


def _find_cgroup_free(root: Path = CGROUPS, own: Path = OWN_CGROUPS) -> Iterator[int]:
    """Yield the free bytes below each memory limit that applies to this process."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            names, top = VERSION_2, root
        elif "memory" in controllers.split(","):
            names, top = VERSION_1, root / "memory"
        else:
            continue
        below = path.strip("/")
        parts = Path(below).parts
        for depth in range(len(parts), -1, -1):
            room = _read_free_bytes(top.joinpath(*parts[:depth]), *names)
            if room is not None:
                yield room


def _read_free_bytes(folder: Path, limit: str, used: str, reclaimable: str) -> int | None:
    """Return the free bytes below one cgroup's limit; None if it has none."""
    try:
        most, now = (folder / limit).read_text().strip(), int((folder / used).read_text())
        lines = (folder / "memory.stat").read_text().splitlines()
    except (OSError, ValueError):
        return None
    if not most.isdigit():
        return None  # "max": no limit here
    cached = sum(int(line.split()[1]) for line in lines if line.split()[0] == reclaimable)
    return max(0, int(most) - now + cached)
