"""The thread that answers: bases with their adapters, and one live engine for each model in use.

A base is loaded when it is first asked for, and its adapters are put on it; they share its
weights. Engines take turns, a step each, with their own adapter switched on. An adapter whose
folder is gone (a deleted model, a checkpoint that newer ones replaced) is asked for in vain, and
taken off the base as soon as nobody is answered by it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import queue
import threading
from collections.abc import Container, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneoff.models.loading import Precision
from tuneoff.server.live import LiveEngine, Piece, Request

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SLOTS = 64
MOST_POSITIONS = 131_072
# Prompt and answer together are hardly ever longer; where memory is short, fewer texts at a time
# may be this long rather than more of them shorter.
USUAL_TOKENS = 8_192
BLANK = "blank"
# Why a piece ends an answer that there will not be.
ERROR, GONE = "error", "gone"


@dataclass(frozen=True, slots=True)
class Served:
    """A model that may be asked: its name, what its base is loaded from, its adapter."""

    name: str
    base: str
    adapter: Path | None = None
    precision: Precision = "auto"

    def is_gone(self) -> bool:
        """Whether its adapter was deleted."""
        return self.adapter is not None and not self.adapter.is_dir()


class Base:
    """A loaded base, with the adapters that were asked for so far."""

    def __init__(self, base: str, precision: Precision) -> None:
        from tuneoff.models.loading import dtype_of, load_model, load_tokenizer, positions_of

        self.tokenizer: PreTrainedTokenizerBase = load_tokenizer(base)
        self.model: PreTrainedModel = load_model(base, "none", dtype_of(precision)).eval()
        self.slots, self.positions = _room(self.model, self.tokenizer, positions_of(base))
        # The name that PEFT knows each model's adapter by.
        self._adapters: dict[Served, str] = {}
        self._names = (f"adapter-{number}" for number in itertools.count())

    def prepare(self, served: Served) -> None:
        """Puts the model's adapter on the base, if it is not there."""
        if served.adapter is None or served in self._adapters:
            return
        import peft

        name, model = next(self._names), self.model
        if isinstance(model, peft.PeftModel):
            model.load_adapter(str(served.adapter), adapter_name=name)
        else:
            loaded: Any = peft.PeftModel.from_pretrained(
                model, str(served.adapter), adapter_name=name
            )
            self.model = loaded
        self.model.eval()
        self._adapters[served] = name

    def drop_gone(self, busy: Container[Served]) -> None:
        """Takes off adapters that were deleted, but those of `busy`."""
        gone = [each for each in self._adapters if each not in busy and each.is_gone()]
        model: Any = self.model
        for served in gone:
            name = self._adapters.pop(served)
            # PEFT cannot answer without any adapter; one of rank 1 that changes nothing stays.
            if len(model.peft_config) == 1:
                blank = dataclasses.replace(
                    model.peft_config[name], r=1, rank_pattern={}, alpha_pattern={},
                    init_lora_weights=True, use_dora=False,
                )  # fmt: skip
                model.add_adapter(BLANK, blank)
            model.set_adapter(next(each for each in model.peft_config if each != name))
            model.delete_adapter(name)

    @contextlib.contextmanager
    def active(self, served: Served) -> Iterator[None]:
        """While inside, the base is this model."""
        model: Any = self.model
        if served.adapter is not None:
            model.set_adapter(self._adapters[served])
            yield
        elif hasattr(model, "disable_adapter"):  # it had adapters once
            with model.disable_adapter():
                yield
        else:
            yield


