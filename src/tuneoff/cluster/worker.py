"""What runs on a worker: training, answering and measuring, by the same code as on one machine.

A worker has a folder of its own for as long as it works. It begins with what was kept of the
training, keeps every checkpoint, and hands answers back as they come. Errors come back as
values: an exception of a library that the driver lacks could not be read there.
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

from tuneoff.cluster.storage import Storage
from tuneoff.contenders import Work, describe_prompts, load_contender
from tuneoff.errors import ContenderError, TuneoffError
from tuneoff.models import bases
from tuneoff.models.head import ignore_tie_warnings
from tuneoff.models.loading import release_memory
from tuneoff.progress import Silent, Step
from tuneoff.records import Example, Prediction, PromptRecord, ServingRecord
from tuneoff.rundir import ContenderDir

# Of the folders that workers work in; the process that uses one follows.
SCRATCH = "tuneoff-worker-"


@dataclass(frozen=True, slots=True)
class Errand:
    """What a worker is to do it for. `key` is where its training is kept (empty: nothing is),
    `number` the try; `board` an actor that hears the news; `most_at_once` as `tune` takes it."""

    settings: Any
    work: Work
    storage: str
    key: str
    number: int = 0
    board: Any = None
    most_at_once: int | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong, in one sentence; `most_tokens` where less at once might do."""

    text: str
    most_tokens: int | None = None


class Board:
    """An actor that hears what workers say, until the driver takes it."""

    def __init__(self) -> None:
        self._news: list[tuple[str, str, Any]] = []

    def tell(self, name: str, kind: str, value: Any) -> None:
        self._news.append((name, kind, value))

    def take(self) -> list[tuple[str, str, Any]]:
        news, self._news = self._news, []
        return news


class Told(Silent):
    """Progress that is told on the board; of steps one a second, and the last one."""

    EVERY_SECONDS = 1.0

    def __init__(self, board: Any, name: str) -> None:
        self._board, self._name = board, name

    def say(self, line: str) -> None:
        self._board.tell.remote(self._name, "say", line)

    def stage(self, title: str, total: int) -> Step:
        last = 0.0

        def step(done: int, note: str = "") -> None:
            nonlocal last
            if done >= total or time.monotonic() - last >= self.EVERY_SECONDS:
                last = time.monotonic()
                self._board.tell.remote(self._name, "step", (title, total, done, note))

        return step


def tune(errand: Errand) -> Failure | None:
    """One training, from what was kept of it to its end."""
    try:
        with _at_work(errand) as (settings, work, storage):
            load_contender(settings.id).tune(settings, work)
            storage.push(errand.key, errand.number, work.directory.path)
    except Exception as error:
        return failure(error)
    return None


def tune_together(config: dict[str, Any]) -> None:
    """The same as one of a group of processes. What another than the death of one of them went
    wrong is told on the board.

    Raises:
        Exception: whatever went wrong.
    """
    import torch
    from ray.train.torch import get_device

    from tuneoff.training.group import join

    errand: Errand = config["errand"]
    if torch.cuda.is_available():
        torch.cuda.set_device(get_device())
    group = join()
    if not group.first:
        errand = replace(errand, board=None)
    try:
        with _at_work(errand) as (settings, work, storage):
            load_contender(settings.id).tune(settings, work)
            if group.first:
                storage.push(errand.key, errand.number, work.directory.path)
            group.wait()
    except TuneoffError as error:
        _tell(config["errand"], failure(error))
        raise


def _tell(errand: Errand, failed: Failure) -> None:
    """Tells, and waits until it was heard: this process may be ended next."""
    import ray

    with contextlib.suppress(ray.exceptions.RayError):
        ray.get(errand.board.tell.remote(errand.settings.name, "failed", failed))


def answer(errand: Errand, examples: Sequence[Example]) -> Iterator[list[Prediction] | Failure]:
    """Answers as they come; a failure is the last thing that does."""
    try:
        with _at_work(errand, "checkpoints") as (settings, work, _):
            yield from load_contender(settings.id).answer(settings, work, examples)
    except Exception as error:
        yield failure(error)


def measure(
    errand: Errand, answered: Sequence[Prediction]
) -> tuple[ServingRecord | None, Failure | None]:
    """How fast the model answers here; its answers to the test set are known."""
    try:
        with _at_work(errand, "checkpoints") as (settings, work, _):
            kind: Any = load_contender(settings.id)
            work.directory.append_predictions(answered)
            return kind.serving(settings, work), None
    except Exception as error:
        return None, failure(error)


def prompt_record(errand: Errand) -> PromptRecord | Failure:
    """Describe the test prompts where the base, and so its tokenizer, is."""
    try:
        return describe_prompts(load_contender(errand.settings.id), errand.settings, errand.work)
    except Exception as error:
        return failure(error)


def sees(path: str) -> bool:
    """Whether a file is seen from here."""
    return Path(path).exists()


@contextlib.contextmanager
def _at_work(errand: Errand, without: str | None = None) -> Iterator[tuple[Any, Work, Storage]]:
    """A folder with what was kept, and the work in it. Afterwards nothing is held that the next
    one, perhaps in another process, would want: neither disk nor an accelerator's memory.

    Raises:
        ContenderError: what was kept is not seen from here.
    """
    _quieten()
    _remove_left()
    storage = Storage(errand.storage)
    progress = Told(errand.board, errand.settings.name) if errand.board else Silent()
    with tempfile.TemporaryDirectory(prefix=f"{SCRATCH}{os.getpid()}-") as name:
        directory = ContenderDir(Path(name) / errand.work.directory.path.name)
        if not errand.key:
            directory.path.mkdir()
        elif not storage.pull(errand.key, directory.path, without):
            raise ContenderError(
                f"{errand.storage} is not seen from {socket.gethostname()}; give a --storage that "
                "every machine of the cluster reaches."
            )

        def keep() -> None:
            storage.push(errand.key, errand.number, directory.path)

        work = replace(
            errand.work, directory=directory, progress=progress, keep=keep,
            most_at_once=errand.most_at_once,
        )  # fmt: skip
        try:
            yield errand.settings, work, storage
        finally:
            bases.forget()
            release_memory()


def _remove_left() -> None:
    """Removes what processes of this machine left that were killed."""
    for left in Path(tempfile.gettempdir()).glob(f"{SCRATCH}*"):
        process = left.name.removeprefix(SCRATCH).split("-")[0]
        if process.isdecimal() and not Path(f"/proc/{process}").exists():
            shutil.rmtree(left, ignore_errors=True)


def _quieten() -> None:
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)
    ignore_tie_warnings()


def failure(error: Exception) -> Failure:
    """An error as the driver is told of it."""
    most: int | None = getattr(error, "most_tokens", None)
    if isinstance(error, TuneoffError):
        return Failure(str(error), most)
    first = (str(error).strip() or "no message").splitlines()[0]
    return Failure(f"{type(error).__name__}: {first}", most)
