"""Our half of answering with vLLM: tokens become answers with their stops, ends and chances, a
request that is given up leaves the engine, and without vLLM one sentence says what to install.

vLLM itself cannot run here. A stand-in with the few names that are used of it makes the tokens,
with a real model; whether vLLM behaves as its documentation says is not shown by this."""

from __future__ import annotations

import queue
import sys
import types
from collections.abc import AsyncIterator, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("fastapi")
from tuneoff.errors import ConfigError
from tuneoff.inference import backend
from tuneoff.inference.loaded_model import ServedModel
from tuneoff.inference.requests import GONE, Delta, GenerationRequest
from tuneoff.inference.transformers_backend import TransformersBackend

IDS = [5, 9, 200, 31, 77]


class Engine:
    """Greedy tokens of a base, one output each; an end token comes last, as vLLM's do."""

    def __init__(self, arguments: Any) -> None:
        from transformers import AutoModelForCausalLM

        self.arguments, self.asked, self.left = arguments, list[Any](), 0
        self.model: Any = AutoModelForCausalLM.from_pretrained(arguments.model).eval()
        self.closed, self.removed = False, list[int]()

    @classmethod
    def from_engine_args(cls, arguments: Any) -> Engine:
        return cls(arguments)

    async def generate(
        self, prompt: Any, sampling_params: Any, request_id: str, *, lora_request: Any = None
    ) -> AsyncIterator[Any]:
        import asyncio

        import torch

        self.asked.append((prompt, sampling_params, request_id, lora_request))
        ids = list(prompt["prompt_token_ids"])
        try:
            for _ in range(sampling_params.max_tokens):
                await asyncio.sleep(0)
                with torch.inference_mode():
                    logits = self.model(input_ids=torch.tensor([ids])).logits[0, -1]
                found = logits.log_softmax(-1).topk(3)
                token, logprobs = int(found.indices[0]), None
                if sampling_params.logprobs is not None:
                    count = max(1, sampling_params.logprobs)
                    pairs = zip(found.indices[:count], found.values[:count], strict=True)
                    logprobs = [{int(i): SimpleNamespace(logprob=float(v)) for i, v in pairs}]
                ids.append(token)
                output = SimpleNamespace(token_ids=[token], logprobs=logprobs)
                yield SimpleNamespace(outputs=[output], num_cached_tokens=3)
                if token in sampling_params.stop_token_ids:
                    return
        finally:
            self.left += 1

    async def remove_lora(self, number: int) -> None:
        self.removed.append(number)

    def shutdown(self) -> None:
        self.closed = True


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    kinds = SimpleNamespace(DELTA="delta")
    modules = {
        "vllm": {"SamplingParams": lambda **given: SimpleNamespace(**given)},
        "vllm.sampling_params": {"RequestOutputKind": kinds},
        "vllm.engine": {},
        "vllm.engine.arg_utils": {"AsyncEngineArgs": lambda **given: SimpleNamespace(**given)},
        "vllm.v1": {},
        "vllm.v1.engine": {},
        "vllm.v1.engine.async_llm": {"AsyncLLM": Engine},
        "vllm.lora": {},
        "vllm.lora.request": {"LoRARequest": lambda **given: SimpleNamespace(**given)},
    }
    for name, names in modules.items():
        module = types.ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        vars(module).update(names)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    running = backend.start_backend("auto", ["one", "two"], ())
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    yield running
    running.close()


def answer(host: Any, served: ServedModel, **more: Any) -> tuple[str, list[int], Delta]:
    """Text, tokens and the last piece of an answer."""
    told: queue.Queue[Delta] = queue.Queue()
    asked = {"temperature": 0, "logprobs": 2, **more}
    host.submit(served, GenerationRequest(IDS, 20, told.put, **asked))
    text, tokens = "", list[int]()
    while True:
        piece = told.get(timeout=60)
        text += piece.text
        tokens += [chance.token for chance in piece.chances]
        if piece.finish_reason is not None:
            return text, tokens, piece


