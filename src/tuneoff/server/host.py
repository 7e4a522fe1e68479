"""The thread that answers, and the bases that it answers with.

A base is loaded when it is first asked for; idle ones go when another needs their memory. Busy
bases take turns, a step each.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

from tuneoff.models.loading import Precision
from tuneoff.server.answer import Request, Unfinished, first_line, refuse
from tuneoff.server.base import Base, Quantization, Served

Key = tuple[str, Precision, Quantization]
# Weights take this much while they are loaded, by what they take afterwards.
LOADING_FACTOR = 1.2


class Host:
    """Answers requests on a thread of its own until it is closed; a `backend.Answerer`."""

    def __init__(self) -> None:
        # A request for a model, or something else to do between steps; None: the end.
        self._queue: queue.Queue[tuple[Served, Request] | Callable[[], None] | None] = queue.Queue()
        # The one that was used last comes last.
        self._bases: OrderedDict[Key, Base] = OrderedDict()
        self._loading, self._unfinished = threading.Lock(), Unfinished()
        self._thread = threading.Thread(target=self._run, name="answering", daemon=True)
        self._thread.start()

    def base(self, served: Served) -> Base:
        """The base of a model, loaded if it is not there."""
        key = _key(served)
        loaded = self._bases.get(key)  # without waiting for another that is being loaded
        if loaded is not None:
            return loaded
        with self._loading:
            if key not in self._bases:
                self._bases[key] = Base(served, self._make_room(served))
            return self._bases[key]

    def submit(self, served: Served, request: Request) -> None:
        """Has a request answered; returns at once."""
        self._queue.put((served, self._unfinished.counted(request)))

    def unfinished(self) -> int:
        """Answers that are wanted and not complete."""
        return len(self._unfinished)

    def forget(self, served: Served) -> None:
        """Has a deleted model's weights dropped; returns at once. Who is being answered by it
        still is, to the end."""

        def forget() -> None:
            base = self._bases.get(_key(served))
            if base is not None:
                # It is tried again, but this thread answers for everybody.
                with contextlib.suppress(Exception):
                    base.drop_gone()

        self._queue.put(forget)

    def close(self) -> None:
        """Ends the thread; what is under way is not answered."""
        self._queue.put(None)
        self._thread.join()
        for base in self._bases.values():
            base.close()
        while not self._queue.empty():
            if callable(left := self._queue.get()):
                left()  # somebody may be waiting for it

    def _run(self) -> None:
        while True:
            taken = self._taken()
            if taken is None:
                return
            self._join(taken)
            for base in self._busy():
                base.advance()

    def _busy(self) -> list[Base]:
        return [base for base in list(self._bases.values()) if base.busy()]

    def _taken(self) -> list[tuple[Served, Request]] | None:
        """What was asked meanwhile; waits when there is nothing to do."""
        found: list[tuple[Served, Request]] = []
        wait = not self._busy()
        while True:
            try:
                item = self._queue.get(block=wait)
            except queue.Empty:
                return found
            if item is None:
                return None
            if callable(item):
                item()
            else:
                found.append(item)
                wait = False

    def _join(self, taken: list[tuple[Served, Request]]) -> None:
        asked: dict[Key, list[tuple[Served, Request]]] = {}
        for served, request in taken:
            asked.setdefault(_key(served), []).append((served, request))
        for key, some in asked.items():
            base = self._bases.get(key)
            if base is None:  # it was let go since they were tokenized
                threading.Thread(target=self._again, args=(some,), daemon=True).start()
                continue
            self._bases.move_to_end(key)
            base.join(some)

    def _again(self, some: list[tuple[Served, Request]]) -> None:
        """Has requests answered once their base is loaded, for which nobody else has to wait."""
        try:
            self.base(some[0][0])
        except Exception as error:
            for _, request in some:
                refuse(request, first_line(error))
            return
        for each in some:
            self._queue.put(each)

    def _make_room(self, served: Served) -> int:
        """Lets idle bases go, those that were used longest ago first, until a base fits; gives
        the bytes that those which stay may still want. Not on the answering thread."""
        if not self._bases:
            return 0
        from tuneoff.models.free_memory import available_bytes
        from tuneoff.models.loading import device, dtype_of, release_memory
        from tuneoff.models.parameters import count_of

        wanted = LOADING_FACTOR * count_of(served.base) * dtype_of(served.precision).itemsize
        while True:
            promised = sum(base.unused_bytes() for base in list(self._bases.values()))
            if available_bytes(device()) - promised >= wanted:
                return promised
            dropped: Future[bool] = Future()
            self._queue.put(partial(self._drop, dropped))
            if not dropped.result():
                return promised
            release_memory()

    def _drop(self, dropped: Future[bool]) -> None:
        """Lets the idle base go that was used longest ago, and says whether there was one."""
        idle = next((key for key, base in list(self._bases.items()) if not base.busy()), None)
        if idle is not None:
            self._bases.pop(idle).drop()
        dropped.set_result(idle is not None)


def _key(served: Served) -> Key:
    return served.base, served.precision, served.quantization
