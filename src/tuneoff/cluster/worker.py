"""The code that runs on a worker: it trains, answers and measures as on a single machine.

A worker has a temporary folder. It starts with the training's state from storage, stores every
checkpoint, and returns answers as they are made. Errors are returned as values, because the driver
could not unpickle an exception of a library that it lacks.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tuneoff.cluster.storage import TrainingStorage
from tuneoff.contenders.base import ContenderContext, describe_prompts, load_contender
from tuneoff.errors import ContenderError, TuneoffError
from tuneoff.models import loading
from tuneoff.models.head import ignore_tie_warnings
from tuneoff.models.loading import release_memory
from tuneoff.progress import SilentProgress, Step
from tuneoff.records import Example, Prediction, PromptRecord, ServingRecord
from tuneoff.storage.run_dir import ContenderDir

# Prefix of the workers' folders; the process id of the user follows.
SCRATCH_PREFIX = "tuneoff-worker-"


@dataclass(frozen=True, slots=True)
class WorkerTask:
    """A task for a worker."""

    settings: Any
    work: ContenderContext
    storage: str
    """URL or folder of the storage."""
    key: str
    """Key of its training in storage; empty: nothing is stored."""
    number: int = 0
    """Number of this try."""
    board: Any = None
    """Actor that collects progress; None: report nothing."""
    most_at_once: int | None = None
    """Maximum tokens of a micro-batch, as in `tune`."""


@dataclass(frozen=True, slots=True)
class WorkerFailure:
    """What went wrong, in one sentence."""

    text: str
    most_tokens: int | None = None
    """Maximum tokens of a micro-batch to try next; None: trying again does not help."""


class ProgressActor:
    """A Ray actor that collects the workers' reports for the driver."""

    def __init__(self) -> None:
        self._news: list[tuple[str, str, Any]] = []

    def add(self, name: str, kind: str, value: Any) -> None:
        """Add a report."""
        self._news.append((name, kind, value))

    def drain(self) -> list[tuple[str, str, Any]]:
        """Return the reports since the last call."""
        news, self._news = self._news, []
        return news


class RemoteProgress(SilentProgress):
    """Progress that is reported to the actor: at most one step a second, and the last one."""

    EVERY_SECONDS = 1.0

    def __init__(self, board: Any, name: str) -> None:
        self._board, self._name = board, name

    def say(self, line: str) -> None:
        """Report a line."""
        self._board.add.remote(self._name, "say", line)

    def stage(self, title: str, total: int) -> Step:
        """Return a function that reports the steps of a stage."""
        last = 0.0

        def step(done: int, note: str = "") -> None:
            nonlocal last
            if done >= total or time.monotonic() - last >= self.EVERY_SECONDS:
                last = time.monotonic()
                self._board.add.remote(self._name, "step", (title, total, done, note))

        return step


def tune(errand: WorkerTask) -> WorkerFailure | None:
    """Run one training from its stored state to its end; return the failure, if any."""
    try:
        with _open_workspace(errand) as (settings, work, storage):
            load_contender(settings.id).tune(settings, work)
            storage.push(errand.key, errand.number, work.directory.path)
    except Exception as error:
        return build_failure(error)
    return None


def tune_in_group(config: dict[str, Any]) -> None:
    """Run one training as a process of a group.

    An error of the training itself is also reported to the actor, unlike the loss of a process.

    Raises:
        Exception: any error of the training.
    """
    import torch
    from ray.train.torch import get_device

    from tuneoff.training.distributed.process_group import join_process_group

    errand: WorkerTask = config["errand"]
    if torch.cuda.is_available():
        torch.cuda.set_device(get_device())
    group = join_process_group()
    if not group.is_first:
        errand = replace(errand, board=None)
    try:
        with _open_workspace(errand) as (settings, work, storage):
            load_contender(settings.id).tune(settings, work)
            if group.is_first:
                storage.push(errand.key, errand.number, work.directory.path)
            group.barrier()
    except TuneoffError as error:
        _report_failure(config["errand"], build_failure(error))
        raise


