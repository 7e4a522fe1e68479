"""Several bases share one memory: a later one leaves earlier ones what they were promised, and
idle ones go where another does not fit, and come back when they are asked."""

from __future__ import annotations

import queue
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
from tuneoff.inference import engine_check
from tuneoff.inference.continuous_batching import ContinuousBatchingEngine
from tuneoff.inference.loaded_model import ServedModel
from tuneoff.inference.requests import Delta, GenerationRequest
from tuneoff.inference.transformers_backend import TransformersBackend
from tuneoff.models import memory as free_memory
from tuneoff.models.parameters import count_parameters
from tuneoff.server.errors import ApiError
from tuneoff.server.prompt_ids import refuse_unembedded

# 2 layers of keys and values, 1 head of 16 float32 numbers.
TOKEN_BYTES = 2 * 2 * 16 * 4
IDS = [5, 9, 200, 31, 77]


class Memory:
    """What is free, as far as this test says."""

    free = 1_000_000 * TOKEN_BYTES

    def __call__(self, device: Any = None) -> int:
        return self.free


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    found = Memory()
    monkeypatch.setattr(engine_check, "measure_available_bytes", found)
    monkeypatch.setattr(free_memory, "measure_available_bytes", found)
    return found


@pytest.fixture
def host(memory: Memory) -> Iterator[TransformersBackend]:
    running = TransformersBackend()
    yield running
    running.close()


@pytest.fixture
def bases(tiny_base: Path, tmp_path: Path) -> list[ServedModel]:
    for name in ("one", "two", "three"):
        shutil.copytree(tiny_base, tmp_path / name)
    return [ServedModel(name, str(tmp_path / name)) for name in ("one", "two", "three")]


def tokens(host: TransformersBackend, served: ServedModel, most: int = 20) -> list[int]:
    told: queue.Queue[Delta] = queue.Queue()
    host.submit(served, GenerationRequest(IDS, most, told.put, temperature=0, logprobs=0))
    found: list[int] = []
    while True:
        piece = told.get(timeout=60)
        assert piece.error is None
        found += [chance.token for chance in piece.chances]
        if piece.finish_reason is not None:
            return found


def test_a_token_without_an_embedding_is_refused_alone(
    host: TransformersBackend, bases: list[ServedModel]
) -> None:
    base, told = host.base(bases[0]), queue.Queue[Delta]()
    expected = tokens(host, bases[0])
    host.submit(bases[0], GenerationRequest([*IDS, base.rows or 0], 20, told.put))
    assert tokens(host, bases[0]) == expected
    assert "no embedding" in (told.get(timeout=60).error or "")
    assert base.rows == 512
    with pytest.raises(ApiError, match=r"the token .* whose id is 512") as raised:
        refuse_unembedded(base, [5, 512], "prompt")
    assert raised.value.status_code == 400


def test_memory_is_promised_once(
    host: TransformersBackend, bases: list[ServedModel], memory: Memory
) -> None:
    first = host.base(bases[0]).room
    assert first.slots == 64
    assert first.bytes <= memory.free / 2
    memory.free = first.bytes + 40_000 * TOKEN_BYTES
    second = host.base(bases[1]).room
    assert second.slots * second.positions + second.kept_tokens <= 20_000
    assert first.bytes + second.bytes < memory.free
    # Where hardly anything is left, one short text at a time is still answered.
    memory.free = first.bytes + second.bytes + 4_000_000
    third = host.base(bases[2]).room
    assert third.slots >= 1
    assert tokens(host, bases[2]) == tokens(host, bases[0])


def test_an_idle_base_goes_and_comes_back(
    host: TransformersBackend, bases: list[ServedModel], memory: Memory
) -> None:
    one, two, three = bases
    alone = tokens(host, one)
    before = host.base(one)
    host.base(two)
    tokens(host, one)  # so that two was used longest ago
    weights = count_parameters(one.base) * 4
    promised = before.count_unused_bytes() + host.base(two).count_unused_bytes()
    memory.free = promised + weights
    host.base(three)  # which needs 1.2 times its weights to be loaded
    assert [key[0] for key in host._bases] == [one.base, three.base]
    memory.free = 0
    assert tokens(host, two) == alone
    assert before.model is None
    memory.free = Memory.free
    assert tokens(host, one) == alone
    assert host.base(one) is not before


def test_a_busy_base_stays(
    host: TransformersBackend, bases: list[ServedModel], memory: Memory
) -> None:
    one, two, _ = bases
    told: queue.Queue[Delta] = queue.Queue()
    request = GenerationRequest(IDS, 900, told.put, temperature=0, logprobs=0)
    host.submit(one, request)
    told.get(timeout=60)
    memory.free = 0
    assert tokens(host, two, 3)
    assert [key[0] for key in host._bases] == [one.base, two.base]
    request.cancelled.set()
    while told.get(timeout=60).finish_reason is None:
        pass


@pytest.mark.parametrize("where", ["_path", "_admit", "rest"])
def test_a_batch_that_fails_is_told_so_and_the_next_is_answered(
    host: TransformersBackend, bases: list[ServedModel], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """For instance because memory ran out: when requests join, are computed, or are done."""
    wanted = tokens(host, bases[0])

    def fails(*arguments: Any) -> None:
        raise MemoryError("no memory is left")

    with monkeypatch.context() as patched:
        patched.setattr(ContinuousBatchingEngine, where, fails)
        told: queue.Queue[Delta] = queue.Queue()
        for _ in range(2):
            host.submit(bases[0], GenerationRequest(IDS, 3, told.put, temperature=0))
        ends = list[Delta]()
        while len(ends) < 2:
            piece = told.get(timeout=60)
            ends += [piece] if piece.finish_reason is not None else []
        errors = {"no memory is left"} if where != "rest" else {None}
        assert {piece.error for piece in ends} == errors
        assert host.unfinished() == 0
    assert tokens(host, bases[0]) == wanted
