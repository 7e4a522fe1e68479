"""One training in several processes of this machine: how many, started and watched over.

`tune` calls this where the process is alone and its settings want several. An agent process
(`agent.py`, torchrun's own) starts them; each calls `tune` again (`member.py`) and finds
itself in a group. What they say comes back through a file, line by line. Whatever ends one of
them ends all, and the training goes on from its last checkpoint when it is run again.
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
from tuneoff.contender_settings import LocalSettings
from tuneoff.errors import ConfigError, ContenderError, TuneoffError
from tuneoff.files import write_text
from tuneoff.models.loading import device
from tuneoff.prompts import Template
from tuneoff.records import Example, TrainingRecord
from tuneoff.rundir import ContenderDir

if TYPE_CHECKING:
    from tuneoff.training.saving import OnEpoch
    from tuneoff.training.trainer import Say
    from tuneoff.training.watch import OnStep

# Below the contender's folder; kept after a failure, for its logs.
FOLDER = "processes"
JOB, TOLD, ERROR, FAILED = "job.pickle", "told.jsonl", "error.json", "failed.json"
LOOK_SECONDS = 0.1
# What torchrun gives processes to end by themselves (30), and a little.
END_SECONDS = 40


@dataclass(frozen=True, slots=True)
class Job:
    """What the processes are to do: the arguments of `tune`. `most`: tokens at once at most."""

    settings: LocalSettings
    base: str
    train: Sequence[Example]
    validation: Sequence[Example]
    template: Template
    path: Path
    epochs: bool
    most: int | None = None


def processes(settings: LocalSettings, say: Say) -> int:
    """How many processes train a contender here.

    Raises:
        ConfigError: fewer accelerators are here than are asked for by name.
    """
    import torch

    asked = settings.hardware.count if settings.hardware else 1
    here = torch.cuda.device_count() if device().type == "cuda" else 0
    if here >= asked or asked == 1:
        return asked
    if settings.train.parallel == "auto":
        say(
            f"{settings.name}: hardware.count is {asked} and this machine has {_counted(here)}, "
            "so it trains on one device."
        )
        return 1
    if here:
        raise ConfigError(
            f"contender {settings.name}: train.parallel: {settings.train.parallel} over "
            f"hardware.count {asked} needs as many accelerators, and this machine has "
            f"{_counted(here)}; lower the count."
        )
    return asked  # on the processor, each with its part of the cores


def in_processes(
    count: int, job: Job, on_step: OnStep | None, say: Say, on_epoch: OnEpoch | None
) -> TrainingRecord:
    """Trains in `count` processes, and is through when all of them are.

    Raises:
        TuneoffError: what one of them raised.
        ContenderError: one of them ended in another way.
    """
    directory = ContenderDir(job.path)
    folder = (job.path / FOLDER).resolve()
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / JOB).write_bytes(pickle.dumps(job))
        _run(count, folder, on_step, say, on_epoch)
        most = _asked_to_begin_again(folder)
        if most is None:
            break
        say(
            f"out of memory: now at most {most} tokens are computed at once; the training goes on "
            "from its last checkpoint."
        )
        job = replace(job, most=most)
    record = directory.training()
    # Complete is complete: what goes wrong at a process's end afterwards takes nothing away.
    if record is None or directory.weights() is None:
        raise _error(job.settings.name, count, folder)
    shutil.rmtree(folder, ignore_errors=True)
    return record


def _run(
    count: int, folder: Path, on_step: OnStep | None, say: Say, on_epoch: OnEpoch | None
) -> None:
    """Starts the agent and hands on what is told until it ends. Whatever ends this
    (Ctrl-C, an error of a callback) ends all processes first."""
    cores = max(1, (os.cpu_count() or 1) // count)
    environment = {
        "OMP_NUM_THREADS": str(cores),
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONFAULTHANDLER": "1",  # where a process was that a signal ended, into its log
        **os.environ,
    }
    # A session of its own: Ctrl-C is this process's alone, which then ends the others in order.
    with (folder / "agent.log").open("wb") as log:
        agent = subprocess.Popen(
            [sys.executable, "-m", "tuneoff.training.agent", str(count), str(folder),
             str(os.getpid())],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
            start_new_session=True,
        )  # fmt: skip
    told = _lines(folder / TOLD)
    try:
        while True:
            ended = agent.poll() is not None
            for kind, value in next(told):
                if kind == "say":
                    say(value)
                elif kind == "step" and on_step is not None:
                    on_step(*value)
                elif kind == "epoch" and on_epoch is not None:
                    on_epoch(value)
                    heard(folder, value).touch()
            if ended:
                return
            time.sleep(LOOK_SECONDS)
    finally:
        _end(agent)


def heard(folder: Path, step: int) -> Path:
    """The file that says that an epoch's end was heard of; until then training waits."""
    return folder / f"epoch-{step}.heard"


def _lines(file: Path) -> Iterator[list[tuple[str, Any]]]:
    """Whole lines written since the last look."""
    place = 0
    while True:
        found = []
        if file.exists():
            with file.open("rb") as stream:
                stream.seek(place)
                for line in stream:
                    if not line.endswith(b"\n"):
                        break
                    place += len(line)
                    found += json.loads(line).items()
        yield found


def _end(agent: subprocess.Popen[bytes]) -> None:
    """Ends the agent, which ends its processes; they watch over it in case it cannot."""
    if agent.poll() is not None:
        return
    agent.terminate()
    try:
        agent.wait(END_SECONDS)
    except BaseException:
        agent.kill()
        agent.wait()
        raise


def _asked_to_begin_again(folder: Path) -> int | None:
    file = folder / ERROR
    most = json.loads(file.read_bytes()).get("most_tokens") if file.exists() else None
    return None if most is None else int(most)


def write_error(folder: Path, error: TuneoffError) -> None:
    """Notes what a process raised, for the one that started it all."""
    facts = {
        "class": type(error).__name__,
        "message": str(error),
        "most_tokens": getattr(error, "most_tokens", None),
    }
    write_text(folder / ERROR, json.dumps(facts))


def _error(name: str, count: int, folder: Path) -> TuneoffError:
    if (folder / ERROR).exists():
        facts = json.loads((folder / ERROR).read_bytes())
        kind = getattr(errors, facts["class"], ContenderError)
        if issubclass(kind, errors.MissingExtraError):
            kind = errors.UserError  # the sentence is made already
        found: TuneoffError = kind(facts["message"])
        return found
    if not (folder / FAILED).exists():
        return ContenderError(
            f"contender {name}: its {count} processes could not be started; see "
            f"{folder / 'agent.log'}."
        )
    rank, code = json.loads((folder / FAILED).read_bytes())
    how = f"was killed ({signal.Signals(-code).name})" if code < 0 else f"ended with code {code}"
    return ContenderError(
        f"contender {name}: process {rank} of its {count} (0 to {count - 1}) {how}, and the "
        f"training with it; see {log_file(folder, rank)}; run again, it goes on from its last "
        "checkpoint."
    )


def log_file(folder: Path, rank: int) -> Path:
    """What a process and its libraries wrote."""
    return folder / f"process-{rank}.log"


def end_with_parent(parent: int, end: Callable[[], None]) -> None:
    """Calls `end` when the process that started this one is gone, however and whenever it went."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_SECONDS)
        end()

    threading.Thread(target=watch, daemon=True).start()


def _counted(here: int) -> str:
    if not here:
        return "no accelerator"
    return "1 accelerator" if here == 1 else f"{here} accelerators"
