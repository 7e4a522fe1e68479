"""A contender whose work is done by workers; `bakeoff` uses it like any other."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tuneoff.cluster import worker
from tuneoff.cluster.ray_train import WorkerLostError, train_group
from tuneoff.cluster.resources import (
    ResourceRequest,
    count_answer_workers,
    count_cards_per_worker,
    count_training_processes,
)
from tuneoff.cluster.storage import TRAINING_FILES, TrainingStorage
from tuneoff.cluster.worker import WorkerFailure, WorkerTask
from tuneoff.contenders.base import UNLIMITED_BUDGET, Contender, ContenderContext
from tuneoff.errors import ContenderError
from tuneoff.progress import SilentProgress
from tuneoff.records import Example, Prediction, PromptRecord, ServingRecord
from tuneoff.storage.run_dir import ContenderDir

if TYPE_CHECKING:
    from tuneoff.cluster.executor import RayExecutor

T = TypeVar("T")
# Workers lost in a row, without progress in between, before the contender fails.
MAX_LOST = 5
# How often to check whether the run was interrupted.
POLL_SECONDS = 1.0


class RemoteContender:
    """Stands for a `local` or `prompted` contender; `kind` is the module that does its work."""

    def __init__(self, kind: Contender, executor: RayExecutor) -> None:
        self._kind, self._executor = kind, executor
        self._ray: Any = executor.ray

    def check(self, settings: Any, folder: Path) -> None:
        """Check the contender's settings."""
        self._kind.check(settings, folder)

    def ready(self, settings: Any, work: ContenderContext) -> None:
        """Check nothing here: a worker reports what it lacks."""

    def model_name(self, settings: Any) -> str:
        """Return the name of the contender's model."""
        return self._kind.model_name(settings)

    def tune(self, settings: Any, work: ContenderContext) -> None:
        """Train on one or several workers and bring the weights into the run directory.

        Raises:
            ContenderError: the training failed, or too many workers were lost.
        """
        if settings.id != "local":
            return
        storage, key = self._executor.place(settings, work.directory)
        if work.directory.weights() is not None and work.directory.training() is not None:
            return
        if not storage.has_weights(key):
            self._train(settings, work, storage, key)
        _fetch_training(storage, key, work)

    def _train(
        self, settings: Any, work: ContenderContext, storage: TrainingStorage, key: str
    ) -> None:
        """Train until it succeeds, with a smaller micro-batch after each out-of-memory error."""
        request = self._executor.request_resources(settings)
        if storage.state(key) is None:  # progress made without a cluster, if any
            storage.push(key, storage.start_try(key), work.directory.path)
        errand = self._build_task(settings, work, storage.url, key, test=())
        count = count_training_processes(settings, request)

        def once() -> WorkerFailure | None:
            """Train once, as a new try."""
            # Each try has its own number, so writes of an older try that still runs do not count.
            attempt = replace(errand, number=storage.start_try(key))
            if count > 1:
                return self._train_in_group(attempt, request, count)
            failed: WorkerFailure | None = self._one(worker.tune, request.options(), attempt)
            return failed

        while True:
            failure = self._retry_lost_workers(settings, work, once, lambda: storage.state(key))
            if failure is None or failure.most_tokens is None:
                break
            work.progress.say(f"{settings.name}: {failure.text}")
            errand = replace(errand, most_at_once=failure.most_tokens)
        _raise_failure(failure)

    def answer(
        self, settings: Any, work: ContenderContext, examples: Sequence[Example]
    ) -> Iterator[list[Prediction]]:
        """Yield answers from one worker per accelerator, as they arrive.

        The seconds of an answer count for all the contender's accelerators: with n workers, each
        answer takes 1/n of its worker's seconds.

        Raises:
            ContenderError: a worker failed, or too many workers were lost.
        """
        request = self._executor.request_resources(settings)
        errand = self._build_weighted_task(settings, work, test=())
        parts = _split(examples, count_answer_workers(settings, request))
        left = {number: {e.id: e for e in part} for number, part in enumerate(parts)}
        lost = dict.fromkeys(left, 0)
        # Only if these options are given here does Ray end the worker, which held an accelerator,
        # with its task.
        task = self._ray.remote(
            num_returns="streaming", max_retries=0,
            **request.options(count_cards_per_worker(settings, request)),
        )(worker.answer)  # fmt: skip

        def begun(number: int) -> Any:
            """Start a worker on the unanswered examples of its part."""
            # Only one of them reports progress.
            part_errand = errand if number == 0 else replace(errand, board=None)
            stream = task.remote(part_errand, list(left[number].values()))
            self._executor.track_task(stream)
            return stream

        streams = {begun(number): number for number in left}
        try:
            while streams:
                stream = self._wait_for_next(streams)
                number = streams[stream]
                try:
                    rows = self._ray.get(next(stream))
                except StopIteration:
                    self._executor.ended(stream)
                    del streams[stream]
                    continue
                except self._ray.exceptions.RayError as error:
                    self._executor.cancel(stream)
                    del streams[stream]
                    if left[number]:
                        lost[number] += 1
                        self._refuse_lost(settings, lost[number], error, work)
                        streams[begun(number)] = number
                    continue
                _raise_failure(rows)
                lost[number] = 0
                for row in rows:
                    del left[number][row.id]
                yield [_scale_seconds(row, 1 / len(parts)) for row in rows]
        finally:
            for stream in streams:
                self._executor.cancel(stream)

    def serving(self, settings: Any, work: ContenderContext) -> ServingRecord | None:
        """Measure on a worker how fast the model answers."""
        request = self._executor.request_resources(settings)
        errand = self._build_weighted_task(settings, work)
        answered = list(work.directory.predictions().values())
        options = request.options(count_cards_per_worker(settings, request))
        result, failed = self._retry_lost_workers(
            settings, work, lambda: self._one(worker.measure, options, errand, answered)
        )
        _raise_failure(failed)
        record: ServingRecord | None = result
        return record

    def prompt_sha256(self, settings: Any, work: ContenderContext) -> str | None:
        """Return the hash of the turns of the test prompts."""
        return self.prompt_record(settings, work).prompt_sha256

    def prompt_record(self, settings: Any, work: ContenderContext) -> PromptRecord:
        """Return a worker's description of the test prompts; it needs no accelerator."""
        errand = self._build_task(settings, work, "", "")
        result: PromptRecord | WorkerFailure = self._retry_lost_workers(
            settings, work, lambda: self._one(worker.build_prompt_record, {"num_cpus": 1}, errand)
        )
        _raise_failure(result)
        assert isinstance(result, PromptRecord)
        return result

    def _build_weighted_task(
        self, settings: Any, work: ContenderContext, **changed: Any
    ) -> WorkerTask:
        """Return a task for a worker that loads the tuned weights, if any, from storage."""
        if settings.id != "local":
            return self._build_task(settings, work, "", "", **changed)
        storage, key = self._executor.place(settings, work.directory)
        if not storage.has_weights(key):
            storage.push(key, storage.start_try(key), work.directory.path)
        return self._build_task(settings, work, storage.url, key, **changed)

    def _build_task(
        self, settings: Any, work: ContenderContext, url: str, key: str, **changed: Any
    ) -> WorkerTask:
        """Return a task whose context can be sent to a worker."""
        travelling = replace(
            work,
            folder=work.folder.resolve(),
            progress=SilentProgress(),
            guard=UNLIMITED_BUDGET,
            replay=None,
            **changed,
        )
        return WorkerTask(settings, travelling, url, key, 0, self._executor.board)

    def _one(self, function: Callable[..., Any], options: Any, *arguments: Any) -> Any:
        """Run a function on one worker and return its result."""
        task = self._ray.remote(max_retries=0, **options)(function)
        reference = task.remote(*arguments)
        self._executor.track_task(reference)
        try:
            self._wait_for_next([reference])
            return self._ray.get(reference)
        finally:
            self._executor.ended(reference)

    def _train_in_group(
        self, errand: WorkerTask, wanted: ResourceRequest, count: int
    ) -> WorkerFailure | None:
        """Train in a group of processes; return the failure, if any."""
        name = errand.settings.name
        self._executor.take_failure(name)
        error = train_group(errand, wanted, count)
        failure: WorkerFailure | None = self._executor.take_failure(name)
        return failure or (None if error is None else WorkerFailure(error))

    def _wait_for_next(self, references: Any) -> Any:
        """Wait for the first reference that is ready and return it."""
        while True:
            self._executor.refuse_stopped()
            ready, _ = self._ray.wait(list(references), num_returns=1, timeout=POLL_SECONDS)
            if ready:
                return ready[0]

    def _retry_lost_workers(
        self,
        settings: Any,
        work: ContenderContext,
        once: Callable[[], T],
        reached: Callable[[], Any] = lambda: None,
    ) -> T:
        """Repeat a call whenever its worker was lost, and return its result.

        Progress in between resets the count of lost workers.
        """
        lost, last_progress = 0, reached()
        while True:
            try:
                return once()
            except (self._ray.exceptions.RayError, WorkerLostError) as error:
                progress = reached()
                lost = 1 if progress != last_progress else lost + 1
                last_progress = progress
                self._refuse_lost(settings, lost, error, work)

    def _refuse_lost(
        self, settings: Any, lost: int, error: Exception, work: ContenderContext
    ) -> None:
        """Report a lost worker; raise if its task failed by itself or too many were lost."""
        self._executor.refuse_stopped()
        if isinstance(error, self._ray.exceptions.RayTaskError):  # the task failed, not the worker
            _raise_failure(worker.build_failure(error.cause or error))
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        if lost > MAX_LOST:
            raise ContenderError(
                f"contender {settings.name}: {lost} workers were lost one after another, the last "
                f"one because: {first}; run again when the cluster is well, and it goes on."
            )
        work.progress.say(
            f"{settings.name}: a worker was lost ({first}); it goes on from what was kept."
        )


