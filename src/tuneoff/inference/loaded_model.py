"""A loaded base model with its adapters, and the engines that answer for them.

All adapters share the base's weights and one engine, in whose batch every row has its own adapter.
Requests that the engine cannot answer exactly (`inference/engine_check.py` says why) go to
`transformers.generate`, one after another, taking turns with the engine's steps. Requests for a
deleted adapter fail with `GONE`.
"""

from __future__ import annotations

import datetime
import itertools
import logging
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tuneoff.inference.adapters import Adapters
from tuneoff.inference.requests import GONE, Delta, GenerationRequest, describe_error, fail_request
from tuneoff.models.embedding import find_unknown_token
from tuneoff.models.loading import Precision

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tuneoff.inference.continuous_batching import ContinuousBatchingEngine
    from tuneoff.inference.single_request import SingleRequestGenerator

Quantization = Literal["none", "int8", "nf4"]
MAX_SLOTS = 64
MAX_POSITIONS = 131_072
# Tokens of prompt and answer; longer texts are rare. When memory is short, reduce the number of
# slots before reducing their length.
TYPICAL_POSITIONS = 8_192
# Slots are at least this long, even if the estimate says that memory is too short.
MIN_POSITIONS = 512
# Share of the KV cache, in tokens, for prefixes that no request is using.
PREFIX_CACHE_SHARE = 0.25
# Share of the free memory, after the base is loaded, for adapters that no request is using. It is
# not reserved: where there is less, fewer requests are answered at a time.
ADAPTERS_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that clients may request."""

    name: str
    """The name that clients use."""
    base: str
    """What transformers loads the base from."""
    adapter: Path | None = None
    """Folder of its adapter; None: the base alone."""
    precision: Precision = "auto"
    quantization: Quantization = "none"
    today: datetime.date | None = None
    """The date for chat templates that ask for one."""

    def is_gone(self) -> bool:
        """Return whether its adapter was deleted."""
        return self.adapter is not None and not self.adapter.is_dir()


@dataclass(frozen=True, slots=True)
class Capacity:
    """How much of the KV cache a base model may use."""

    slots: int
    """Number of requests answered at a time."""
    positions: int
    """Maximum length of each, prompt and answer, in tokens."""
    kept_tokens: int
    """Tokens of cached prefixes that no request is using."""
    bytes: int
    """Memory in bytes that all of these take."""


class LoadedModel:
    """One base model. A single thread must use it; only loading, `tokenizer` and `positions` are
    safe elsewhere."""

    def __init__(self, served: ServedModel, promised_bytes: int = 0) -> None:
        """Load the base model; `promised_bytes` of the free memory belong to others."""
        from tuneoff.inference.generate import count_embedding_rows
        from tuneoff.models.loading import choose_dtype, count_positions, load_model, load_tokenizer
        from tuneoff.models.lora import MixedLora
        from tuneoff.models.memory import measure_available_bytes

        self.tokenizer: PreTrainedTokenizerBase = load_tokenizer(served.base)
        dtype = choose_dtype(served.precision)
        self.model: Any = load_model(served.base, served.quantization, dtype).eval()
        self.room = _compute_capacity(
            self.model, self.tokenizer, count_positions(served.base), promised_bytes
        )
        self.positions = self.room.positions
        self.rows: int | None = count_embedding_rows(self.model)
        self._quantization = served.quantization
        self._mixer = MixedLora()
        free = max(0, measure_available_bytes(self.model.device) - promised_bytes)
        self._adapters = Adapters(self.model, self._mixer, int(free * ADAPTERS_SHARE), self._forget)
        self._engine: ContinuousBatchingEngine | None = None
        self._alone: deque[tuple[ServedModel, GenerationRequest]] = deque()
        self._answering: tuple[ServedModel, SingleRequestGenerator] | None = None

    @property
    def exact(self) -> bool:
        """Return whether its answers must equal the scored ones, except for near-ties."""
        import torch

        return self._quantization == "none" and bool(self.model.dtype == torch.float32)

    def busy(self) -> bool:
        """Return whether any request is waiting or being answered."""
        alone = self._alone or self._answering is not None
        return bool(alone or (self._engine is not None and self._engine.is_busy()))

    def count_unused_bytes(self) -> int:
        """Return the bytes of its capacity that it does not hold now and may need at any time."""
        held = sum(self._engine.cache.nbytes()) if self._engine is not None else 0
        return max(0, self.room.bytes - held)

    def drop(self) -> None:
        """Release the model, its adapters and its engine; clients may still be reading the rest."""
        self.model = self._adapters = self._engine = None  # type: ignore[assignment]
        self._mixer.drop_copies()

    def join(self, asked: Sequence[tuple[ServedModel, GenerationRequest]]) -> None:
        """Queue requests; those that cannot be answered fail with the reason."""
        batched: list[tuple[str | None, GenerationRequest]] = []
        # Adapters of these requests must stay attached before the engine has them.
        busy = partial(self._list_busy_adapters, [served for served, _ in asked])
        for served, request in asked:
            if len(request.ids) + request.max_tokens > self.positions:
                # The model had more memory when the request was checked, and was loaded again
                # since.
                fail_request(
                    request, f"there is memory for {self.positions} tokens now; try again later"
                )
                continue
            if find_unknown_token(request.ids, self.rows) is not None:
                fail_request(
                    request, "the prompt holds a token that the model has no embedding for"
                )
                continue
            try:
                self._adapters.attach(served, busy)
                reason = self._explain_unsupported(served, request)
            except Exception as error:
                if served.is_gone():  # perhaps while it was loading
                    fail_request(request, "the model was deleted", GONE)
                else:
                    fail_request(request, describe_error(error))
                continue
            if reason is None:
                batched.append((self._adapters.get_name(served), request))
            else:
                self._alone.append((served, request))
        if batched:
            try:
                self._engine = self._engine or self._build_engine()
                self._engine.join(batched)
            except Exception as error:
                self._fail_batch(error)
                for _, request in batched:
                    fail_request(request, describe_error(error))

    def advance(self) -> None:
        """Run one step of the batch, and one of the request that is answered alone."""
        if self._engine is not None and self._engine.is_busy():
            self._step(self._engine)
        if self._answering is None and self._alone:
            self._start_single(*self._alone.popleft())
        if self._answering is not None:
            self._step_single(*self._answering)

    def close(self) -> None:
        """Abort all requests without reporting to them."""
        if self._answering is not None:
            self._answering[1].close()

    def _step(self, engine: ContinuousBatchingEngine) -> None:
        """Run one step of the engine; when it is idle, free what it can."""
        from tuneoff.inference.attention import use_shared_attention

        try:
            with use_shared_attention(self.model):
                engine.advance()
            if not engine.is_busy():
                engine.rest()
                self.detach_deleted()
        except Exception as error:
            self._fail_batch(error)

    def _fail_batch(self, error: Exception) -> None:
        """Fail all requests of the batch; the next batch starts with a new engine.

        Raising the error would end the thread that answers all requests.
        """
        logging.getLogger(__name__).error("the batch failed", exc_info=error)
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.fail(describe_error(error))

    def _start_single(self, served: ServedModel, request: GenerationRequest) -> None:
        """Start answering a request with `transformers.generate`."""
        from tuneoff.inference.single_request import SingleRequestGenerator
        from tuneoff.inference.stopping import build_stop_criteria

        if request.cancelled.is_set():
            request.tell(Delta("", finish_reason="stop"))
            return
        ending = build_stop_criteria(self.model, self.tokenizer, ())
        self._answering = served, SingleRequestGenerator(self.model, ending, request)

    def _step_single(self, served: ServedModel, alone: SingleRequestGenerator) -> None:
        """Generate one token of the request that is answered alone."""
        try:
            with self._adapters.activate(served):
                alone.advance()
        except Exception as error:
            alone.close()
            fail_request(alone.request, describe_error(error))
            self._answering = None
        if alone.complete:
            self._answering = None

    def _explain_unsupported(self, served: ServedModel, request: GenerationRequest) -> str | None:
        """Return why the engine cannot answer a request; None if it can."""
        from tuneoff.inference.engine_check import explain_unsupported

        reason = explain_unsupported(self.model, [request.ids], request.max_tokens)
        return reason or self._adapters.explain_unmixed(served)

    def _build_engine(self) -> ContinuousBatchingEngine:
        """Build an empty engine for this model."""
        from tuneoff.inference.continuous_batching import ContinuousBatchingEngine
        from tuneoff.inference.stopping import build_stop_criteria

        ending = build_stop_criteria(self.model, self.tokenizer, ())
        room = self.room
        return ContinuousBatchingEngine(
            self.model, ending, self._mixer, room.slots, room.positions, room.kept_tokens
        )

    def detach_deleted(self) -> None:
        """Detach the adapters of deleted models, except those in use."""
        self._adapters.detach_deleted(self._list_busy_adapters())

    def _list_busy_adapters(self, joining: Iterable[ServedModel] = ()) -> set[str | None]:
        """Return the adapters that requests are using or waiting for."""
        busy = self._engine.list_adapters_in_use() if self._engine is not None else set()
        answering = (self._answering[0],) if self._answering is not None else ()
        waiting = itertools.chain((served for served, _ in self._alone), answering, joining)
        return busy | {self._adapters.get_name(served) for served in waiting}

    def _forget(self, adapter: str) -> None:
        """Drop what the engine caches for an adapter."""
        if self._engine is not None:
            self._engine.forget(adapter)


def _compute_capacity(model: Any, tokenizer: Any, positions: int, promised_bytes: int) -> Capacity:
    """Return the capacity that fits into memory even if every request has the maximum length."""
    from tuneoff.inference.engine_check import count_tokens_that_fit, explain_unsupported
    from tuneoff.tokenization.examples import encode_plain_text

    explain_unsupported(
        model, [encode_plain_text(tokenizer, "a trial")], 1
    )  # this call measures the bytes of a token
    tokens, size = count_tokens_that_fit(model, promised_bytes)
    if size == 0:  # no engine: one request at a time
        return Capacity(1, min(positions, MAX_POSITIONS), 0, 0)
    kept_tokens = int(tokens * PREFIX_CACHE_SHARE)
    slots = max(1, min(MAX_SLOTS, (tokens - kept_tokens) // min(positions, TYPICAL_POSITIONS)))
    # The same division the other way round: tokens per slot.
    least = min(positions, MIN_POSITIONS)
    slot_tokens = max(least, min(positions, MAX_POSITIONS, (tokens - kept_tokens) // slots))
    return Capacity(slots, slot_tokens, kept_tokens, (slots * slot_tokens + kept_tokens) * size)