def test_answers_are_those_of_the_other_backend(host: Any, tiny_base: Path) -> None:
    served, own = ServedModel("base", str(tiny_base)), TransformersBackend()
    text, tokens, last = answer(host, served)
    wanted = answer(own, served)
    assert (text, tokens) == wanted[:2]
    assert (last.finish_reason, last.tokens_out) == ("length", 20)
    assert last.tokens_cached == 3
    stop = text[4:7]
    assert answer(host, served, stop=(stop,))[0] == text[: text.index(stop)]
    assert answer(own, served, stop=(stop,))[0] == text[: text.index(stop)]
    own.close()
    base = host.base(served)
    engine = base.engine
    assert not base.exact
    assert (engine.arguments.dtype, engine.arguments.gpu_memory_utilization) == ("float32", 0.225)
    assert engine.left == len(engine.asked) == 2
    assert host.unfinished() == 0


def test_an_end_token_is_no_part_of_the_answer(host: Any, tiny_base: Path) -> None:
    served = ServedModel("base", str(tiny_base))
    _, tokens, _ = answer(host, served)
    (key,) = host._bases
    from dataclasses import replace

    host._bases[key] = replace(host._bases[key], ends=(tokens[6],))
    text, fewer, last = answer(host, served)
    first = tokens.index(tokens[6])
    assert fewer == tokens[:first]
    assert (last.finish_reason, last.tokens_out) == ("stop", first)
    assert text == host.base(served).tokenizer.decode(fewer, skip_special_tokens=True)


def test_adapters_by_number_and_gone(host: Any, tiny_base: Path, tmp_path: Path) -> None:
    models = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        models.append(ServedModel(name, str(tiny_base), tmp_path / name))
    for served in (*models, models[0]):
        answer(host, served)
    engine = host.base(models[0]).engine
    loras = [(each[3].lora_name, each[3].lora_int_id, each[3].lora_path) for each in engine.asked]
    a, b = ((n, i, str(tmp_path / n)) for n, i in (("a", 1), ("b", 2)))
    assert loras == [a, b, a]
    (tmp_path / "a").rmdir()
    host.forget(models[0])
    assert answer(host, models[0])[2].finish_reason == GONE
    assert engine.removed == [1]


def test_a_client_that_goes_away_and_an_engine_that_fails(host: Any, tiny_base: Path) -> None:
    served, request_told = ServedModel("base", str(tiny_base)), queue.Queue[Delta]()
    request = GenerationRequest(IDS, 10_000, request_told.put, logprobs=0)
    host.submit(served, request)
    request_told.get(timeout=60)
    request.cancelled.set()
    while request_told.get(timeout=60).finish_reason is None:
        pass
    engine = host.base(served).engine
    engine.model = None
    _, _, last = answer(host, served)
    assert last.finish_reason == "error"
    assert "NoneType" in (last.error or "")
    assert engine.left == 2


def test_without_vllm_or_a_gpu(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, err = cli("serve", "--backend", "vllm", "--data-dir", tmp_path / "data")
    assert code == 2
    assert (
        'needs the package vllm, which is not installed: run `pip install "tuneoff[vllm]"`' in err
    )
    monkeypatch.setattr(backend, "find_spec", lambda name: object())
    with pytest.raises(ConfigError, match="there is no GPU here"):
        backend.start_backend("vllm", ["tiny"], ())
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    with pytest.raises(ConfigError, match="x was scored on a base that bitsandbytes quantized"):
        backend.start_backend("vllm", [], [ServedModel("x", "tiny", quantization="nf4")])
    plain = backend.start_backend("auto", [], [ServedModel("x", "tiny", quantization="nf4")])
    assert isinstance(plain, TransformersBackend)
    plain.close()


@pytest.mark.parametrize(
    ("saved", "precision", "said"),
    [
        ('{"r": 8, "use_dora": true}', "auto", "vLLM takes no DoRA adapters"),
        ('{"r": 65}', "auto", "vLLM is started for adapters up to r=64 here"),
        ('{"r": 8}', "float32", "vLLM computes adapters in bf16 or fp16 only"),
        ('{"r": 64}', "bf16", None),
    ],
)
def test_adapters_that_vllm_cannot_compute(
    saved: str, precision: Any, said: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "adapter_config.json").write_text(saved)
    served = ServedModel("x", "tiny", tmp_path, precision)
    monkeypatch.setattr(backend, "find_spec", lambda name: object())
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    why = backend._explain_no_vllm([served])
    if said is None:
        assert why is None
        return
    assert str(why).startswith(f"--backend vllm: {said}")
    assert str(why).endswith(
        ", and would have to answer for x; use --backend transformers, or --contender."
    )
