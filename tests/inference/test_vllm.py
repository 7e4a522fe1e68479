"""Our half of answering with vLLM: what is refused, how it is asked, how its tokens become
predictions, and that a run says how many answers transformers gives too.

vLLM cannot run here. A stand-in with the few names that are used of it makes the tokens, with a
real model. Whether the names and settings are vLLM's own is looked up in its sources, where
`TUNEOFF_VLLM_SOURCE` names the folder that holds `vllm/` (an unpacked wheel will do)."""

from __future__ import annotations

import ast
import os
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import tuneoff
from tuneoff.config.contenders import LocalConfig
from tuneoff.config.schema import BakeOff
from tuneoff.contenders import latency
from tuneoff.errors import ConfigError
from tuneoff.inference import vllm
from tuneoff.inference.stopping import StopCriteria
from tuneoff.models.loading import load_tokenizer, resolve_base
from tuneoff.progress import SilentProgress
from tuneoff.storage.run_dir import RunDir

FILE = """\
name: fast
task: {{id: functional_representation, source: sample, max_new_tokens: 6,
        limit: {{train: 16, validation: 4, test: 18}}}}
contenders:
  - {{name: prompted, id: prompted, base: tiny, shots: 1, backend: {backend}}}
  - {{name: lora, id: local, base: tiny, train: {{max_steps: 2, batch_size: 8}},
     hardware: {{count: 4}}, backend: {backend}}}
  - {{name: full, id: local, base: tiny, method: full, train: {{max_steps: 2, batch_size: 8}},
     backend: {backend}}}
"""
not_here = pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")


def written(folder: Path, backend: str = "vllm") -> Path:
    file = folder / "b.yaml"
    file.write_text(FILE.format(backend=backend))
    return file


@not_here
@pytest.mark.parametrize("command", ["check", "run"])
def test_without_vllm_one_sentence_says_what_to_install(
    cli: Any, tmp_path: Path, command: str
) -> None:
    more = ("--run-dir", tmp_path / "run") if command == "run" else ()
    code, _, err = cli(command, written(tmp_path), *more)
    assert code == 2
    assert " ".join(err.split()).endswith(
        "contender prompted: backend: vllm needs the package vllm, which is not installed: run "
        '`pip install "tuneoff[vllm]"`.'
    )
    assert "Traceback" not in err
    assert not (tmp_path / "run" / "contenders").exists()


@not_here
def test_a_plan_wants_no_vllm(tmp_path: Path) -> None:
    assert tuneoff.plan(tuneoff.load(written(tmp_path)), measure=False).contenders


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"quantization": "int8"}, "has no int8 as bitsandbytes does it"),
        ({"quantization": "nf4"}, "has no nf4"),
        ({"lora": {"use_dora": True}}, "takes no DoRA adapters"),
        ({"lora": {"target_modules": ["q_proj", "lm_head"]}}, "takes no adapters on lm_head here"),
        ({"lora": {"target_modules": ["model.embed_tokens"]}}, "adapters on model.embed_tokens"),
        ({"lora": {"target_modules": "all-linear"}}, None),
        ({"lora": {"r": 513}}, "takes adapters up to r=512, and this one has r=513"),
        ({"train": {"precision": "float32"}}, "computes adapters in bf16 or fp16 only"),
        ({}, None),
        ({"method": "full", "train": {"precision": "float32"}}, None),
    ],
)
def test_what_vllm_cannot_do_is_refused(settings: dict[str, Any], said: str | None) -> None:
    asked = LocalConfig(name="a", id="local", backend="vllm", **settings)
    if said is None:
        vllm.check_vllm_support(asked)
        return
    with pytest.raises(ConfigError, match="use backend: transformers") as caught:
        vllm.check_vllm_support(asked)
    assert said in str(caught.value)


def test_a_provider_has_its_own_backend() -> None:
    with pytest.raises(ValueError, match="backend is for an open base"):
        BakeOff.model_validate({
            "name": "a",
            "task": {"id": "functional_representation", "source": "sample"},
            "contenders": [{"name": "b", "id": "prompted", "model": "gpt", "backend": "vllm"}],
        })  # fmt: skip


