"""What answers: our own engine over transformers, or vLLM where it is installed and a GPU is
there. The rest of the server knows `Answerer` alone."""

from __future__ import annotations

from collections.abc import Collection
from importlib.util import find_spec
from typing import Any, Literal, Protocol

from tuneoff.errors import ConfigError, MissingExtraError
from tuneoff.server.answer import Request
from tuneoff.server.base import Served

Backend = Literal["auto", "transformers", "vllm"]
# Of a GPU's memory, what vLLM takes at its start; half of it where jobs are trained there too.
VLLM_SHARE = 0.9


class Loaded(Protocol):
    """What a base that is there says of itself: its tokenizer; the longest text; how many token ids
    have an embedding (None: that is not known); `exact` if it computes in float32 and its answers
    must be those that were scored, but for near-ties."""

    @property
    def tokenizer(self) -> Any: ...
    @property
    def positions(self) -> int: ...
    @property
    def rows(self) -> int | None: ...
    @property
    def exact(self) -> bool: ...


class Answerer(Protocol):
    """Answers requests; what it does is described at `host.Host`."""

    def base(self, served: Served) -> Loaded: ...
    def submit(self, served: Served, request: Request) -> None: ...
    def forget(self, served: Served) -> None: ...
    def unfinished(self) -> int: ...
    def close(self) -> None: ...


def start(backend: Backend, bases: Collection[str], served: Collection[Served]) -> Answerer:
    """What will answer for bases that may be tuned, and for ready models.

    Raises:
        ConfigError: vLLM is asked for, and cannot be used here.
        MissingExtraError: it is not installed.
    """
    if backend == "vllm":
        why = _why_not_vllm(served)
        if why is not None:
            raise why
    if backend == "vllm" or (backend == "auto" and _why_not_vllm(served) is None):
        from tuneoff.server.vllm_host import VllmHost

        engines = {*bases, *(each.base for each in served)}
        return VllmHost(VLLM_SHARE / (2 if bases else 1) / max(1, len(engines)))
    from tuneoff.server.host import Host

    return Host()


def _why_not_vllm(served: Collection[Served]) -> ConfigError | MissingExtraError | None:
    if find_spec("vllm") is None:
        return MissingExtraError("vllm", "vllm", "--backend vllm")
    import torch

    if not torch.cuda.is_available():
        return ConfigError("--backend vllm: there is no GPU here; use --backend transformers.")
    quantized = [each.name for each in served if each.quantization != "none"]
    if quantized:
        return ConfigError(
            f"--backend vllm: {quantized[0]} was scored on a base that bitsandbytes quantized, "
            "which vLLM would do in another way; use --backend transformers, or --contender."
        )
    return _refused_adapter(served)


def _refused_adapter(served: Collection[Served]) -> ConfigError | None:
    from tuneoff.generation.vllm import adapter_settings, why_not
    from tuneoff.server.vllm_host import MOST_RANK

    for each in served:
        if each.adapter is None or not (each.adapter / "adapter_config.json").is_file():
            continue
        lora = adapter_settings(each.adapter)
        why = why_not("none", lora, each.precision)
        if why is None and lora.r > MOST_RANK:
            why = f"is started for adapters up to r={MOST_RANK} here"
        if why is not None:
            return ConfigError(
                f"--backend vllm: vLLM {why}, and would have to answer for {each.name}; use "
                "--backend transformers, or --contender."
            )
    return None
