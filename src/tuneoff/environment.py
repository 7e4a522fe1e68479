"""The environment of a run: time, versions and machine, without host or user names."""

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
    """Return the present time, in UTC. All code reads the clock's day here and in `today`."""
    return datetime.datetime.now(datetime.UTC)


def today() -> datetime.date:
    """Return today's date in this machine's time zone. Prices and end dates go by it."""
    return now().astimezone().date()


def describe_machine() -> str:
    """Return the machine in words, for instance `AMD EPYC, 2 cores, 24 GiB, Linux`."""
    return ", ".join(_list_parts())


def get_accelerator() -> str | None:
    """Return the name of the accelerator that computes; None where the CPU does."""
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def is_accelerator(named: str, here: str | None) -> bool:
    """Return whether a price book's name of an accelerator means the one of this machine.

    Args:
        named: the book's name, for instance `A100 80GB`.
        here: the driver's name, for instance `NVIDIA A100-SXM4-80GB`.
    """
    return here is not None and _split_words(named) - {"sxm"} <= _split_words(here)


def _split_words(name: str) -> set[str]:
    """Return the words of a name, in lower case."""
    return set(re.findall(r"[a-z0-9]+", name.lower()))


def read_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that numbers depend on."""
    installed = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return installed


def _list_parts() -> Iterator[str]:
    """Yield the parts of the machine's description, the accelerator included."""
    yield _read_processor()
    yield f"{os.cpu_count()} cores"
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        yield f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB"
    yield platform.system()
    import torch

    if torch.cuda.is_available():
        yield f"{torch.cuda.device_count()} × {torch.cuda.get_device_name(0)}"


def _read_processor() -> str:
    """Return the name of the CPU."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