def test_tokens_become_predictions() -> None:
    tokenizer = load_tokenizer(resolve_base("tiny", Path()))
    end = int(tokenizer.eos_token_id or 0)
    ending = StopCriteria(tokenizer, (end,), ("\n###",))
    text = tokenizer.encode("inform(name[Myst])", add_special_tokens=False)
    more = tokenizer.encode("inform(name[Myst])\n### Task", add_special_tokens=False)
    prompts = [("a", [1, 2]), ("b", [3]), ("c", [4, 5, 6])]
    found = vllm.build_predictions(ending, prompts, [[*text, end], more, text], 3.0)
    assert [p.prediction for p in found] == ["inform(name[Myst])"] * 3
    assert [p.finish_reason for p in found] == ["stop", "stop", "length"]
    assert [p.tokens_in for p in found] == [2, 1, 3]
    assert [p.tokens_out for p in found] == [len(text)] * 3
    assert [p.seconds for p in found] == [1.0, 1.0, 1.0]


def test_settings_become_arguments(tmp_path: Path) -> None:
    plain = vllm.build_engine_arguments(vllm.VllmOptions("owner/base", "bfloat16", 1, 300))
    assert "enable_lora" not in plain
    assert (plain["max_model_len"], plain["enable_prefix_caching"]) == (300, True)
    for rank, room in ((4, 8), (8, 8), (24, 32), (512, 512)):
        given = vllm.build_engine_arguments(
            vllm.VllmOptions("b", "bfloat16", 4, 300, tmp_path, rank)
        )
        assert (given["max_lora_rank"], given["tensor_parallel_size"]) == (room, 4)
    tokenizer = load_tokenizer(resolve_base("tiny", Path()))
    asked = vllm.build_sampling_arguments(StopCriteria(tokenizer, (3, 7), ()), 20)
    assert asked == {
        "temperature": 0.0, "max_tokens": 20, "stop_token_ids": [3, 7], "detokenize": False,
    }  # fmt: skip
    asked = vllm.build_sampling_arguments(StopCriteria(tokenizer, (3,), ("\n",)), 20)
    assert (asked["stop"], asked["detokenize"]) == (["\n"], True)


def test_they_are_vllms_own(tmp_path: Path) -> None:
    """Names of settings, against the sources that they were written after."""
    place = os.environ.get("TUNEOFF_VLLM_SOURCE")
    spec = find_spec("vllm") if place is None else None
    if place is None and (spec is None or spec.origin is None):
        pytest.skip("vLLM's sources are not at hand: set TUNEOFF_VLLM_SOURCE to a folder of them")
    root = Path(place) / "vllm" if place else Path(str(spec and spec.origin)).parent
    known = set(_fields(root / "engine/arg_utils.py", "EngineArgs"))
    known |= _parameters(root / "entrypoints/llm.py", "LLM", "__init__")
    given = vllm.build_engine_arguments(vllm.VllmOptions("b", "bfloat16", 4, 300, tmp_path, 8))
    assert set(given) <= known
    ending = StopCriteria(load_tokenizer(resolve_base("tiny", Path())), (3,), ("\n",))
    sampling = _fields(root / "sampling_params.py", "SamplingParams")
    assert set(vllm.build_sampling_arguments(ending, 20)) <= set(sampling)
    generate = _parameters(root / "entrypoints/llm.py", "LLM", "generate")
    assert {"prompts", "sampling_params", "use_tqdm", "lora_request"} <= generate
    assert _parameters(root / "entrypoints/llm.py", "LLM", "reset_prefix_cache")
    request = list(_fields(root / "lora/request.py", "LoRARequest"))
    assert request[:3] == ["lora_name", "lora_int_id", "lora_path"]
    assert "token_ids" in _fields(root / "outputs.py", "CompletionOutput")
    assert "prompt_token_ids" in _fields(root / "inputs/llm.py", "TokensPrompt")
    ranks = next(
        node.value for node in ast.parse((root / "config/lora.py").read_text()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "MaxLoRARanks"
    )  # fmt: skip
    assert ast.unparse(ranks) == f"Literal[{', '.join(map(str, vllm.RANKS))}]"
    assert "self.engine_core = " in (root / "v1/engine/llm_engine.py").read_text()
    for client in ("InprocClient", "MPClient"):
        assert _parameters(root / "v1/engine/core_client.py", client, "shutdown")
    environment = (root / "envs.py").read_text()
    assert all(f'"{name}"' in environment for name in vllm.ENVIRONMENT)
    # What the server asks of it.
    known_async = {*known, *_fields(root / "engine/arg_utils.py", "AsyncEngineArgs")}
    calls = _keywords(Path(vllm.__file__).parents[1] / "inference/vllm_backend.py")
    assert calls["AsyncEngineArgs"] <= known_async
    assert calls["SamplingParams"] <= set(sampling)
    assert calls["LoRARequest"] <= set(request)
    asynchronous = root / "v1/engine/async_llm.py"
    assert calls["generate"] <= _parameters(asynchronous, "AsyncLLM", "generate")
    assert _parameters(asynchronous, "AsyncLLM", "from_engine_args") >= {"engine_args"}
    assert _parameters(asynchronous, "AsyncLLM", "remove_lora") == {"self", "lora_id"}


def _class(file: Path, name: str) -> ast.ClassDef:
    found = [n for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.ClassDef)]
    return next(node for node in found if node.name == name)