def _report_failure(errand: WorkerTask, failed: WorkerFailure) -> None:
    """Report a failure and wait for delivery, because this process may be ended next."""
    import ray

    with contextlib.suppress(ray.exceptions.RayError):
        ray.get(errand.board.add.remote(errand.settings.name, "failed", failed))


def answer(
    errand: WorkerTask, examples: Sequence[Example]
) -> Iterator[list[Prediction] | WorkerFailure]:
    """Yield answers as they are made; a failure comes last."""
    try:
        with _open_workspace(errand, "checkpoints") as (settings, work, _):
            yield from load_contender(settings.id).answer(settings, work, examples)
    except Exception as error:
        yield build_failure(error)


def measure(
    errand: WorkerTask, answered: Sequence[Prediction]
) -> tuple[ServingRecord | None, WorkerFailure | None]:
    """Measure how fast the model answers here; its answers to the test set are given."""
    try:
        with _open_workspace(errand, "checkpoints") as (settings, work, _):
            kind: Any = load_contender(settings.id)
            work.directory.append_predictions(answered)
            return kind.serving(settings, work), None
    except Exception as error:
        return None, build_failure(error)


def build_prompt_record(errand: WorkerTask) -> PromptRecord | WorkerFailure:
    """Describe the test prompts on a machine that has the base model and its tokenizer."""
    try:
        return describe_prompts(load_contender(errand.settings.id), errand.settings, errand.work)
    except Exception as error:
        return build_failure(error)


def can_see(path: str) -> bool:
    """Return whether a file can be seen from here."""
    return Path(path).exists()


@contextlib.contextmanager
def _open_workspace(
    errand: WorkerTask, without: str | None = None
) -> Iterator[tuple[Any, ContenderContext, TrainingStorage]]:
    """Open a folder with the stored state, and yield the settings, the context and the storage.

    Afterwards it releases the disk space and the accelerator's memory, because the next task may
    run in another process.

    Raises:
        ContenderError: the stored state cannot be seen from here.
    """
    _silence_warnings()
    _remove_leftovers()
    storage = TrainingStorage(errand.storage)
    progress = (
        RemoteProgress(errand.board, errand.settings.name) if errand.board else SilentProgress()
    )
    with tempfile.TemporaryDirectory(prefix=f"{SCRATCH_PREFIX}{os.getpid()}-") as name:
        directory = ContenderDir(Path(name) / errand.work.directory.path.name)
        if not errand.key:
            directory.path.mkdir()
        elif not storage.pull(errand.key, directory.path, without):
            raise ContenderError(
                f"{errand.storage} is not seen from {socket.gethostname()}; give a --storage that "
                "every machine of the cluster reaches."
            )

        def keep() -> None:
            """Store the current state."""
            storage.push(errand.key, errand.number, directory.path)

        work = replace(
            errand.work, directory=directory, progress=progress, keep=keep,
            most_at_once=errand.most_at_once,
        )  # fmt: skip
        try:
            yield errand.settings, work, storage
        finally:
            loading.drop_cached_base()
            release_memory()


def _remove_leftovers() -> None:
    """Delete the folders of killed processes on this machine."""
    for left in Path(tempfile.gettempdir()).glob(f"{SCRATCH_PREFIX}*"):
        process = left.name.removeprefix(SCRATCH_PREFIX).split("-")[0]
        if process.isdecimal() and not Path(f"/proc/{process}").exists():
            shutil.rmtree(left, ignore_errors=True)


def _silence_warnings() -> None:
    """Silence library warnings and progress bars."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)
    ignore_tie_warnings()


def build_failure(error: Exception) -> WorkerFailure:
    """Return an error as a failure that the driver can read."""
    most: int | None = getattr(error, "most_tokens", None)
    if isinstance(error, TuneoffError):
        return WorkerFailure(str(error), most)
    first = (str(error).strip() or "no message").splitlines()[0]
    return WorkerFailure(f"{type(error).__name__}: {first}", most)