class Host:
    """Answers requests on a thread of its own until it is closed."""

    def __init__(self) -> None:
        self._queue: queue.Queue[tuple[Served, Request | None] | None] = queue.Queue()
        self._bases: dict[tuple[str, Precision], Base] = {}
        self._engines: dict[Served, LiveEngine] = {}
        self._loading, self._counting = threading.Lock(), threading.Lock()
        self._unfinished = 0
        self._thread = threading.Thread(target=self._run, name="answering", daemon=True)
        self._thread.start()

    def base(self, served: Served) -> Base:
        """The base of a model, loaded if nobody asked before."""
        key = served.base, served.precision
        loaded = self._bases.get(key)  # without waiting for another that is being loaded
        if loaded is not None:
            return loaded
        with self._loading:
            if key not in self._bases:
                self._bases[key] = Base(*key)
            return self._bases[key]

    def submit(self, served: Served, request: Request) -> None:
        """Has a request answered; returns at once."""
        with self._counting:
            self._unfinished += 1
        tell = request.tell

        def counted(piece: Piece) -> None:
            if piece.finish_reason is not None:
                with self._counting:
                    self._unfinished -= 1
            tell(piece)

        self._queue.put((served, replace(request, tell=counted)))

    def forget(self, served: Served) -> None:
        """Has a deleted model's weights dropped; returns at once. Who is being answered by it
        still is, to the end."""
        self._queue.put((served, None))

    def unfinished(self) -> int:
        """Answers that are wanted and not complete."""
        with self._counting:
            return self._unfinished

    def close(self) -> None:
        """Ends the thread; what is under way is not answered."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            taken = self._taken()
            if taken is None:
                return
            for served, requests in taken.items():
                self._join(served, requests)
            for served in list(self._engines):
                self._advance(served)

    def _taken(self) -> dict[Served, list[Request]] | None:
        """What was asked meanwhile, by model; waits when there is nothing to do."""
        found: dict[Served, list[Request]] = {}
        wait = not self._engines
        while True:
            try:
                item = self._queue.get(block=wait)
            except queue.Empty:
                return found
            if item is None:
                return None
            requests = found.setdefault(item[0], [])
            if item[1] is not None:
                requests.append(item[1])
            wait = False

    def _join(self, served: Served, requests: list[Request]) -> None:
        try:
            if served.is_gone():
                self._refuse(served, requests)
                return
            base = self.base(served)
            if served not in self._engines:
                base.drop_gone(self._engines)
            base.prepare(served)
            with base.active(served):
                fine = [request for request in requests if _is_served(base, request)]
                if fine and served not in self._engines:
                    self._engines[served] = _engine(base)
                if fine:
                    self._engines[served].join(fine)
        except Exception as error:
            if served.is_gone():  # while it was being loaded
                self._refuse(served, requests)
                return
            for request in requests:
                request.tell(Piece("", finish_reason=ERROR, error=_first_line(error)))

    def _refuse(self, served: Served, requests: list[Request]) -> None:
        """Says that a model is gone, and drops what there is of it."""
        for request in requests:
            request.tell(Piece("", finish_reason=GONE, error="the model was deleted"))
        self._drop_gone(served)

    def _drop_gone(self, served: Served) -> None:
        base = self._bases.get((served.base, served.precision))
        if base is not None:
            base.drop_gone(self._engines)

    def _advance(self, served: Served) -> None:
        from tuneoff.generation.forward import serving

        engine, base = self._engines[served], self.base(served)
        try:
            with base.active(served), serving(base.model):
                engine.advance()
        except Exception as error:
            engine.fail(_first_line(error))
            del self._engines[served]
            return
        if not engine.busy():
            del self._engines[served]
            if served.is_gone():
                self._drop_gone(served)


def _room(model: Any, tokenizer: Any, positions: int) -> tuple[int, int]:
    """How many texts are answered at a time, and how long each may be, so that their keys and
    values fit into memory even if all of them are that long."""
    from tuneoff.generation.support import rows_that_fit, unserved
    from tuneoff.training.encoding import text_ids

    unserved(model, [text_ids(tokenizer, "a trial")], 1)  # which measures a token's size
    slots = min(SLOTS, rows_that_fit(model, min(positions, USUAL_TOKENS)))
    # The same division the other way round: tokens for each of so many rows.
    return slots, min(positions, MOST_POSITIONS, rows_that_fit(model, slots))


def _is_served(base: Base, request: Request) -> bool:
    """Whether the engine can answer this; if not, it is told why."""
    from tuneoff.generation.support import unserved

    reason = unserved(base.model, [request.ids], request.max_tokens)
    if reason is not None:
        error = f"this model cannot be served: {reason}"
        request.tell(Piece("", finish_reason=ERROR, error=error))
    return reason is None


def _engine(base: Base) -> LiveEngine:
    from tuneoff.generation.ending import ending_of

    ends = ending_of(base.model, base.tokenizer, ()).ends
    return LiveEngine(base.model, base.tokenizer, ends, base.slots, base.positions)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