def _fields(file: Path, name: str) -> list[str]:
    lines = _class(file, name).body
    return [n.target.id for n in lines if isinstance(n, ast.AnnAssign) and hasattr(n.target, "id")]


def _parameters(file: Path, name: str, function: str) -> set[str]:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    for node in _class(file, name).body:
        if isinstance(node, functions) and node.name == function:
            return {each.arg for each in (*node.args.args, *node.args.kwonlyargs)}
    raise AssertionError(f"{name} has no {function}")


def _keywords(file: Path) -> dict[str, set[str]]:
    """The keywords that each called name is given in a file."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).rpartition(".")[2]
            found.setdefault(name, set()).update(k.arg for k in node.keywords if k.arg)
    return found


class Model:
    """Greedy tokens of a model, as `vllm.LLM` gives them: a whole list of prompts at a time."""

    def __init__(self, engine: vllm.VllmOptions, asked: list[int]) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        self.model: Any = AutoModelForCausalLM.from_pretrained(
            engine.model, dtype=getattr(torch, engine.dtype)
        )
        if engine.adapter is not None:
            import peft

            self.model = peft.PeftModel.from_pretrained(self.model, str(engine.adapter))
        self.model.eval()
        self.engine, self.asked = engine, asked

    def generate(
        self, prompts: Any, how: Any, *, use_tqdm: bool, lora_request: Any = None
    ) -> list[Any]:
        assert not use_tqdm
        assert (lora_request is None) == (self.engine.adapter is None)
        self.asked.append(len(prompts))
        return [self._one(prompt["prompt_token_ids"], how) for prompt in prompts]

    def _one(self, ids: list[int], how: Any) -> Any:
        import torch

        prompt = torch.tensor([ids])
        with torch.inference_mode():
            found = self.model.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=how.max_tokens,
                do_sample=False,
                eos_token_id=how.stop_token_ids,
                pad_token_id=0,
            )
        new = found[0, len(ids) :].tolist()
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=new)])

    def reset_prefix_cache(self) -> None:
        self.asked.append(0)


class Heard(SilentProgress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many prompts each call of the stand-in had; 0 where its prefixes were forgotten."""
    modules = {
        "vllm": {"SamplingParams": lambda **given: SimpleNamespace(**given)},
        "vllm.lora": {},
        "vllm.lora.request": {"LoRARequest": lambda *given: given},
    }
    for name, names in modules.items():
        module = types.ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        vars(module).update(names)
        monkeypatch.setitem(sys.modules, name, module)
    seen: list[int] = []

    @contextmanager
    def running(engine: vllm.VllmOptions) -> Iterator[Model]:
        yield Model(engine, seen)

    monkeypatch.setattr(vllm, "run_vllm", running)
    monkeypatch.setattr(latency, "MAX_SECONDS", 0.1)
    return seen


