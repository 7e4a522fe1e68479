"""The inference backend over vLLM, which runs each base model in a process of its own.

vLLM provides only token ids with their log-probabilities; text, stop strings and ends are handled
by `inference/requests.py`, as for our own engine. Written against the sources of vLLM 0.33.0
(`AsyncLLM`, `LoRARequest`, `SamplingParams`). Experimental: it has never been run with vLLM itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from dataclasses import dataclass
from typing import Any

from tuneoff.inference.loaded_model import TYPICAL_POSITIONS, ServedModel
from tuneoff.inference.requests import (
    GONE,
    Generation,
    GenerationRequest,
    InFlightCounter,
    TokenLogprob,
    describe_error,
    fail_request,
)

# vLLM reserves memory for adapters up to this rank, and for this many in a batch; others wait.
MAX_RANK, MAX_BATCH_ADAPTERS = 64, 8


@dataclass(frozen=True, slots=True)
class VllmModel:
    """A base model in a vLLM engine."""

    tokenizer: Any
    positions: int
    engine: Any
    ends: tuple[int, ...]
    rows: int | None = None
    exact: bool = False  # its kernels round differently


class VllmBackend:
    """Answers requests on its own event loop until it is closed; an `InferenceBackend`."""

    def __init__(self, memory_share: float) -> None:
        self._share = memory_share
        self._bases: dict[tuple[str, str], VllmModel] = {}
        self._loading, self._unfinished = threading.Lock(), InFlightCounter()
        self._requests, self._numbers = itertools.count(), itertools.count(1)
        # vLLM identifies an adapter by a number, which must never be reused.
        self._adapters: dict[ServedModel, int] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="answering", daemon=True
        )
        self._thread.start()

    def base(self, served: ServedModel) -> VllmModel:
        """Return the base of a model, loading it if necessary."""
        key = served.base, served.precision
        loaded = self._bases.get(key)
        if loaded is not None:
            return loaded
        with self._loading:
            if key not in self._bases:
                self._bases[key] = _start_engine(served, self._share)
            return self._bases[key]

    def submit(self, served: ServedModel, request: GenerationRequest) -> None:
        """Start answering a request; return at once."""
        answering = self._answer(served, self._unfinished.track(request))
        asyncio.run_coroutine_threadsafe(answering, self._loop)

    def forget(self, served: ServedModel) -> None:
        """Drop a deleted model's weights later; return at once."""
        asyncio.run_coroutine_threadsafe(self._forget(served), self._loop)

    def unfinished(self) -> int:
        """Return the number of requests in flight."""
        return len(self._unfinished)

    def close(self) -> None:
        """Stop the engines; requests in flight get no answer."""
        asyncio.run_coroutine_threadsafe(self._cancel_all(), self._loop).result()
        for base in self._bases.values():
            base.engine.shutdown()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _cancel_all(self) -> None:
        """Cancel all requests."""
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _forget(self, served: ServedModel) -> None:
        """Remove a model's adapter from its engine."""
        number = self._adapters.pop(served, None)
        base = self._bases.get((served.base, served.precision))
        if number is not None and base is not None:
            await base.engine.remove_lora(number)

    async def _answer(self, served: ServedModel, request: GenerationRequest) -> None:
        """Answer a request, or report why it fails."""
        if served.is_gone():
            fail_request(request, "the model was deleted", GONE)
            return
        try:
            base = await asyncio.to_thread(self.base, served)
            await self._told(base, served, request)
        except Exception as error:
            fail_request(request, describe_error(error))

    async def _told(self, base: VllmModel, served: ServedModel, request: GenerationRequest) -> None:
        """Report a generation until it is complete."""
        answer = Generation(request, base.tokenizer)
        outputs = base.engine.generate(
            {"prompt_token_ids": request.ids},
            _build_sampling_params(request, base.ends),
            str(next(self._requests)),
            lora_request=self._build_lora_request(served),
        )
        # Leaving the context closes the generator, which makes vLLM abort the request.
        async with contextlib.aclosing(outputs):
            async for output in outputs:
                answer.tokens_cached = output.num_cached_tokens or 0
                new = output.outputs[0]
                logprobs = new.logprobs or [None] * len(new.token_ids)
                for token, chance in zip(new.token_ids, logprobs, strict=True):
                    if chance is not None:
                        answer.add_logprob(_convert_logprob(token, chance, request.logprobs or 0))
                    if answer.accept_token(token, token in base.ends):
                        return
        answer.finish()  # by an end token that vLLM does not return

    def _build_lora_request(self, served: ServedModel) -> Any:
        """Return vLLM's reference to a model's adapter; None for the base alone."""
        if served.adapter is None:
            return None
        from vllm.lora.request import LoRARequest

        if served not in self._adapters:
            self._adapters[served] = next(self._numbers)
        return LoRARequest(
            lora_name=served.name,
            lora_int_id=self._adapters[served],
            lora_path=str(served.adapter),
        )


def _start_engine(served: ServedModel, share: float) -> VllmModel:
    """Start an engine for a base model."""
    from tuneoff.inference.stopping import load_end_tokens
    from tuneoff.inference.vllm import set_environment
    from tuneoff.models.embedding import count_rows
    from tuneoff.models.loading import choose_dtype, count_positions, load_tokenizer

    set_environment()
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    tokenizer = load_tokenizer(served.base)
    positions = min(count_positions(served.base), TYPICAL_POSITIONS)
    engine = AsyncLLM.from_engine_args(
        AsyncEngineArgs(
            model=served.base,
            dtype=str(choose_dtype(served.precision)).removeprefix("torch."),
            max_model_len=positions,
            gpu_memory_utilization=share,
            enable_prefix_caching=True,
            enable_lora=True,
            max_lora_rank=MAX_RANK,
            max_loras=MAX_BATCH_ADAPTERS,
            disable_log_stats=True,
        )
    )
    ends = load_end_tokens(served.base, tokenizer)
    return VllmModel(tokenizer, positions, engine, ends, count_rows(served.base))


def _build_sampling_params(request: GenerationRequest, ends: tuple[int, ...]) -> Any:
    """Return the sampling parameters of a request."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=request.temperature,
        top_p=request.top_p,
        seed=request.seed,
        max_tokens=request.max_tokens,
        logprobs=request.logprobs,
        stop_token_ids=list(ends),
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
    )


def _convert_logprob(token: int, found: dict[int, Any], count: int) -> TokenLogprob:
    """Convert vLLM's log-probabilities of a token."""
    best = sorted(((id, candidate.logprob) for id, candidate in found.items()), key=lambda x: -x[1])
    return TokenLogprob(token, found[token].logprob, tuple(best[:count]))
