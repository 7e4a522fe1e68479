"""Generates greedy answers with vLLM's offline engine (`vllm.LLM`), which uses a whole GPU.

Only token ids are taken from vLLM; `stopping.py` decides where an answer ends and what its text is,
as for transformers. A prompt's tokens are passed unchanged, and an adapter as PEFT saved it.
Written from the sources of vLLM 0.33.0 (`entrypoints/llm.py`, `sampling_params.py`, `outputs.py`,
`lora/request.py`, `config/lora.py`); it has not been run with vLLM itself.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tuneoff.config.contenders import LocalConfig, LoraConfig, PromptedConfig
from tuneoff.errors import ConfigError, MissingExtraError
from tuneoff.inference.generate import partition_prompts
from tuneoff.inference.stopping import StopCriteria
from tuneoff.records import Prediction

# The adapter ranks that vLLM supports (`config/lora.py`, MaxLoRARanks); others are rounded up.
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
# Module names of embeddings and heads. Where they share one tied weight, an adapter on one must not
# change the other; whether vLLM ensures that has not been tried.
HEADS = {"embed_in", "embed_out", "embed_tokens", "lm_head", "word_embeddings", "wte"}
# The fraction of a GPU's memory for vLLM; the rest is for this process and fragmentation.
MEMORY_SHARE = 0.9
# Prompts per call, and so the most that a kill loses. By default vLLM computes as many rows at
# once; the last rows of each call run with fewer others.
CHUNK_SIZE = 256
# vLLM's log on stdout would break `--json`, and a bake-off sends no usage statistics.
ENVIRONMENT = {"VLLM_LOGGING_STREAM": "ext://sys.stderr", "VLLM_NO_USAGE_STATS": "1"}


@dataclass(frozen=True, slots=True)
class VllmOptions:
    """The options of a vLLM engine."""

    model: str
    """The folder or hub id of the weights."""
    dtype: str
    """The compute precision."""
    cards: int
    """The number of cards that hold the weights."""
    longest: int
    """Maximum tokens of a prompt and its answer."""
    adapter: Path | None = None
    """The adapter's folder; None: none."""
    rank: int = 0
    """The adapter's rank."""
    rows: int | None = None
    """Embedding rows; None if unknown."""


def check_vllm_support(settings: LocalConfig | PromptedConfig) -> None:
    """Raise an error if vLLM would answer differently from transformers.

    Raises:
        ConfigError: it would; one sentence says why.
    """
    lora = settings.lora if isinstance(settings, LocalConfig) else None
    precision = settings.train.precision if isinstance(settings, LocalConfig) else "auto"
    if isinstance(settings, LocalConfig) and settings.method == "full":
        lora = None
    why = explain_vllm_unsupported(settings.quantization, lora, precision)
    if why is not None:
        raise ConfigError(
            f"contender {settings.name}: backend: vllm {why}; use backend: transformers."
        )


def explain_vllm_unsupported(
    quantization: str, lora: LoraConfig | None, precision: str
) -> str | None:
    """Explain what vLLM does not support of a model, as the rest of a sentence; None if all."""
    if quantization != "none":
        return (
            f"has no {quantization} as bitsandbytes does it, and other rounding would be another "
            "model"
        )
    if lora is not None and lora.use_dora:
        return "takes no DoRA adapters"
    if lora is not None and lora.r > RANKS[-1]:
        return f"takes adapters up to r={RANKS[-1]}, and this one has r={lora.r}"
    named = lora.target_modules if lora is not None else ()
    heads = [] if isinstance(named, str) else [m for m in named if m.rpartition(".")[2] in HEADS]
    if heads:
        return f"takes no adapters on {heads[0]} here, which may be tied to another weight"
    if lora is not None and precision == "float32":
        return "computes adapters in bf16 or fp16 only, and train.precision is float32"
    return None


def require_vllm(what: str) -> None:
    """Raise an error if vLLM is not installed.

    Raises:
        MissingExtraError: it is not.
    """
    if find_spec("vllm") is None:
        raise MissingExtraError("vllm", "vllm", what)


