"""A loaded base with the adapters that were asked for, and what answers for all of them.

All adapters share the base's weights and one engine, in whose batch every row has its own. What
the engine cannot answer exactly (`generation/support.py` says why) `transformers.generate` does,
one request after another, in turn with the engine's steps. An adapter whose folder is gone is
asked for in vain.
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
# Prompt and answer together are hardly ever longer; where memory is short, fewer texts at a time
# may be this long rather than more of them shorter.
USUAL_TOKENS = 8_192
# A text may be this long though memory does not seem to be there.
LEAST_POSITIONS = 512
# Of the tokens that there is memory for, those of prefixes that nobody uses just now.
KEPT_SHARE = 0.25
# Of the memory that is free when a base is there, what adapters may take that nobody asks for just
# now. It is not promised: where there is less, fewer texts are answered at a time.
ADAPTERS_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Served:
    """A model that may be asked: its name, what its base is loaded from and how, its adapter, and
    the date that a chat template which asks is told."""

    name: str
    base: str
    adapter: Path | None = None
    precision: Precision = "auto"
    quantization: Quantization = "none"
    today: datetime.date | None = None

    def is_gone(self) -> bool:
        """Whether its adapter was deleted."""
        return self.adapter is not None and not self.adapter.is_dir()


@dataclass(frozen=True, slots=True)
class Room:
    """How many texts are answered at a time, how long each may be, how many tokens of prefixes
    are kept besides; and the bytes that all of those take."""

    slots: int
    positions: int
    kept_tokens: int
    bytes: int


class Base:
    """One base. All but loading and reading `tokenizer` and `positions` is done by one thread."""

    def __init__(self, served: Served, promised_bytes: int = 0) -> None:
        """Loads it; `promised_bytes` of the memory that is free now are others'."""
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
        """Whether its answers must be those that were scored, but for near-ties."""
        import torch

        return self._quantization == "none" and bool(self.model.dtype == torch.float32)

    def busy(self) -> bool:
        """Whether there is anything to do."""
        alone = self._alone or self._answering is not None
        return bool(alone or (self._engine is not None and self._engine.busy()))

    def unused_bytes(self) -> int:
        """What of its room it does not hold now, and may want at any time."""
        held = sum(self._engine.cache.nbytes()) if self._engine is not None else 0
        return max(0, self.room.bytes - held)

    def drop(self) -> None:
        """Lets go of everything but what clients may be reading."""
        self.model = self._adapters = self._engine = None  # type: ignore[assignment]
        self._mixer.forget()

    def join(self, asked: Sequence[tuple[Served, Request]]) -> None:
        """Lets requests wait for their answers; what cannot be answered is told why."""
        batched: list[tuple[str | None, Request]] = []
        # Whose requests are taken here and not yet in the engine keep their adapters, too.
        busy = partial(self._busy_adapters, [served for served, _ in asked])
        for served, request in asked:
            if len(request.ids) + request.max_tokens > self.positions:
                # It had more room when the request was looked at, and was loaded again since.
                refuse(request, f"there is memory for {self.positions} tokens now; try again later")
                continue
            if find_beyond(request.ids, self.rows) is not None:
                refuse(request, "the prompt holds a token that the model has no embedding for")
                continue
            try:
                self._adapters.put_on(served, busy)
                reason = self._unserved(served, request)
            except Exception as error:
                if served.is_gone():  # maybe while it was being loaded
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
        """One step for all that are in the batch, and one of the answer that is made alone."""
        if self._engine is not None and self._engine.busy():
            self._step(self._engine)
        if self._answering is None and self._alone:
            self._begin_alone(*self._alone.popleft())
        if self._answering is not None:
            self._step_alone(*self._answering)

    def close(self) -> None:
        """Breaks off; who waits for an answer is told nothing."""
        if self._answering is not None:
            self._answering[1].close()

    def _step(self, engine: LiveEngine) -> None:
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
        """The batch cannot go on: all in it are told so, and the next one begins anew. (Raised
        further, it would end the thread that answers for everybody.)"""
        logging.getLogger(__name__).error("the batch failed", exc_info=error)
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.fail(first_line(error))

    def _begin_alone(self, served: Served, request: Request) -> None:
        from tuneoff.generation.ending import ending_of
        from tuneoff.server.alone import Alone

        if request.cancelled.is_set():
            request.tell(Piece("", finish_reason="stop"))
            return
        ending = ending_of(self.model, self.tokenizer, ())
        self._answering = served, Alone(self.model, ending, request)

    def _step_alone(self, served: Served, alone: Alone) -> None:
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
        """Why the engine cannot answer this."""
        from tuneoff.generation.support import unserved

        reason = unserved(self.model, [request.ids], request.max_tokens)
        return reason or self._adapters.unmixed(served)

    def _new_engine(self) -> LiveEngine:
        from tuneoff.generation.ending import ending_of
        from tuneoff.server.live import LiveEngine

        ending = ending_of(self.model, self.tokenizer, ())
        room = self.room
        return LiveEngine(
            self.model, ending, self._mixer, room.slots, room.positions, room.kept_tokens
        )

    def drop_gone(self) -> None:
        """Takes off adapters that were deleted, but those that somebody is answered with."""
        self._adapters.drop_gone(self._busy_adapters())

    def _busy_adapters(self, joining: Iterable[Served] = ()) -> set[str | None]:
        """The adapters that somebody is answered with, or waits for."""
        busy = self._engine.adapters_in_use() if self._engine is not None else set()
        answering = (self._answering[0],) if self._answering is not None else ()
        waiting = itertools.chain((served for served, _ in self._alone), answering, joining)
        return busy | {self._adapters.name(served) for served in waiting}

    def _forget(self, adapter: str) -> None:
        if self._engine is not None:
            self._engine.forget(adapter)


def _room(model: Any, tokenizer: Any, positions: int, promised_bytes: int) -> Room:
    """What fits into memory even if all texts are as long as they may be."""
    from tuneoff.generation.support import tokens_that_fit, unserved
    from tuneoff.training.encoding import text_ids

    unserved(model, [text_ids(tokenizer, "a trial")], 1)  # which measures a token's size
    tokens, size = tokens_that_fit(model, promised_bytes)
    if size == 0:  # another way to answer, one at a time
        return Room(1, min(positions, MOST_POSITIONS), 0, 0)
    kept = int(tokens * KEPT_SHARE)
    slots = max(1, min(SLOTS, (tokens - kept) // min(positions, USUAL_TOKENS)))
    # The same division the other way round: tokens for each of so many rows.
    least = min(positions, LEAST_POSITIONS)
    each = max(least, min(positions, MOST_POSITIONS, (tokens - kept) // slots))
    return Room(slots, each, kept, (slots * each + kept) * size)
