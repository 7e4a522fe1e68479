"""A worker's errands, without a cluster around it."""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tuneoff.bakeoff import prepare
from tuneoff.cluster import worker
from tuneoff.cluster.storage import TrainingStorage
from tuneoff.cluster.worker import WorkerFailure, WorkerTask
from tuneoff.config.schema import BakeOff
from tuneoff.contenders.base import ContenderContext
from tuneoff.progress import SilentProgress
from tuneoff.storage.run_dir import ContenderDir


@pytest.fixture
def errand(tiny_base: Path, tmp_path: Path) -> WorkerTask:
    bakeoff = BakeOff.model_validate({
        "name": "w",
        "task": {"id": "functional_representation", "source": "sample", "max_new_tokens": 4,
                 "limit": {"train": 16, "validation": 4, "test": 3}},
        "contenders": [{
            "name": "a", "id": "local", "base": str(tiny_base), "lora": {"r": 2},
            "train": {"max_steps": 6, "batch_size": 8, "evaluate_every": 2},
        }],
    })  # fmt: skip
    parts = prepare.resolve(bakeoff)
    examples, _ = prepare.load_examples(parts)
    work = ContenderContext(
        folder=tmp_path, train=examples["train"], validation=examples["validation"],
        test=examples["test"], template=parts.template, prompt="full", max_new_tokens=4,
        directory=ContenderDir(tmp_path / "contenders" / "a"), progress=SilentProgress(),
    )  # fmt: skip
    return WorkerTask(bakeoff.contenders[0], work, str(tmp_path / "kept"), "key", 1)


class Killed(BaseException):
    """What ends a worker in the middle."""


def test_a_second_try_goes_on_from_the_checkpoint_that_was_kept(
    errand: WorkerTask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    push, storage = TrainingStorage.push, TrainingStorage(errand.storage)
    storage.push("key", 1, tmp_path / "nothing")  # as the driver does

    def and_die(self: TrainingStorage, *arguments: Any) -> None:
        push(self, *arguments)
        raise Killed

    monkeypatch.setattr(TrainingStorage, "push", and_die)
    with pytest.raises(Killed):
        worker.tune(errand)
    monkeypatch.setattr(TrainingStorage, "push", push)
    assert storage.pull("key", tmp_path / "then")
    assert [p.name for p in (tmp_path / "then" / "checkpoints").iterdir()] == ["checkpoint-2"]

    steps: list[int] = []

    class Heard(SilentProgress):
        def stage(self, title: str, total: int) -> Any:
            return lambda done, note="": steps.append(done)

    monkeypatch.setattr(worker, "RemoteProgress", lambda board, name: Heard())
    second = replace(errand, number=storage.start_try("key"), board=object())
    assert second.number == 2
    assert worker.tune(second) is None
    assert steps == [3, 4, 5, 6]
    assert storage.has_weights("key")

    rows = [row for some in worker.answer(second, errand.work.test) for row in some]  # type: ignore[union-attr]
    assert sorted(r.id for r in rows) == sorted(e.id for e in errand.work.test)
    found, failed = worker.measure(second, rows)
    assert failed is None
    assert found is not None
    assert found.saturated == 3


def test_what_goes_wrong_comes_back_as_a_sentence(errand: WorkerTask, tmp_path: Path) -> None:
    missing = errand.settings.model_copy(update={"base": str(tmp_path / "nothing")})
    unseen = worker.tune(errand)
    assert isinstance(unseen, WorkerFailure)
    assert "is not seen from" in unseen.text
    TrainingStorage(errand.storage).push("key", 1, tmp_path / "nothing")
    failed = worker.tune(replace(errand, settings=missing))
    assert isinstance(failed, WorkerFailure)
    assert re.search("nothing", failed.text)
    assert "\n" not in failed.text
    *_, last = worker.answer(errand, errand.work.test)  # nothing was tuned
    assert isinstance(last, WorkerFailure)
    assert worker.build_failure(KeyError("a\nb")).text == r"KeyError: 'a\nb'"


def test_what_a_killed_worker_left_is_removed(
    errand: WorkerTask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead = tmp_path / f"{worker.SCRATCH_PREFIX}999999999-abc"
    alive = tmp_path / f"{worker.SCRATCH_PREFIX}{os.getpid()}-abc"
    for folder in (dead, alive):
        folder.mkdir()
    worker.tune(errand)
    assert (dead.exists(), alive.exists()) == (False, True)
    assert [path.name for path in tmp_path.glob(f"{worker.SCRATCH_PREFIX}*")] == [alive.name]
