"""Free memory respects the limits of the groups that a process lies in."""

from __future__ import annotations

from pathlib import Path

import torch

from tuneoff.models import memory


def write(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")


def test_the_tightest_limit_above_the_process_counts(tmp_path: Path) -> None:
    write(tmp_path, memory__max="max", memory__current=5, memory__stat="")
    write(tmp_path / "a", memory__max=1000, memory__current=400, memory__stat="inactive_file 100")
    write(tmp_path / "a" / "b", memory__max=5000, memory__current=300, memory__stat="anon 5")
    (tmp_path / "own").write_text("0::/a/b\n")
    assert sorted(memory._find_cgroup_free(tmp_path, tmp_path / "own")) == [700, 4700]


def test_version_1_is_read_too(tmp_path: Path) -> None:
    write(
        tmp_path / "memory" / "a",
        memory__limit_in_bytes=900,
        memory__usage_in_bytes=1000,
        memory__stat="total_inactive_file 0",
    )
    (tmp_path / "own").write_text("4:memory:/a\n3:cpu:/a\n0::/\n")
    assert list(memory._find_cgroup_free(tmp_path, tmp_path / "own")) == [0]


def test_without_groups_there_is_no_limit(tmp_path: Path) -> None:
    assert list(memory._find_cgroup_free(tmp_path, tmp_path / "none")) == []


def test_something_is_free_here() -> None:
    assert 0 < memory.measure_available_bytes(torch.device("cpu")) < 2**50
