"""What a run was made on, with and when: machine, versions and day, no host or user names."""

from __future__ import annotations

import datetime
import os
import platform
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

PACKAGES = (
    "tuneoff",
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "bitsandbytes",
    "sqlglot",
    "vllm",
)


def now() -> datetime.datetime:
    """Return the time it is, in UTC. All code reads the clock's day here and in `today`."""
    return datetime.datetime.now(datetime.UTC)


def today() -> datetime.date:
    """Return the day it is where this machine stands; prices and models' ends go by it."""
    return now().astimezone().date()


def describe() -> str:
    """For instance `AMD EPYC, 2 cores, 24 GiB, Linux`; with the accelerator if any."""
    return ", ".join(_parts())


def accelerator() -> str | None:
    """The name of the accelerator that models are computed on; None where the processor is."""
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def is_accelerator(named: str, here: str | None) -> bool:
    """Whether an accelerator's name in a price book (`A100 80GB`) means the one that a driver
    calls, for instance, `NVIDIA A100-SXM4-80GB`."""
    return here is not None and _words(named) - {"sxm"} <= _words(here)


def _words(name: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", name.lower()))


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _parts() -> Iterator[str]:
    yield _processor()
    yield f"{os.cpu_count()} cores"
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        yield f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB"
    yield platform.system()
    import torch

    if torch.cuda.is_available():
        yield f"{torch.cuda.device_count()} × {torch.cuda.get_device_name(0)}"


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
