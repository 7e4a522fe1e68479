"""A contender whose work is done by workers: it looks like any other kind to `bakeoff`."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tuneoff.cluster import worker
from tuneoff.cluster.demands import Demand, demand, lacking, shards, together
from tuneoff.cluster.storage import PARTS, Storage
from tuneoff.cluster.worker import Errand, Failure
from tuneoff.contenders import FREE, Contender, Work
from tuneoff.errors import ContenderError
from tuneoff.progress import Silent
from tuneoff.records import Example, Prediction, ServingRecord
from tuneoff.rundir import NOWHERE

if TYPE_CHECKING:
    from tuneoff.cluster import RayExecutor

T = TypeVar("T")
# Workers that one stage of a contender may lose before it fails.
MOST_LOST = 5


class Remote:
    """Stands for a `local` or `prompted` contender; `kind` is the module that does its work."""

    def __init__(self, kind: Contender, executor: RayExecutor) -> None:
        self._kind, self._executor = kind, executor
        self._ray: Any = executor.ray

    def check(self, settings: Any, folder: Path) -> None:
        self._kind.check(settings, folder)

    def ready(self, settings: Any, work: Work) -> None:
        """What a worker lacks, a worker says."""

    def model_name(self, settings: Any) -> str:
        return self._kind.model_name(settings)

    def tune(self, settings: Any, work: Work) -> None:
        """Trains on a worker, or several; afterwards the weights are in the run directory.

        Raises:
            ContenderError: what went wrong there, or too many workers were lost.
        """
        done = work.directory.weights() is not None and work.directory.training() is not None
        if settings.id != "local" or done:
            return
        wanted = self._wanted(settings)
        storage, key = self._place(settings, work)
        if storage.begin(key) == 1:  # what was reached without a cluster, if anything
            storage.push(key, 1, work.directory.path)
        errand = Errand(
            settings, self._sent(work, test=()), storage.url, key, 0, self._executor.board
        )  # fmt: skip
        count = together(settings, wanted)

        def once() -> Failure | None:
            # Each try has a number of its own: what an older one still writes counts for nothing.
            mine = replace(errand, number=storage.begin(key))
            if count > 1:
                return self._train_together(mine, wanted, count)
            failed: Failure | None = self._one(worker.tune, wanted, mine)
            return failed

        found = self._despite_losses(settings.name, once, work)
        while found is not None and found.most_tokens is not None:
            work.progress.say(f"{settings.name}: {found.text}")
            errand = replace(errand, most_at_once=found.most_tokens)
            found = self._despite_losses(settings.name, once, work)
        _refuse(found)
        _fetch(storage, key, work)

    def answer(
        self, settings: Any, work: Work, examples: Sequence[Example]
    ) -> Iterator[list[Prediction]]:
        """Answers by as many workers as there are cards, as they come. The seconds of an answer
        are those of all the contender's cards: n workers take one n-th each.

        Raises:
            ContenderError: what went wrong there, or too many workers were lost.
        """
        wanted = self._wanted(settings)
        errand = self._weighted(settings, work, test=())
        parts = _divided(examples, shards(settings, wanted))
        cards = wanted.cards // len(parts) if len(parts) > 1 and wanted.cards else None
        share = 1 / len(parts)
        left = {number: {e.id: e for e in part} for number, part in enumerate(parts)}
        task = self._ray.remote(worker.answer).options(
            num_returns="streaming", max_retries=0, **wanted.options(cards)
        )
        streams = {task.remote(errand, list(rows.values())): n for n, rows in left.items()}
        lost = 0
        while streams:
            (stream, *_), _ = self._ray.wait(list(streams), num_returns=1)
            number = streams[stream]
            try:
                rows = self._ray.get(next(stream))
            except StopIteration:
                del streams[stream]
                continue
            except self._ray.exceptions.RayError as error:
                del streams[stream]
                lost += 1
                self._refuse_lost(settings.name, lost, error, work, "goes on with what is left")
                if left[number]:
                    streams[task.remote(errand, list(left[number].values()))] = number
                continue
            if isinstance(rows, Failure):
                self._give_up(streams)
                _refuse(rows)
            for row in rows:
                del left[number][row.id]
            yield [_shared(row, share) for row in rows]

    def serving(self, settings: Any, work: Work) -> ServingRecord | None:
        """How fast the model answers on a worker."""
        wanted = self._wanted(settings)
        errand = self._weighted(settings, work)
        answered = [replace(p, prediction="") for p in work.directory.predictions().values()]
        found, error = self._despite_losses(
            settings.name, lambda: self._one(worker.measure, wanted, errand, answered), work
        )
        _refuse(error)
        record: ServingRecord | None = found
        return record

    def prompt_sha256(self, settings: Any, work: Work) -> str | None:
        """Hash of the rendered test prompts, by a worker."""
        errand = Errand(settings, self._sent(work), "", "")
        found: str | Failure | None = self._despite_losses(
            settings.name,
            lambda: self._one(worker.prompt_sha256, self._wanted(settings), errand),
            work,
        )
        _refuse(found)
        return found if isinstance(found, str) else None

    def _wanted(self, settings: Any) -> Demand:
        return demand(settings, self._ray.cluster_resources())

    def _place(self, settings: Any, work: Work) -> tuple[Storage, str]:
        wanted = self._wanted(settings)
        if lacking(wanted, self._ray.cluster_resources()):
            work.progress.say(
                f"{settings.name}: waits for {wanted}, which the cluster does not have now."
            )
        return self._executor.place(settings.name, work.directory)

    def _weighted(self, settings: Any, work: Work, **changed: Any) -> Errand:
        """An errand for a worker that finds the tuned weights where they are kept."""
        storage, key = self._place(settings, work)
        if work.directory.weights() is not None and not storage.has_weights(key):
            storage.push(key, storage.begin(key), work.directory.path)
        return Errand(
            settings, self._sent(work, **changed), storage.url, key, 0, self._executor.board
        )  # fmt: skip

    def _sent(self, work: Work, **changed: Any) -> Work:
        """The work as it can travel."""
        path = replace(work, directory=NOWHERE, progress=Silent(), guard=FREE, replay=None)
        return replace(path, folder=work.folder.resolve(), directory=work.directory, **changed)

    def _one(self, function: Callable[..., Any], wanted: Demand, *arguments: Any) -> Any:
        """What one worker makes of an errand."""
        task = self._ray.remote(function).options(max_retries=0, **wanted.options())
        with self._executor.running(task.remote(*arguments)) as reference:
            return self._ray.get(reference)

    def _train_together(self, errand: Errand, wanted: Demand, count: int) -> Failure | None:
        """One training in a group of processes, which Ray Train places and connects."""
        from tuneoff.cluster.group import train

        name = errand.settings.name
        self._executor.told_failure(name)
        try:
            train(errand, wanted, count)
        except Exception as error:
            told: Failure | None = self._executor.told_failure(name)
            if told is None:
                raise LostError(str(error).strip().splitlines()[0]) from None
            return told
        return None

    def _despite_losses(self, name: str, once: Callable[[], T], work: Work) -> T:
        """The same again when its worker was lost."""
        lost = 0
        while True:
            try:
                return once()
            except (self._ray.exceptions.RayError, LostError) as error:
                lost += 1
                self._refuse_lost(name, lost, error, work, "goes on from what was kept")

    def _refuse_lost(self, name: str, lost: int, error: Exception, work: Work, on: str) -> None:
        if self._executor.stopped.is_set():
            raise KeyboardInterrupt from None
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        if lost > MOST_LOST:
            raise ContenderError(
                f"contender {name}: {lost} workers were lost, the last one because: {first}; run "
                "again when the cluster is well, and it goes on."
            )
        work.progress.say(f"{name}: a worker was lost ({first}); {on}.")

    def _give_up(self, streams: dict[Any, int]) -> None:
        for stream in streams:
            self._ray.cancel(stream, force=False)


class LostError(Exception):
    """A group of workers ended without a word."""


def _refuse(found: Any) -> None:
    if isinstance(found, Failure):
        raise ContenderError(found.text)


def _divided(examples: Sequence[Example], count: int) -> list[Sequence[Example]]:
    """Neighbours together, which often begin alike; no more parts than examples."""
    count = max(1, min(count, len(examples)))
    places = [len(examples) * i // count for i in range(count + 1)]
    return [examples[begin:end] for begin, end in itertools.pairwise(places)]


def _shared(row: Prediction, share: float) -> Prediction:
    if row.seconds is None or share == 1:
        return row
    return replace(row, seconds=row.seconds * share)


def _fetch(storage: Storage, key: str, work: Work) -> None:
    """Brings a finished training into the run directory, its weights last of all."""
    folder = work.directory.path
    beside = folder / ".fetched"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    storage.pull(key, beside, "checkpoints")
    for part in PARTS:
        path = beside / part
        if path.exists():
            target = folder / part
            if target.is_dir():
                shutil.rmtree(target)
            path.rename(target)
    shutil.rmtree(beside)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
