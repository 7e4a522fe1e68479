"""The inference backend: our engine over transformers, or vLLM where it is installed and a GPU is
present.

The rest of the server knows only the protocol `InferenceBackend`.
"""

from __future__ import annotations

from collections.abc import Collection
from importlib.util import find_spec
from typing import Any, Literal, Protocol

from tuneoff.errors import ConfigError, MissingExtraError
from tuneoff.inference.loaded_model import ServedModel
from tuneoff.inference.requests import GenerationRequest

BackendName = Literal["auto", "transformers", "vllm"]
# Share of a GPU's memory that vLLM takes at its start; halved where jobs are trained there too.
VLLM_SHARE = 0.9


class LoadedModelInfo(Protocol):
    """What the server needs to know of a loaded base model.

    `positions` is the longest text in tokens. `rows` is the number of token ids with an embedding
    (None: unknown). `exact` is set if it computes in float32, where its answers must equal the
    scored ones except for near-ties.
    """

    @property
    def tokenizer(self) -> Any: ...
    @property
    def positions(self) -> int: ...
    @property
    def rows(self) -> int | None: ...
    @property
    def exact(self) -> bool: ...


class InferenceBackend(Protocol):
    """Answers generation requests; `inference/transformers_backend.py` documents each method."""

    def base(self, served: ServedModel) -> LoadedModelInfo: ...
    def submit(self, served: ServedModel, request: GenerationRequest) -> None: ...
    def forget(self, served: ServedModel) -> None: ...
    def unfinished(self) -> int: ...
    def close(self) -> None: ...


def start_backend(
    backend: BackendName, bases: Collection[str], served: Collection[ServedModel]
) -> InferenceBackend:
    """Start the inference backend for the bases that may be tuned and the models of a run.

    Raises:
        ConfigError: vLLM is requested and cannot be used here.
        MissingExtraError: vLLM is requested and not installed.
    """
    if backend == "vllm":
        why = _explain_no_vllm(served)
        if why is not None:
            raise why
    if backend == "vllm" or (backend == "auto" and _explain_no_vllm(served) is None):
        from tuneoff.inference.vllm_backend import VllmBackend

        engines = {*bases, *(model.base for model in served)}
        return VllmBackend(VLLM_SHARE / (2 if bases else 1) / max(1, len(engines)))
    from tuneoff.inference.transformers_backend import TransformersBackend

    return TransformersBackend()


def _explain_no_vllm(served: Collection[ServedModel]) -> ConfigError | MissingExtraError | None:
    """Return the error that explains why vLLM cannot be used; None if it can."""
    if find_spec("vllm") is None:
        return MissingExtraError("vllm", "vllm", "--backend vllm")
    import torch

    if not torch.cuda.is_available():
        return ConfigError("--backend vllm: there is no GPU here; use --backend transformers.")
    quantized = [model.name for model in served if model.quantization != "none"]
    if quantized:
        return ConfigError(
            f"--backend vllm: {quantized[0]} was scored on a base that bitsandbytes quantized, "
            "which vLLM would do in another way; use --backend transformers, or --contender."
        )
    return _explain_refused_adapter(served)


def _explain_refused_adapter(served: Collection[ServedModel]) -> ConfigError | None:
    """Return the error for the first adapter that vLLM cannot serve; None if it serves all."""
    from tuneoff.inference.vllm import explain_vllm_unsupported, read_adapter_settings
    from tuneoff.inference.vllm_backend import MAX_RANK

    for model in served:
        if model.adapter is None or not (model.adapter / "adapter_config.json").is_file():
            continue
        lora = read_adapter_settings(model.adapter)
        why = explain_vllm_unsupported("none", lora, model.precision)
        if why is None and lora.r > MAX_RANK:
            why = f"is started for adapters up to r={MAX_RANK} here"
        if why is not None:
            return ConfigError(
                f"--backend vllm: vLLM {why}, and would have to answer for {model.name}; use "
                "--backend transformers, or --contender."
            )
    return None
