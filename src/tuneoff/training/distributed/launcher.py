"""Launches one training in several processes of this machine and watches over them.

`tune` calls this in a single process whose settings ask for several. An agent process (`agent.py`,
torchrun's own) starts them; each calls `tune` again (`worker.py`) and joins a group. They report
through a file, line by line. When one process ends early all are stopped, and the next run resumes
from the last checkpoint.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneoff import errors
from tuneoff.config.contenders import LocalConfig
from tuneoff.errors import ConfigError, ContenderError, TuneoffError
from tuneoff.models.loading import get_device
from tuneoff.prompts import Template
from tuneoff.records import Example, TrainingRecord
from tuneoff.storage.files import write_text
from tuneoff.storage.run_dir import ContenderDir

if TYPE_CHECKING:
    from tuneoff.training.callbacks import OnStep
    from tuneoff.training.checkpoints import OnEpoch
    from tuneoff.training.trainer import Say

# Below the contender's folder; kept after a failure, for its logs.
PROCESSES_DIR = "processes"
JOB_FILE, MESSAGES_FILE, ERROR_FILE, FAILURE_FILE = (
    "job.pickle",
    "told.jsonl",
    "error.json",
    "failed.json",
)
POLL_SECONDS = 0.1
# Seconds: torchrun's own grace period (30) and some more.
SHUTDOWN_SECONDS = 40


@dataclass(frozen=True, slots=True)
class DistributedJob:
    """The arguments of `tune` for the training processes."""

    settings: LocalConfig
    base: str
    train: Sequence[Example]
    validation: Sequence[Example]
    template: Template
    path: Path
    epochs: bool
    """Whether epochs are reported and their weights kept."""
    most: int | None = None
    """Maximum tokens of one forward pass; None: as memory allows."""


def count_processes(settings: LocalConfig, say: Say) -> int:
    """Return the number of processes that train a contender here.

    Raises:
        ConfigError: this machine has fewer accelerators than the file asks for.
    """
    import torch

    asked = settings.hardware.count if settings.hardware else 1
    here = torch.cuda.device_count() if get_device().type == "cuda" else 0
    if here >= asked or asked == 1:
        return asked
    if settings.train.parallel == "auto":
        say(
            f"{settings.name}: hardware.count is {asked} and this machine has "
            f"{_format_accelerators(here)}, "
            "so it trains on one device."
        )
        return 1
    if here:
        raise ConfigError(
            f"contender {settings.name}: train.parallel: {settings.train.parallel} over "
            f"hardware.count {asked} needs as many accelerators, and this machine has "
            f"{_format_accelerators(here)}; lower the count."
        )
    return asked  # on the processor, each with its part of the cores


def run_in_processes(
    count: int, job: DistributedJob, on_step: OnStep | None, say: Say, on_epoch: OnEpoch | None
) -> TrainingRecord:
    """Train in `count` processes and return the record when all are done.

    Raises:
        TuneoffError: the error that one of them raised.
        ContenderError: one of them ended in another way.
    """
    directory = ContenderDir(job.path)
    folder = (job.path / PROCESSES_DIR).resolve()
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / JOB_FILE).write_bytes(pickle.dumps(job))
        _run_agent(count, folder, on_step, say, on_epoch)
        most = _read_lowered_limit(folder)
        if most is None:
            break
        say(
            f"out of memory: now at most {most} tokens are computed at once; the training goes on "
            "from its last checkpoint."
        )
        job = replace(job, most=most)
    record = directory.training()
    # A complete training counts, even if a process fails while it exits.
    if record is None or directory.weights() is None:
        raise _build_error(job.settings.name, count, folder)
    shutil.rmtree(folder, ignore_errors=True)
    return record


def _run_agent(
    count: int, folder: Path, on_step: OnStep | None, say: Say, on_epoch: OnEpoch | None
) -> None:
    """Run the agent until it ends and pass on the processes' messages.

    Whatever ends this early (Ctrl-C, an error of a callback) stops all processes first.
    """
    cores = max(1, (os.cpu_count() or 1) // count)
    environment = {
        "OMP_NUM_THREADS": str(cores),
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONFAULTHANDLER": "1",  # where a process was that a signal ended, into its log
        **os.environ,
    }
    # A session of its own: only this process gets Ctrl-C, and stops the others in order.
    with (folder / "agent.log").open("wb") as log:
        agent = subprocess.Popen(
            [sys.executable, "-m", "tuneoff.training.distributed.agent", str(count), str(folder),
             str(os.getpid())],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
            start_new_session=True,
        )  # fmt: skip
    messages = _read_new_messages(folder / MESSAGES_FILE)
    try:
        while True:
            ended = agent.poll() is not None
            for kind, value in next(messages):
                if kind == "say":
                    say(value)
                elif kind == "step" and on_step is not None:
                    on_step(*value)
                elif kind == "epoch" and on_epoch is not None:
                    on_epoch(value)
                    get_epoch_ack_file(folder, value).touch()
            if ended:
                return
            time.sleep(POLL_SECONDS)
    finally:
        _stop_agent(agent)


def get_epoch_ack_file(folder: Path, step: int) -> Path:
    """Return the file that acknowledges an epoch's end; training waits for it."""
    return folder / f"epoch-{step}.heard"


