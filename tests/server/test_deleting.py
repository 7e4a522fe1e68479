"""A deleted adapter leaves the answering process: who is being answered by it still is, who comes
later is told that it is gone, and everybody else's answers stay the same."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tuneoff.storage.files import remove_folder

pytest.importorskip("fastapi")
from tuneoff.inference import loaded_model as base_module
from tuneoff.inference.adapters import BLANK_ADAPTER
from tuneoff.inference.loaded_model import ServedModel
from tuneoff.inference.requests import GONE, Delta, GenerationRequest
from tuneoff.inference.transformers_backend import TransformersBackend

IDS = [5, 9, 200, 31, 77]
TOKENS = 40


@pytest.fixture
def host() -> Iterator[TransformersBackend]:
    running = TransformersBackend()
    yield running
    running.close()


@pytest.fixture
def models(tiny_base: Path, tmp_path: Path) -> dict[str, ServedModel]:
    """The base, and two adapters that change its answers."""
    import peft
    import torch

    from tuneoff.models.loading import choose_dtype, load_model

    found = {"base": ServedModel("base", str(tiny_base))}
    for seed, name in enumerate(("one", "two")):
        torch.manual_seed(seed)
        model = load_model(str(tiny_base), "none", choose_dtype("float32"))
        wrapped: Any = peft.get_peft_model(
            model,
            peft.LoraConfig(
                r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False,
                task_type="CAUSAL_LM",
            ),
        )  # fmt: skip
        wrapped.save_pretrained(tmp_path / name)
        found[name] = ServedModel(name, str(tiny_base), tmp_path / name)
    return found


def submit(host: TransformersBackend, served: ServedModel, tell: Any = None) -> queue.Queue[Delta]:
    told: queue.Queue[Delta] = queue.Queue()

    def both(piece: Delta) -> None:
        told.put(piece)
        if tell is not None:
            tell(piece)

    host.submit(served, GenerationRequest(IDS, TOKENS, both, seed=3, logprobs=0))
    return told


def answer(told: queue.Queue[Delta]) -> tuple[list[int], Delta]:
    """The tokens of an answer, and its last piece."""
    tokens: list[int] = []
    while True:
        piece = told.get(timeout=60)
        tokens += [chance.token for chance in piece.chances]
        if piece.finish_reason is not None:
            return tokens, piece


def tokens(host: TransformersBackend, served: ServedModel) -> list[int]:
    found, last = answer(submit(host, served))
    assert last.error is None
    return found


def adapters(host: TransformersBackend, served: ServedModel) -> list[str]:
    model: Any = host.base(served).model
    return list(model.peft_config)


def parameters(host: TransformersBackend, served: ServedModel) -> int:
    return sum(each.numel() for each in host.base(served).model.parameters())


def test_deleted_while_it_answers(
    host: TransformersBackend, models: dict[str, ServedModel]
) -> None:
    alone = {name: tokens(host, served) for name, served in models.items()}
    assert len({tuple(each) for each in alone.values()}) == 3
    full = parameters(host, models["base"])
    one, late = models["one"], list[queue.Queue[Delta]]()

    def delete(_: Delta) -> None:
        """On the first token: the folder goes, and somebody asks too late."""
        if not late:
            assert one.adapter is not None
            remove_folder(one.adapter)
            host.forget(one)
            late.append(submit(host, one))

    found, last = answer(submit(host, one, delete))
    assert (found, last.finish_reason) == (alone["one"], "length")
    _, refused = answer(late[0])
    assert (refused.finish_reason, refused.error) == (GONE, "the model was deleted")
    # Asked after everything above, so the thread has come to the end of it.
    assert tokens(host, models["two"]) == alone["two"]
    assert len(adapters(host, one)) == 1
    assert parameters(host, one) < full
    assert tokens(host, models["base"]) == alone["base"]


def test_the_last_one_deleted_and_another_loaded(
    host: TransformersBackend, models: dict[str, ServedModel], tmp_path: Path
) -> None:
    alone = {name: tokens(host, models[name]) for name in ("base", "one")}
    (tmp_path / "one").rename(tmp_path / "kept")
    host.forget(models["one"])
    assert tokens(host, models["base"]) == alone["base"]
    assert adapters(host, models["base"]) == [BLANK_ADAPTER]
    again = ServedModel("again", models["one"].base, tmp_path / "kept")
    assert tokens(host, again) == alone["one"]
    assert tokens(host, models["base"]) == alone["base"]


def test_what_vanished_without_a_word_is_dropped_for_the_next(
    host: TransformersBackend, models: dict[str, ServedModel], tmp_path: Path
) -> None:
    """As a checkpoint does that the training process replaced."""
    tokens(host, models["one"])
    remove_folder(tmp_path / "one")
    tokens(host, models["two"])
    assert adapters(host, models["two"]) == [BLANK_ADAPTER, "adapter-1"]
    _, last = answer(submit(host, models["one"]))
    assert last.finish_reason == GONE


def test_adapters_leave_room_for_others(
    host: TransformersBackend, models: dict[str, ServedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = {name: tokens(host, served) for name, served in models.items()}
    assert len(adapters(host, models["base"])) == 2
    small = TransformersBackend()
    monkeypatch.setattr(base_module, "ADAPTERS_SHARE", 0)
    try:
        small.base(models["base"])
        for name in ("one", "two", "one", "base"):
            assert tokens(small, models[name]) == alone[name]
        assert adapters(small, models["base"]) == [BLANK_ADAPTER, "adapter-2"]
        # Those that are asked together are there together, whatever the room.
        told = [(name, submit(small, models[name])) for name in ("one", "two", "one", "base")]
        for name, each in told:
            assert answer(each)[0] == alone[name]
    finally:
        small.close()
