"""Greedy answers with vLLM's offline engine (`vllm.LLM`), which fills a GPU.

Of vLLM only token ids are taken: where an answer ends and what its text is, `ending.py` decides,
as for transformers' answers. A prompt's tokens are handed over as they are, an adapter as PEFT
saved it. Written after the sources of vLLM 0.33.0 (`entrypoints/llm.py`, `sampling_params.py`,
`outputs.py`, `lora/request.py`, `config/lora.py`); it has not been run with vLLM itself.
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

from tuneoff.contender_settings import LocalSettings, LoraSettings, PromptedSettings
from tuneoff.errors import ConfigError, MissingExtraError
from tuneoff.generation.batched import with_room
from tuneoff.generation.ending import Ending
from tuneoff.records import Prediction

# The ranks that vLLM has room for (`config/lora.py`, MaxLoRARanks); an adapter takes the next.
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
# What embeddings and heads are called. Where they are one tied weight, an adapter on one of them
# must leave the other as it was; that vLLM does so has not been tried.
HEADS = {"embed_in", "embed_out", "embed_tokens", "lm_head", "word_embeddings", "wte"}
# Of a GPU's memory: the rest is for what this process holds there, and for fragments.
MEMORY_SHARE = 0.9
# Prompts asked for at a time, and so the most that a kill loses. As many rows are computed at
# once by default; each time the last ones run without the others.
CHUNK = 256
# Its log would be in the way of `--json`, and a bake-off tells nobody that it runs.
ENVIRONMENT = {"VLLM_LOGGING_STREAM": "ext://sys.stderr", "VLLM_NO_USAGE_STATS": "1"}


@dataclass(frozen=True, slots=True)
class Engine:
    """What an engine is started with: the folder or hub id of the weights, what they are computed
    in, how many cards hold them, the longest text, the adapter with its rank, and how many token
    ids have an embedding (None: that is not known)."""

    model: str
    dtype: str
    cards: int
    longest: int
    adapter: Path | None = None
    rank: int = 0
    rows: int | None = None


def refuse(settings: LocalSettings | PromptedSettings) -> None:
    """Nothing, where vLLM answers as transformers would.

    Raises:
        ConfigError: it cannot; one sentence says why.
    """
    lora = settings.lora if isinstance(settings, LocalSettings) else None
    precision = settings.train.precision if isinstance(settings, LocalSettings) else "auto"
    if isinstance(settings, LocalSettings) and settings.method == "full":
        lora = None
    why = why_not(settings.quantization, lora, precision)
    if why is not None:
        raise ConfigError(
            f"contender {settings.name}: backend: vllm {why}; use backend: transformers."
        )


def why_not(quantization: str, lora: LoraSettings | None, precision: str) -> str | None:
    """What vLLM cannot do of a model, as the rest of a sentence."""
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


def needed(what: str) -> None:
    """Nothing, where vLLM is installed.

    Raises:
        MissingExtraError: it is not.
    """
    if find_spec("vllm") is None:
        raise MissingExtraError("vllm", "vllm", what)


def arguments(engine: Engine) -> dict[str, Any]:
    """What `vllm.LLM` is given."""
    given: dict[str, Any] = {
        "model": engine.model,
        "dtype": engine.dtype,
        "max_model_len": engine.longest,
        "tensor_parallel_size": engine.cards,
        "gpu_memory_utilization": MEMORY_SHARE,
        "enable_prefix_caching": True,
    }
    if engine.adapter is not None:
        rank = next(rank for rank in RANKS if rank >= engine.rank)
        given |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": rank}
    return given


def sampling(ending: Ending, max_new_tokens: int) -> dict[str, Any]:
    """What `vllm.SamplingParams` is given: the best token, until one ends the answer. Stop texts
    are looked for by vLLM too, only so that it does not go on after them."""
    given: dict[str, Any] = {
        "temperature": 0.0,
        "max_tokens": max_new_tokens,
        "stop_token_ids": list(ending.ends),
        "detokenize": bool(ending.stop),
    }
    return given | ({"stop": list(ending.stop)} if ending.stop else {})


def adapter_settings(folder: Path) -> LoraSettings:
    """The rank of an adapter that PEFT saved, and what vLLM may not take of it."""
    saved = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    targets = saved.get("target_modules") or ()
    return LoraSettings(
        r=int(saved["r"]),
        use_dora=bool(saved.get("use_dora")),
        target_modules=(targets,) if isinstance(targets, str) else tuple(targets),
    )


def prepare() -> None:
    """Must come before vLLM is imported."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


@contextmanager
def running(engine: Engine) -> Iterator[Any]:
    """An engine of vLLM's, which is ended afterwards, so that the next model has the memory.

    Raises:
        ConfigError: there is no GPU here.
    """
    import torch

    from tuneoff.models import bases
    from tuneoff.models.loading import release_memory

    if not torch.cuda.is_available():
        raise ConfigError("backend: vllm: there is no GPU here; use backend: transformers.")
    prepare()
    import vllm

    bases.forget()
    release_memory()
    started = vllm.LLM(**arguments(engine))
    try:
        yield started
    finally:
        # `LLM` has no close of its own, and its process holds the card until it is collected.
        started.llm_engine.engine_core.shutdown()
        del started
        release_memory()


def answer(
    llm: Any,
    engine: Engine,
    ending: Ending,
    prompts: Sequence[tuple[str, list[int]]],
    max_new_tokens: int,
    chunk: int = CHUNK,
) -> Iterator[list[Prediction]]:
    """Answers (id, token ids) prompts with a `running` engine; yields predictions a chunk at a
    time. A prompt that leaves no room for its answer gets an error."""
    import vllm
    from vllm.lora.request import LoRARequest

    fits, refused = with_room(prompts, max_new_tokens, engine.longest, engine.rows)
    if refused:
        yield refused
    lora = engine.adapter and LoRARequest("adapter", 1, str(engine.adapter))
    how = vllm.SamplingParams(**sampling(ending, max_new_tokens))
    for start in range(0, len(fits), chunk):
        some = fits[start : start + chunk]
        began = time.perf_counter()
        found = llm.generate(
            [{"prompt_token_ids": ids} for _, ids in some], how, use_tqdm=False, lora_request=lora
        )
        tokens = [list(output.outputs[0].token_ids) for output in found]
        yield predictions(ending, some, tokens, time.perf_counter() - began)


def predictions(
    ending: Ending,
    prompts: Sequence[tuple[str, list[int]]],
    tokens: Sequence[Sequence[int]],
    seconds: float,
) -> list[Prediction]:
    """The predictions of new token ids, end tokens and what follows a stop text included; each
    took its share of the seconds."""
    each = seconds / max(1, len(prompts))
    return [
        ending.prediction(id, len(ids), new, each)
        for (id, ids), new in zip(prompts, tokens, strict=True)
    ]