def build_engine_arguments(engine: VllmOptions) -> dict[str, Any]:
    """Return the arguments of `vllm.LLM`."""
    options: dict[str, Any] = {
        "model": engine.model,
        "dtype": engine.dtype,
        "max_model_len": engine.longest,
        "tensor_parallel_size": engine.cards,
        "gpu_memory_utilization": MEMORY_SHARE,
        "enable_prefix_caching": True,
    }
    if engine.adapter is not None:
        rank = next(rank for rank in RANKS if rank >= engine.rank)
        options |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": rank}
    return options


def build_sampling_arguments(ending: StopCriteria, max_new_tokens: int) -> dict[str, Any]:
    """Return the arguments of `vllm.SamplingParams` for greedy answers.

    Stop texts are passed to vLLM only so that it stops early.
    """
    options: dict[str, Any] = {
        "temperature": 0.0,
        "max_tokens": max_new_tokens,
        "stop_token_ids": list(ending.end_tokens),
        "detokenize": bool(ending.stop),
    }
    return options | ({"stop": list(ending.stop)} if ending.stop else {})


def read_adapter_settings(folder: Path) -> LoraConfig:
    """Return the settings of an adapter saved by PEFT that decide whether vLLM supports it."""
    saved = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    targets = saved.get("target_modules") or ()
    return LoraConfig(
        r=int(saved["r"]),
        use_dora=bool(saved.get("use_dora")),
        target_modules=(targets,) if isinstance(targets, str) else tuple(targets),
    )


def set_environment() -> None:
    """Set vLLM's environment variables; must be called before vLLM is imported."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


@contextmanager
def run_vllm(engine: VllmOptions) -> Iterator[Any]:
    """Run a vLLM engine while inside, and shut it down afterwards to free the GPU.

    Raises:
        ConfigError: there is no GPU here.
    """
    import torch

    from tuneoff.models import loading
    from tuneoff.models.loading import release_memory

    if not torch.cuda.is_available():
        raise ConfigError("backend: vllm: there is no GPU here; use backend: transformers.")
    set_environment()
    import vllm

    loading.drop_cached_base()
    release_memory()
    started = vllm.LLM(**build_engine_arguments(engine))
    try:
        yield started
    finally:
        # `LLM` has no close method, and its process holds the card until it is garbage-collected.
        started.llm_engine.engine_core.shutdown()
        del started
        release_memory()


def generate_with_vllm(
    llm: Any,
    engine: VllmOptions,
    ending: StopCriteria,
    prompts: Sequence[tuple[str, list[int]]],
    max_new_tokens: int,
    chunk: int = CHUNK_SIZE,
) -> Iterator[list[Prediction]]:
    """Answer (id, token ids) prompts with a running engine; yield predictions a chunk at a time.

    A prompt that leaves no room for its answer gets an error.
    """
    import vllm
    from vllm.lora.request import LoRARequest

    fits, refused = partition_prompts(prompts, max_new_tokens, engine.longest, engine.rows)
    if refused:
        yield refused
    lora = engine.adapter and LoRARequest("adapter", 1, str(engine.adapter))
    parameters = vllm.SamplingParams(**build_sampling_arguments(ending, max_new_tokens))
    for start in range(0, len(fits), chunk):
        some = fits[start : start + chunk]
        began = time.perf_counter()
        outputs = llm.generate(
            [{"prompt_token_ids": ids} for _, ids in some],
            parameters,
            use_tqdm=False,
            lora_request=lora,
        )
        tokens = [list(output.outputs[0].token_ids) for output in outputs]
        yield build_predictions(ending, some, tokens, time.perf_counter() - began)


def build_predictions(
    ending: StopCriteria,
    prompts: Sequence[tuple[str, list[int]]],
    tokens: Sequence[Sequence[int]],
    seconds: float,
) -> list[Prediction]:
    """Return the predictions of new token ids; each gets an equal share of the seconds.

    The ids may include end tokens and tokens after a stop text.
    """
    share = seconds / max(1, len(prompts))
    return [
        ending.build_prediction(id, len(ids), new, share)
        for (id, ids), new in zip(prompts, tokens, strict=True)
    ]
