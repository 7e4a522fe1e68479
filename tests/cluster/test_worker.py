"""A worker's errands, without a cluster around it."""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tuneoff import prepare
from tuneoff.cluster import worker
from tuneoff.cluster.storage import Storage
from tuneoff.cluster.worker import Errand, Failure
from tuneoff.config import BakeOff
from tuneoff.contenders import Work
from tuneoff.progress import Silent
from tuneoff.rundir import ContenderDir


@pytest.fixture
def errand(tiny_base: Path, tmp_path: Path) -> Errand:
    bakeoff = BakeOff.model_validate({
        "name": "w",
        "task": {"id": "functional_representation", "source": "sample", "max_new_tokens": 4,
                 "limit": {"train": 16, "validation": 4, "test": 3}},
        "contenders": [{
            "name": "a", "id": "local", "base": str(tiny_base), "lora": {"r": 2},
            "train": {"max_steps": 6, "batch_size": 8, "evaluate_every": 2},
        }],
    })  # fmt: skip
    parts = prepare.parts(bakeoff)
    examples, _ = prepare.data(parts)
    work = Work(
        folder=tmp_path, train=examples["train"], validation=examples["validation"],
        test=examples["test"], template=parts.template, prompt="full", max_new_tokens=4,
        directory=ContenderDir(tmp_path / "contenders" / "a"), progress=Silent(),
    )  # fmt: skip
    return Errand(bakeoff.contenders[0], work, str(tmp_path / "kept"), "key", 1)


class Killed(BaseException):
    """What ends a worker in the middle."""


def test_a_second_try_goes_on_from_the_checkpoint_that_was_kept(
    errand: Errand, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    push, storage = Storage.push, Storage(errand.storage)
    storage.push("key", 1, tmp_path / "nothing")  # as the driver does

    def and_die(self: Storage, *arguments: Any) -> None:
        push(self, *arguments)
        raise Killed

    monkeypatch.setattr(Storage, "push", and_die)
    with pytest.raises(Killed):
        worker.tune(errand)
    monkeypatch.setattr(Storage, "push", push)
    assert storage.pull("key", tmp_path / "then")
    assert [p.name for p in (tmp_path / "then" / "checkpoints").iterdir()] == ["checkpoint-2"]

    steps: list[int] = []

    class Heard(Silent):
        def stage(self, title: str, total: int) -> Any:
            return lambda done, note="": steps.append(done)

    monkeypatch.setattr(worker, "Told", lambda board, name: Heard())
    second = replace(errand, number=storage.begin("key"), board=object())
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


def test_what_goes_wrong_comes_back_as_a_sentence(errand: Errand, tmp_path: Path) -> None:
    missing = errand.settings.model_copy(update={"base": str(tmp_path / "nothing")})
    unseen = worker.tune(errand)
    assert isinstance(unseen, Failure)
    assert "is not seen from" in unseen.text
    Storage(errand.storage).push("key", 1, tmp_path / "nothing")
    failed = worker.tune(replace(errand, settings=missing))
    assert isinstance(failed, Failure)
    assert re.search("nothing", failed.text)
    assert "\n" not in failed.text
    *_, last = worker.answer(errand, errand.work.test)  # nothing was tuned
    assert isinstance(last, Failure)
    assert worker.failure(KeyError("a\nb")).text == r"KeyError: 'a\nb'"


def test_what_a_killed_worker_left_is_removed(
    errand: Errand, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead = tmp_path / f"{worker.SCRATCH}999999999-abc"
    alive = tmp_path / f"{worker.SCRATCH}{os.getpid()}-abc"
    for folder in (dead, alive):
        folder.mkdir()
    worker.tune(errand)
    assert (dead.exists(), alive.exists()) == (False, True)
    assert [path.name for path in tmp_path.glob(f"{worker.SCRATCH}*")] == [alive.name]
