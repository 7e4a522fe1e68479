"""A contender whose work is done by workers: it looks like any other kind to `bakeoff`."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tuneoff.cluster import worker
from tuneoff.cluster.demands import Demand, cards_in_one, shards, together
from tuneoff.cluster.group import LostError, train
from tuneoff.cluster.storage import PARTS, Storage
from tuneoff.cluster.worker import Errand, Failure
from tuneoff.contenders import FREE, Contender, Work
from tuneoff.errors import ContenderError
from tuneoff.progress import Silent
from tuneoff.records import Example, Prediction, PromptRecord, ServingRecord
from tuneoff.rundir import ContenderDir

if TYPE_CHECKING:
    from tuneoff.cluster import RayExecutor

T = TypeVar("T")
# Workers that are lost one after another, with nothing reached between, before a contender fails.
MOST_LOST = 5
# How often it is looked whether the run was interrupted.
LOOK_SECONDS = 1.0


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
        if settings.id != "local":
            return
        storage, key = self._executor.place(settings, work.directory)
        if work.directory.weights() is not None and work.directory.training() is not None:
            return
        if not storage.has_weights(key):
            self._train(settings, work, storage, key)
        _fetch(storage, key, work)

    def _train(self, settings: Any, work: Work, storage: Storage, key: str) -> None:
        wanted = self._executor.demand(settings)
        if storage.state(key) is None:  # what was reached without a cluster, if anything
            storage.push(key, storage.begin(key), work.directory.path)
        errand = self._errand(settings, work, storage.url, key, test=())
        count = together(settings, wanted)

        def once() -> Failure | None:
            # Each try has a number of its own: what an older one still writes counts for nothing.
            mine = replace(errand, number=storage.begin(key))
            if count > 1:
                return self._together(mine, wanted, count)
            failed: Failure | None = self._one(worker.tune, wanted.options(), mine)
            return failed

        while True:
            found = self._despite_losses(settings, work, once, lambda: storage.state(key))
            if found is None or found.most_tokens is None:
                break
            work.progress.say(f"{settings.name}: {found.text}")
            errand = replace(errand, most_at_once=found.most_tokens)
        _refuse(found)

    def answer(
        self, settings: Any, work: Work, examples: Sequence[Example]
    ) -> Iterator[list[Prediction]]:
        """Answers by as many workers as there are cards, as they come. The seconds of an answer
        are those of all the contender's cards: n workers take one n-th each.

        Raises:
            ContenderError: what went wrong there, or too many workers were lost.
        """
        wanted = self._executor.demand(settings)
        errand = self._weighted(settings, work, test=())
        parts = _divided(examples, shards(settings, wanted))
        left = {number: {e.id: e for e in part} for number, part in enumerate(parts)}
        lost = dict.fromkeys(left, 0)
        # Only where they are given at once does Ray end a worker that held a card with its task.
        task = self._ray.remote(
            num_returns="streaming", max_retries=0,
            **wanted.options(cards_in_one(settings, wanted)),
        )(worker.answer)  # fmt: skip

        def begun(number: int) -> Any:
            # One of them tells how it goes.
            mine = errand if number == 0 else replace(errand, board=None)
            stream = task.remote(mine, list(left[number].values()))
            self._executor.begun(stream)
            return stream

        streams = {begun(number): number for number in left}
        try:
            while streams:
                stream = self._next_of(streams)
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
                _refuse(rows)
                lost[number] = 0
                for row in rows:
                    del left[number][row.id]
                yield [_shared(row, 1 / len(parts)) for row in rows]
        finally:
            for stream in streams:
                self._executor.cancel(stream)

    def serving(self, settings: Any, work: Work) -> ServingRecord | None:
        """How fast the model answers on a worker."""
        wanted = self._executor.demand(settings)
        errand = self._weighted(settings, work)
        answered = list(work.directory.predictions().values())
        options = wanted.options(cards_in_one(settings, wanted))
        found, failed = self._despite_losses(
            settings, work, lambda: self._one(worker.measure, options, errand, answered)
        )
        _refuse(failed)
        record: ServingRecord | None = found
        return record

    def prompt_sha256(self, settings: Any, work: Work) -> str | None:
        """Return the hash of the turns of the test prompts."""
        return self.prompt_record(settings, work).prompt_sha256

    def prompt_record(self, settings: Any, work: Work) -> PromptRecord:
        """Have a worker, which needs no card for it, describe the test prompts."""
        errand = self._errand(settings, work, "", "")
        found: PromptRecord | Failure = self._despite_losses(
            settings, work, lambda: self._one(worker.prompt_record, {"num_cpus": 1}, errand)
        )
        _refuse(found)
        assert isinstance(found, PromptRecord)
        return found

    def _weighted(self, settings: Any, work: Work, **changed: Any) -> Errand:
        """An errand for a worker that finds the tuned weights, if any, where they are kept."""
        if settings.id != "local":
            return self._errand(settings, work, "", "", **changed)
        storage, key = self._executor.place(settings, work.directory)
        if not storage.has_weights(key):
            storage.push(key, storage.begin(key), work.directory.path)
        return self._errand(settings, work, storage.url, key, **changed)

    def _errand(self, settings: Any, work: Work, url: str, key: str, **changed: Any) -> Errand:
        """An errand, with the work as it can travel."""
        travelling = replace(
            work,
            folder=work.folder.resolve(),
            progress=Silent(),
            guard=FREE,
            replay=None,
            **changed,
        )
        return Errand(settings, travelling, url, key, 0, self._executor.board)

    def _one(self, function: Callable[..., Any], options: Any, *arguments: Any) -> Any:
        """What one worker makes of an errand."""
        task = self._ray.remote(max_retries=0, **options)(function)
        reference = task.remote(*arguments)
        self._executor.begun(reference)
        try:
            self._next_of([reference])
            return self._ray.get(reference)
        finally:
            self._executor.ended(reference)

    def _together(self, errand: Errand, wanted: Demand, count: int) -> Failure | None:
        """One training in a group of processes."""
        name = errand.settings.name
        self._executor.told_failure(name)
        raised = train(errand, wanted, count)
        told: Failure | None = self._executor.told_failure(name)
        return told or (None if raised is None else Failure(raised))

    def _next_of(self, references: Any) -> Any:
        """The first of them that has something."""
        while True:
            self._executor.refuse_stopped()
            ready, _ = self._ray.wait(list(references), num_returns=1, timeout=LOOK_SECONDS)
            if ready:
                return ready[0]

    def _despite_losses(
        self,
        settings: Any,
        work: Work,
        once: Callable[[], T],
        reached: Callable[[], Any] = lambda: None,
    ) -> T:
        """The same again when its worker was lost; what was reached between makes up for it."""
        lost, before = 0, reached()
        while True:
            try:
                return once()
            except (self._ray.exceptions.RayError, LostError) as error:
                now = reached()
                lost = 1 if now != before else lost + 1
                before = now
                self._refuse_lost(settings, lost, error, work)

    def _refuse_lost(self, settings: Any, lost: int, error: Exception, work: Work) -> None:
        self._executor.refuse_stopped()
        if isinstance(error, self._ray.exceptions.RayTaskError):  # its task failed, not the worker
            _refuse(worker.failure(error.cause or error))
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        if lost > MOST_LOST:
            raise ContenderError(
                f"contender {settings.name}: {lost} workers were lost one after another, the last "
                f"one because: {first}; run again when the cluster is well, and it goes on."
            )
        work.progress.say(
            f"{settings.name}: a worker was lost ({first}); it goes on from what was kept."
        )


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
    """Brings a finished training into the run directory, its weights last of all.

    Raises:
        ContenderError: it is not where it was kept.
    """
    folder = work.directory.path
    beside = folder / ".fetched"
    shutil.rmtree(beside, ignore_errors=True)
    if not storage.pull(key, beside, "checkpoints") or ContenderDir(beside).weights() is None:
        raise ContenderError(
            f"{storage.url}: the finished training is not there; give a --storage that this "
            "machine and the workers reach."
        )
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    for part in PARTS:
        path = beside / part
        if path.exists():
            target = folder / part
            if target.is_dir():
                shutil.rmtree(target)
            path.rename(target)
    shutil.rmtree(beside)