def _raise_failure(found: Any) -> None:
    """Raise ContenderError if the result is a failure."""
    if isinstance(found, WorkerFailure):
        raise ContenderError(found.text)


def _split(examples: Sequence[Example], count: int) -> list[Sequence[Example]]:
    """Split the examples into contiguous parts, because neighbours often share a prefix.

    There are no more parts than examples.
    """
    count = max(1, min(count, len(examples)))
    bounds = [len(examples) * i // count for i in range(count + 1)]
    return [examples[begin:end] for begin, end in itertools.pairwise(bounds)]


def _scale_seconds(row: Prediction, share: float) -> Prediction:
    """Scale an answer's seconds by its worker's share."""
    if row.seconds is None or share == 1:
        return row
    return replace(row, seconds=row.seconds * share)


def _fetch_training(storage: TrainingStorage, key: str, work: ContenderContext) -> None:
    """Bring a finished training into the run directory, the weights last.

    Raises:
        ContenderError: it is not in storage.
    """
    folder = work.directory.path
    fetched = folder / ".fetched"
    shutil.rmtree(fetched, ignore_errors=True)
    if not storage.pull(key, fetched, "checkpoints") or ContenderDir(fetched).weights() is None:
        raise ContenderError(
            f"{storage.url}: the finished training is not there; give a --storage that this "
            "machine and the workers reach."
        )
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    for part in TRAINING_FILES:
        path = fetched / part
        if path.exists():
            target = folder / part
            if target.is_dir():
                shutil.rmtree(target)
            path.rename(target)
    shutil.rmtree(fetched)
