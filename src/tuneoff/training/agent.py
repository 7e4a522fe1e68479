"""Starts the processes of one training and ends them all when one ends badly:
`python -m tuneoff.training.agent COUNT FOLDER PARENT`, which is torchrun's own agent.

On SIGTERM, and when whoever started it is gone, it ends them too.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from tuneoff.files import write_text
from tuneoff.training.processes import FAILED, end_with_parent


def main() -> None:
    """Exits with 0 when all processes did."""
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    count, folder, parent = int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    end_with_parent(parent, lambda: os.kill(os.getpid(), signal.SIGTERM))
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
            "-m", "tuneoff.training.member", str(folder), str(os.getpid())
        )
    except ChildFailedError as error:
        # When one is killed the others fail for want of it, perhaps noticed first.
        rank, failure = min(
            error.failures.items(), key=lambda each: (each[1].exitcode >= 0, each[1].timestamp)
        )
        write_text(folder / FAILED, json.dumps([rank, failure.exitcode]))
        sys.exit(1)
    except SignalException:
        sys.exit(1)


if __name__ == "__main__":
    main()