def test_a_run_answers_and_says_how_many_transformers_gives_too(
    asked: list[int], tmp_path: Path
) -> None:
    heard = Heard()
    for backend in ("vllm", "transformers"):
        file = written(tmp_path, backend)
        results = tuneoff.run(tuneoff.load(file), tmp_path / backend, progress=heard)
        assert [contender.error for contender in results.contenders] == [None] * 3
        for contender in results.contenders:
            serving = contender.serving
            assert serving.backend == backend
            wanted = (1.0, 16) if backend == "vllm" else (None, None)
            assert (serving.agreement, serving.compared) == wanted
    for name in ("prompted", "lora", "full"):
        own, other = (
            {id: (p.prediction, p.tokens_in, p.tokens_out, p.finish_reason)
             for id, p in RunDir(tmp_path / backend).contender(name).predictions().items()}
            for backend in ("vllm", "transformers")
        )  # fmt: skip
        assert own == other
        assert any(prediction for prediction, *_ in own.values()), "nothing is easily the same"
        line = f"{name}: 16 of 16 of vLLM's answers are, to the letter, those of transformers."
        assert line in heard.lines
    assert asked.count(18) == 3, "the test set in one chunk, once for each contender"
    assert asked.count(0) == asked.count(1), "no prompt alone finds another's prefix"
    report = (tmp_path / "vllm" / "report.md").read_text()
    assert "16 of 16" in report
    assert (
        "Same answers as transformers" not in (tmp_path / "transformers" / "report.md").read_text()
    )


def test_answers_differ_and_transformers_fails(
    asked: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tuneoff.contenders import vllm_inference

    assert not asked
    heard = Heard()
    loaded = vllm_inference._load_in_transformers

    def failing(weights: Any, cards: int) -> Any:
        if weights.adapter is not None:
            raise RuntimeError("CUDA out of memory\nand more")
        model = loaded(weights, cards)
        model.generation_config.eos_token_id = list(
            range(model.config.vocab_size)
        )  # every answer ends at once
        return model

    monkeypatch.setattr(vllm_inference, "_load_in_transformers", failing)
    results = tuneoff.run(tuneoff.load(written(tmp_path)), tmp_path / "run", progress=heard)
    found = {c.name: c.serving for c in results.contenders}
    assert found["prompted"].agreement is not None
    assert found["prompted"].agreement < 1
    assert (found["lora"].agreement, found["lora"].compared) == (None, None)
    assert found["lora"].requests_per_second is not None
    assert "warning: lora: transformers' answers are missing: CUDA out of memory" in heard.lines


def test_chunks_are_handed_out_as_they_are_done(asked: list[int], tiny_base: Path) -> None:
    tokenizer = load_tokenizer(str(tiny_base))
    engine = vllm.VllmOptions(str(tiny_base), "float32", 1, 16)
    ending = StopCriteria(tokenizer, (int(tokenizer.eos_token_id or 0),), ())
    prompts = [(str(number), [5, 9, 10 + number]) for number in range(5)]
    long = [("long", [5] * 13), ("empty", [])]
    with vllm.run_vllm(engine) as running:
        chunks = vllm.generate_with_vllm(running, engine, ending, [*prompts, *long], 4, chunk=2)
        first = next(chunks)
        assert [p.id for p in first] == ["long", "empty"]
        assert first[0].error == (
            "the prompt's 13 tokens and 4 for the answer are more than the model's 16 positions"
        )
        assert [p.id for p in next(chunks)] == ["0", "1"]
        assert asked == [2], "the others are not computed before these are written down"
        assert [p.id for some in chunks for p in some] == ["2", "3", "4"]


def test_a_model_over_all_cards(tiny_base: Path) -> None:
    """Here that is the processor; what is asked of transformers is the same."""
    import torch

    from tuneoff.models.loading import load_model

    model = load_model(str(tiny_base), "none", torch.float32, over_all=True)
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
