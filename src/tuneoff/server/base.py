"""A loaded base model with its adapters, and the engines that answer for them.

All adapters share the base's weights and one engine, in whose batch every row has its own adapter.
Requests that the engine cannot answer exactly (`generation/support.py` says why) go to
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

from tuneoff.models.embedding import find_beyond
from tuneoff.models.loading import Precision
from tuneoff.server.adapters import Adapters
from tuneoff.server.answer import GONE, Piece, Request, first_line, refuse

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tuneoff.server.alone import Alone
    from tuneoff.server.live import LiveEngine

Quantization = Literal["none", "int8", "nf4"]
SLOTS = 64
MOST_POSITIONS = 131_072
# Tokens of prompt and answer; longer texts are rare. When memory is short, reduce the number of
# slots before reducing their length.
USUAL_TOKENS = 8_192
# Slots are at least this long, even if the estimate says that memory is too short.
LEAST_POSITIONS = 512
# Share of the KV cache, in tokens, for prefixes that no request is using.
KEPT_SHARE = 0.25
# Share of the free memory, after the base is loaded, for adapters that no request is using. It is
# not reserved: where there is less, fewer requests are answered at a time.
ADAPTERS_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Served:
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
class Room:
    """How much of the KV cache a base model may use."""

    slots: int
    """Number of requests answered at a time."""
    positions: int
    """Maximum length of each, prompt and answer, in tokens."""
    kept_tokens: int
    """Tokens of cached prefixes that no request is using."""
    bytes: int
    """Memory in bytes that all of these take."""


class Base:
    """One base model. A single thread must use it; only loading, `tokenizer` and `positions` are
    safe elsewhere."""

    def __init__(self, served: Served, promised_bytes: int = 0) -> None:
        """Load the base model; `promised_bytes` of the free memory belong to others."""
        from tuneoff.generation.batched import embedding_rows
        from tuneoff.models.free_memory import available_bytes
        from tuneoff.models.loading import dtype_of, load_model, load_tokenizer, positions_of
        from tuneoff.models.mixed_lora import MixedLora

        self.tokenizer: PreTrainedTokenizerBase = load_tokenizer(served.base)
        dtype = dtype_of(served.precision)
        self.model: Any = load_model(served.base, served.quantization, dtype).eval()
        self.room = _room(self.model, self.tokenizer, positions_of(served.base), promised_bytes)
        self.positions = self.room.positions
        self.rows: int | None = embedding_rows(self.model)
        self._quantization = served.quantization
        self._mixer = MixedLora()
        free = max(0, available_bytes(self.model.device) - promised_bytes)
        self._adapters = Adapters(self.model, self._mixer, int(free * ADAPTERS_SHARE), self._forget)
        self._engine: LiveEngine | None = None
        self._alone: deque[tuple[Served, Request]] = deque()
        self._answering: tuple[Served, Alone] | None = None

    @property
    def exact(self) -> bool:
        """Return whether its answers must equal the scored ones, except for near-ties."""
        import torch

        return self._quantization == "none" and bool(self.model.dtype == torch.float32)

    def busy(self) -> bool:
        """Return whether any request is waiting or being answered."""
        alone = self._alone or self._answering is not None
        return bool(alone or (self._engine is not None and self._engine.busy()))

    def unused_bytes(self) -> int:
        """Return the bytes of its capacity that it does not hold now and may need at any time."""
        held = sum(self._engine.cache.nbytes()) if self._engine is not None else 0
        return max(0, self.room.bytes - held)

    def drop(self) -> None:
        """Release the model, its adapters and its engine; clients may still be reading the rest."""
        self.model = self._adapters = self._engine = None  # type: ignore[assignment]
        self._mixer.forget()

    def join(self, asked: Sequence[tuple[Served, Request]]) -> None:
        """Queue requests; those that cannot be answered fail with the reason."""
        batched: list[tuple[str | None, Request]] = []
        # Adapters of these requests must stay attached before the engine has them.
        busy = partial(self._busy_adapters, [served for served, _ in asked])
        for served, request in asked:
            if len(request.ids) + request.max_tokens > self.positions:
                # The model had more memory when the request was checked, and was loaded again
                # since.
                refuse(request, f"there is memory for {self.positions} tokens now; try again later")
                continue
            if find_beyond(request.ids, self.rows) is not None:
                refuse(request, "the prompt holds a token that the model has no embedding for")
                continue
            try:
                self._adapters.put_on(served, busy)
                reason = self._unserved(served, request)
            except Exception as error:
                if served.is_gone():  # perhaps while it was loading
                    refuse(request, "the model was deleted", GONE)
                else:
                    refuse(request, first_line(error))
                continue
            if reason is None:
                batched.append((self._adapters.name(served), request))
            else:
                self._alone.append((served, request))
        if batched:
            try:
                self._engine = self._engine or self._new_engine()
                self._engine.join(batched)
            except Exception as error:
                self._failed(error)
                for _, request in batched:
                    refuse(request, first_line(error))

    def advance(self) -> None:
        """Run one step of the batch, and one of the request that is answered alone."""
        if self._engine is not None and self._engine.busy():
            self._step(self._engine)
        if self._answering is None and self._alone:
            self._begin_alone(*self._alone.popleft())
        if self._answering is not None:
            self._step_alone(*self._answering)

    def close(self) -> None:
        """Abort all requests without reporting to them."""
        if self._answering is not None:
            self._answering[1].close()

    def _step(self, engine: LiveEngine) -> None:
        """Run one step of the engine; when it is idle, free what it can."""
        from tuneoff.generation.forward import serving

        try:
            with serving(self.model):
                engine.advance()
            if not engine.busy():
                engine.rest()
                self.drop_gone()
        except Exception as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        """Fail all requests of the batch; the next batch starts with a new engine.

        Raising the error would end the thread that answers all requests.
        """
        logging.getLogger(__name__).error("the batch failed", exc_info=error)
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.fail(first_line(error))

    def _begin_alone(self, served: Served, request: Request) -> None:
        """Start answering a request with `transformers.generate`."""
        from tuneoff.generation.ending import ending_of
        from tuneoff.server.alone import Alone

        if request.cancelled.is_set():
            request.tell(Piece("", finish_reason="stop"))
            return
        ending = ending_of(self.model, self.tokenizer, ())
        self._answering = served, Alone(self.model, ending, request)

    def _step_alone(self, served: Served, alone: Alone) -> None:
        """Generate one token of the request that is answered alone."""
        try:
            with self._adapters.active(served):
                alone.advance()
        except Exception as error:
            alone.close()
            refuse(alone.request, first_line(error))
            self._answering = None
        if alone.complete:
            self._answering = None

    def _unserved(self, served: Served, request: Request) -> str | None:
        """Return why the engine cannot answer a request; None if it can."""
        from tuneoff.generation.support import unserved

        reason = unserved(self.model, [request.ids], request.max_tokens)
        return reason or self._adapters.unmixed(served)

    def _new_engine(self) -> LiveEngine:
        """Build an empty engine for this model."""
        from tuneoff.generation.ending import ending_of
        from tuneoff.server.live import LiveEngine

        ending = ending_of(self.model, self.tokenizer, ())
        room = self.room
        return LiveEngine(
            self.model, ending, self._mixer, room.slots, room.positions, room.kept_tokens
        )

    def drop_gone(self) -> None:
        """Detach the adapters of deleted models, except those in use."""
        self._adapters.drop_gone(self._busy_adapters())

    def _busy_adapters(self, joining: Iterable[Served] = ()) -> set[str | None]:
        """Return the adapters that requests are using or waiting for."""
        busy = self._engine.adapters_in_use() if self._engine is not None else set()
        answering = (self._answering[0],) if self._answering is not None else ()
        waiting = itertools.chain((served for served, _ in self._alone), answering, joining)
        return busy | {self._adapters.name(served) for served in waiting}

    def _forget(self, adapter: str) -> None:
        """Drop what the engine caches for an adapter."""
        if self._engine is not None:
            self._engine.forget(adapter)


def _room(model: Any, tokenizer: Any, positions: int, promised_bytes: int) -> Room:
    """Return the capacity that fits into memory even if every request has the maximum length."""
    from tuneoff.generation.support import tokens_that_fit, unserved
    from tuneoff.training.encoding import text_ids

    unserved(model, [text_ids(tokenizer, "a trial")], 1)  # this call measures the bytes of a token
    tokens, size = tokens_that_fit(model, promised_bytes)
    if size == 0:  # no engine: one request at a time
        return Room(1, min(positions, MOST_POSITIONS), 0, 0)
    kept_tokens = int(tokens * KEPT_SHARE)
    slots = max(1, min(SLOTS, (tokens - kept_tokens) // min(positions, USUAL_TOKENS)))
    # The same division the other way round: tokens per slot.
    least = min(positions, LEAST_POSITIONS)
    slot_tokens = max(least, min(positions, MOST_POSITIONS, (tokens - kept_tokens) // slots))
    return Room(slots, slot_tokens, kept_tokens, (slots * slot_tokens + kept_tokens) * size)
