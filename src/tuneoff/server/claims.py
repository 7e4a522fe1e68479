"""Locks on jobs, shared by all processes that use one data directory.

Each job has one byte of `worker.lock`. The process that works on the job holds a lock on that byte.
The operating system releases it when the process ends, however it ends, so nothing must be cleaned
up after a kill.
"""

from __future__ import annotations

import fcntl
from pathlib import Path

# Jobs are numbered from 1; this lock belongs to the process that answers batches.
BATCH_LOCK = 0


class JobLocks:
    """The job locks that this process holds.

    There must be only one instance in a process, kept as long as the process lives: the system
    drops all of a process's locks on a file when the process closes that file anywhere.
    """

    def __init__(self, data_dir: Path) -> None:
        self._file = (data_dir / "worker.lock").open("ab")

    def take(self, number: int) -> bool:
        """Try to lock a job; return whether this process holds it now."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
        except (BlockingIOError, PermissionError):  # systems differ in which one they raise
            return False
        return True

    def free(self, number: int) -> None:
        """Release the lock on a job."""
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, number)

    def close(self) -> None:
        """Release all locks."""
        self._file.close()
