"""Measures peak memory in bytes: the accelerator's, or else this process's."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

STATUS_FILE, CLEAR_REFS_FILE = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_peak_memory() -> None:
    """Start a new measurement where the system can (Linux, CUDA)."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        # "5" resets the high-water mark of resident memory (proc(5)).
        CLEAR_REFS_FILE.write_text("5")


def measure_peak_bytes() -> int:
    """Return the peak since `reset_peak_memory`: allocated on CUDA, else resident memory."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    with contextlib.suppress(OSError):
        for line in STATUS_FILE.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