def _read_new_messages(file: Path) -> Iterator[list[tuple[str, Any]]]:
    """Yield the messages of complete lines written since the last read."""
    offset = 0
    while True:
        messages = []
        if file.exists():
            with file.open("rb") as stream:
                stream.seek(offset)
                for line in stream:
                    if not line.endswith(b"\n"):
                        break
                    offset += len(line)
                    messages += json.loads(line).items()
        yield messages


def _stop_agent(agent: subprocess.Popen[bytes]) -> None:
    """Stop the agent, which stops its processes; they exit without it, too."""
    if agent.poll() is not None:
        return
    agent.terminate()
    try:
        agent.wait(SHUTDOWN_SECONDS)
    except BaseException:
        agent.kill()
        agent.wait()
        raise


def _read_lowered_limit(folder: Path) -> int | None:
    """Return the lower token limit that a process asked for; None if none did."""
    file = folder / ERROR_FILE
    most = json.loads(file.read_bytes()).get("most_tokens") if file.exists() else None
    return None if most is None else int(most)


def write_error(folder: Path, error: TuneoffError) -> None:
    """Write down the error of a process for the launcher."""
    facts = {
        "class": type(error).__name__,
        "message": str(error),
        "most_tokens": getattr(error, "most_tokens", None),
    }
    write_text(folder / ERROR_FILE, json.dumps(facts))


def _build_error(name: str, count: int, folder: Path) -> TuneoffError:
    """Return the error of a failed training, as one process wrote it or as the agent saw it."""
    if (folder / ERROR_FILE).exists():
        facts = json.loads((folder / ERROR_FILE).read_bytes())
        kind = getattr(errors, facts["class"], ContenderError)
        if issubclass(kind, errors.MissingExtraError):
            kind = errors.UserError  # the sentence is made already
        raised: TuneoffError = kind(facts["message"])
        return raised
    if not (folder / FAILURE_FILE).exists():
        return ContenderError(
            f"contender {name}: its {count} processes could not be started; see "
            f"{folder / 'agent.log'}."
        )
    rank, code = json.loads((folder / FAILURE_FILE).read_bytes())
    how = f"was killed ({signal.Signals(-code).name})" if code < 0 else f"ended with code {code}"
    return ContenderError(
        f"contender {name}: process {rank} of its {count} (0 to {count - 1}) {how}, and the "
        f"training with it; see {get_log_file(folder, rank)}; run again, it goes on from its last "
        "checkpoint."
    )


def get_log_file(folder: Path, rank: int) -> Path:
    """Return the file with the output of a process and its libraries."""
    return folder / f"process-{rank}.log"


def watch_parent(parent: int, end: Callable[[], None]) -> None:
    """Start a thread that calls `end` once the parent process is gone."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_SECONDS)
        end()

    threading.Thread(target=watch, daemon=True).start()


def _format_accelerators(here: int) -> str:
    """Return the number of accelerators in words."""
    if not here:
        return "no accelerator"
    return "1 accelerator" if here == 1 else f"{here} accelerators"
