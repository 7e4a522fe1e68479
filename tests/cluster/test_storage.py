"""Trainings kept in a folder or a bucket: whole or not at all, sent once, forgotten on demand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tuneoff.cluster.storage import MANIFEST, TrainingStorage
from tuneoff.errors import ConfigError


@pytest.fixture(params=["folder", "bucket"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> TrainingStorage:
    """One on disk, and one in fsspec's memory, which has no folders and no renames."""
    if request.param == "folder":
        return TrainingStorage(str(tmp_path / "kept"))
    return TrainingStorage(f"memory://{tmp_path.name}-{id(request)}/kept")


def training(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def content(folder: Path) -> dict[str, str]:
    return {
        p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*") if p.is_file()
    }


def test_what_is_kept_comes_back(storage: TrainingStorage, tmp_path: Path) -> None:
    folder = training(
        tmp_path / "a",
        loss="x", **{"loss.jsonl": "1", "checkpoints__checkpoint-4__weights": "w",
                     "checkpoints__.writing__weights": "half", "predictions.jsonl": "p"},
    )  # fmt: skip
    number = storage.start_try("k")
    storage.push("k", number, folder)
    assert storage.pull("k", tmp_path / "b")
    # Neither what is being written, nor what is no part of a training.
    assert content(tmp_path / "b") == {"loss.jsonl": "1", "checkpoints/checkpoint-4/weights": "w"}
    assert storage.pull("k", tmp_path / "c", without="checkpoints")
    assert content(tmp_path / "c") == {"loss.jsonl": "1"}


def test_nothing_kept_is_nothing_to_go_on_from(storage: TrainingStorage, tmp_path: Path) -> None:
    assert storage.state("k") is None
    # A number is claimed even by a try that is lost before it writes anything.
    assert [storage.start_try("k"), storage.start_try("k")] == [1, 2]
    assert storage.state("k") is None
    assert not storage.pull("k", tmp_path / "a")
    assert not storage.has_weights("k")
    storage.remove("k")


def test_a_later_push_replaces_and_leaves_no_rubbish(
    storage: TrainingStorage, tmp_path: Path
) -> None:
    folder = training(tmp_path / "a", **{"loss.jsonl": "1", "checkpoints__checkpoint-4__w": "w4"})
    storage.push("k", 1, folder)
    (folder / "checkpoints" / "checkpoint-4" / "w").unlink()
    training(folder, **{"loss.jsonl": "12", "adapter__w": "w8"})
    storage.push("k", 1, folder)
    assert storage.has_weights("k")
    assert storage.pull("k", tmp_path / "b")
    assert content(tmp_path / "b") == {"loss.jsonl": "12", "adapter/w": "w8"}
    assert len(storage._names(storage._place("k", 1))) == 3  # two files and the manifest
    assert storage.start_try("k") == 2


def test_a_worker_that_was_given_up_disturbs_nobody(
    storage: TrainingStorage, tmp_path: Path
) -> None:
    first = training(tmp_path / "a", **{"loss.jsonl": "old"})
    storage.push("k", storage.start_try("k"), first)
    assert storage.start_try("k") == 2
    before = storage.state("k")
    second = training(tmp_path / "b", **{"loss.jsonl": "new"})
    storage.push("k", 2, second)
    assert storage.state("k") != before
    storage.push("k", 1, first)  # it lived on
    assert storage.start_try("k") == 3
    assert storage.pull("k", tmp_path / "c")
    assert content(tmp_path / "c") == {"loss.jsonl": "new"}


def test_a_push_that_was_cut_is_not_seen(storage: TrainingStorage, tmp_path: Path) -> None:
    storage.push("k", 1, training(tmp_path / "a", **{"loss.jsonl": "1"}))
    half = tmp_path / "half"
    half.write_text("torn")
    storage._put(f"{storage._place('k', 2)}/{'0' * 64}", half)
    assert storage.start_try("k") == 3
    assert storage.pull("k", tmp_path / "b")
    assert content(tmp_path / "b") == {"loss.jsonl": "1"}


def test_what_is_replaced_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = TrainingStorage(str(tmp_path / "kept"))
    storage.push("k", 1, training(tmp_path / "a", **{"loss.jsonl": "old"}))
    fetch = TrainingStorage._fetch

    def meanwhile(self: TrainingStorage, *arguments: Any) -> None:
        monkeypatch.setattr(TrainingStorage, "_fetch", fetch)
        self.push("k", 2, training(tmp_path / "b", **{"loss.jsonl": "new"}))
        fetch(self, *arguments)

    monkeypatch.setattr(TrainingStorage, "_fetch", meanwhile)
    assert storage.pull("k", tmp_path / "c")
    assert content(tmp_path / "c") == {"loss.jsonl": "new"}


def test_a_folder_is_the_same_from_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert TrainingStorage("kept").url == str(tmp_path / "kept")


def test_removed_is_gone(storage: TrainingStorage, tmp_path: Path) -> None:
    storage.push("k", 1, training(tmp_path / "a", **{"adapter__w": "w"}))
    storage.push("other", 1, tmp_path / "a")
    storage.remove("k")
    assert not storage.has_weights("k")
    assert storage.has_weights("other")


def test_a_file_that_did_not_change_is_not_sent_again(tmp_path: Path) -> None:
    storage = TrainingStorage(str(tmp_path / "kept"))
    folder = training(tmp_path / "a", **{"adapter__w": "w", "loss.jsonl": "1"})
    storage.push("k", 1, folder)
    place = tmp_path / "kept" / "k" / "1"
    sha256 = json.loads((place / MANIFEST).read_text())["adapter/w"]
    before = (place / sha256).stat().st_ino
    training(folder, **{"loss.jsonl": "12"})
    storage.push("k", 1, folder)
    assert (place / sha256).stat().st_ino == before


@pytest.mark.parametrize(
    ("url", "said"), [("nosuch://bucket/a", "nosuch"), ("gs://bucket/a", "gcsfs")]
)
def test_a_url_that_cannot_be_used_is_one_sentence(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        TrainingStorage(url)
    assert "\n" not in str(raised.value)
    assert "--storage" in str(raised.value)
