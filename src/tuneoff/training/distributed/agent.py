"""Starts the processes of one training and stops all of them when one fails.

Run as `python -m tuneoff.training.distributed.agent COUNT FOLDER PARENT`; it is torchrun's own
agent. It also stops them on SIGTERM and when its parent process is gone.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from tuneoff.storage.files import write_text
from tuneoff.training.distributed.launcher import FAILURE_FILE, watch_parent


def main() -> None:
    """Run the processes and exit with 0 when all of them succeed."""
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    count, folder, parent = int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    watch_parent(parent, lambda: os.kill(os.getpid(), signal.SIGTERM))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=folder.parent.name,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(log_dir=str(folder / "torchrun")),
    )
    try:
        elastic_launch(config, sys.executable)(
            "-m", "tuneoff.training.distributed.worker", str(folder), str(os.getpid())
        )
    except ChildFailedError as error:
        # When one process is killed the others fail too, and their failure may be noticed first.
        rank, failure = min(
            error.failures.items(), key=lambda each: (each[1].exitcode >= 0, each[1].timestamp)
        )
        write_text(folder / FAILURE_FILE, json.dumps([rank, failure.exitcode]))
        sys.exit(1)
    except SignalException:
        sys.exit(1)


if __name__ == "__main__":
    main()
