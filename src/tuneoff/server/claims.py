"""Who works on which job, as every process of a data directory sees it.

Each job has a byte of `worker.lock`; who works on the job holds the byte. The system gives it
back when a process ends, however it ends, so nothing is left to be cleared up after a kill.
"""

from __future__ import annotations

import fcntl
from pathlib import Path

# Jobs are numbered from 1; this is the claim of whoever answers batches.
BATCHES = 0


class Claims:
    """One process's hold on jobs; there must be one in a process, for as long as it lives (the
    system drops a process's locks of a file when it closes the file anywhere)."""

    def __init__(self, data_dir: Path) -> None:
        self._file = (data_dir / "worker.lock").open("ab")

    def take(self, number: int) -> bool:
        """Whether no other process works on this job, and none will until it is freed."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
        except (BlockingIOError, PermissionError):  # systems differ in which
            return False
        return True

    def free(self, number: int) -> None:
        """Others may work on it."""
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, number)

    def close(self) -> None:
        """Frees everything."""
        self._file.close()
