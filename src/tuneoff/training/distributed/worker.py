"""One of the processes of a training: `python -m tuneoff.training.distributed.worker FOLDER AGENT`,
with torchrun's environment. It calls `tune` with the job stored in the folder."""

from __future__ import annotations

import os
import pickle
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from tuneoff.errors import TuneoffError
from tuneoff.models.head import ignore_tie_warnings
from tuneoff.storage.files import append_lines
from tuneoff.storage.run_dir import ContenderDir
from tuneoff.training.distributed import launcher


def main() -> None:
    """Train, and exit with 0 when done or 1 after an error that was written down."""
    folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
    log = os.open(launcher.get_log_file(folder, rank), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    # The agent ends its processes; one that was killed itself cannot.
    launcher.watch_parent(int(sys.argv[2]), lambda: os._exit(1))
    warnings.filterwarnings("ignore", category=FutureWarning)
    ignore_tie_warnings()
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    # Unpickling is safe: the launching process wrote this below its own run directory.
    job: launcher.DistributedJob = pickle.loads((folder / launcher.JOB_FILE).read_bytes())
    try:
        _tune(folder, job, rank == 0)
    except TuneoffError as error:
        launcher.write_error(folder, error)
        print(f"error: {error}", file=sys.stderr, flush=True)
        # Exit at once: an orderly exit would wait for processes that wait for this one.
        os._exit(1)


def _tune(folder: Path, job: launcher.DistributedJob, first: bool) -> None:
    """Run the job; the first process reports steps, lines and epochs to the launcher."""
    from tuneoff.training.distributed import process_group
    from tuneoff.training.fine_tune import tune

    def tell(kind: str, value: Any) -> None:
        if first:
            append_lines(folder / launcher.MESSAGES_FILE, [{kind: value}])

    def on_epoch(step: int) -> None:
        tell("epoch", step)
        # Wait for the acknowledgement: training must not be resumable beyond an epoch that was not
        # reported.
        while first and not launcher.get_epoch_ack_file(folder, step).exists():
            time.sleep(launcher.POLL_SECONDS)

    tune(
        job.settings, job.base, job.train, job.validation, job.template, ContenderDir(job.path),
        lambda *step: tell("step", step),
        lambda line: tell("say", line),
        on_epoch if job.epochs else None,
        most_at_once=job.most,
    )  # fmt: skip
    process_group.leave_process_group()


if __name__ == "__main__":
    main()
