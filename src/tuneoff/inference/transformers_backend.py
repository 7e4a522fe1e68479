"""The inference backend over transformers: one thread that answers, and its loaded base models.

A base model is loaded at the first request for it. Idle ones are dropped when another needs their
memory. Busy ones take turns, one step each.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

from tuneoff.inference.loaded_model import LoadedModel, Quantization, ServedModel
from tuneoff.inference.requests import (
    GenerationRequest,
    InFlightCounter,
    describe_error,
    fail_request,
)
from tuneoff.models.loading import Precision

ModelKey = tuple[str, Precision, Quantization]
# Peak memory while weights are loaded, relative to their size afterwards.
LOADING_PEAK_FACTOR = 1.2


class TransformersBackend:
    """Answers requests on its own thread until it is closed; an `InferenceBackend`."""

    def __init__(self) -> None:
        # A request for a model, or a function to call between steps; None: stop.
        self._queue: queue.Queue[
            tuple[ServedModel, GenerationRequest] | Callable[[], None] | None
        ] = queue.Queue()
        # LRU order, most recently used last.
        self._bases: OrderedDict[ModelKey, LoadedModel] = OrderedDict()
        self._loading, self._unfinished = threading.Lock(), InFlightCounter()
        self._thread = threading.Thread(target=self._run, name="answering", daemon=True)
        self._thread.start()

    def base(self, served: ServedModel) -> LoadedModel:
        """Return the base of a model, loading it if necessary."""
        key = _build_key(served)
        loaded = self._bases.get(key)  # without waiting while another one loads
        if loaded is not None:
            return loaded
        with self._loading:
            if key not in self._bases:
                self._bases[key] = LoadedModel(served, self._make_room(served))
            return self._bases[key]

    def submit(self, served: ServedModel, request: GenerationRequest) -> None:
        """Queue a request; return at once."""
        self._queue.put((served, self._unfinished.track(request)))

    def unfinished(self) -> int:
        """Return the number of requests in flight."""
        return len(self._unfinished)

    def forget(self, served: ServedModel) -> None:
        """Drop a deleted model's weights later; return at once.

        Requests that it is answering are completed.
        """

        def forget() -> None:
            """Detach the adapters of deleted models."""
            base = self._bases.get(_build_key(served))
            if base is not None:
                # It is tried again later; an error here must not end this thread.
                with contextlib.suppress(Exception):
                    base.detach_deleted()

        self._queue.put(forget)

    def close(self) -> None:
        """Stop the thread; requests in flight get no answer."""
        self._queue.put(None)
        self._thread.join()
        for base in self._bases.values():
            base.close()
        while not self._queue.empty():
            if callable(function := self._queue.get()):
                function()  # another thread may be waiting for it

    def _run(self) -> None:
        """Take new requests and advance all busy base models, until closed."""
        while True:
            taken = self._take_requests()
            if taken is None:
                return
            self._queue_requests(taken)
            for base in self._list_busy():
                base.advance()

    def _list_busy(self) -> list[LoadedModel]:
        """Return the base models that have requests."""
        return [base for base in list(self._bases.values()) if base.busy()]

    def _take_requests(self) -> list[tuple[ServedModel, GenerationRequest]] | None:
        """Return the requests that arrived meanwhile; wait for one if nothing is in flight.

        None: the backend is being closed.
        """
        requests: list[tuple[ServedModel, GenerationRequest]] = []
        wait = not self._list_busy()
        while True:
            try:
                item = self._queue.get(block=wait)
            except queue.Empty:
                return requests
            if item is None:
                return None
            if callable(item):
                item()
            else:
                requests.append(item)
                wait = False

    def _queue_requests(self, taken: list[tuple[ServedModel, GenerationRequest]]) -> None:
        """Hand new requests to their base models."""
        groups: dict[ModelKey, list[tuple[ServedModel, GenerationRequest]]] = {}
        for served, request in taken:
            groups.setdefault(_build_key(served), []).append((served, request))
        for key, group in groups.items():
            base = self._bases.get(key)
            if base is None:  # it was dropped after the prompt was tokenized
                threading.Thread(target=self._reload_and_queue, args=(group,), daemon=True).start()
                continue
            self._bases.move_to_end(key)
            base.join(group)

    def _reload_and_queue(self, some: list[tuple[ServedModel, GenerationRequest]]) -> None:
        """Load a base model again on this thread, then queue its requests again."""
        try:
            self.base(some[0][0])
        except Exception as error:
            for _, request in some:
                fail_request(request, describe_error(error))
            return
        for item in some:
            self._queue.put(item)

    def _make_room(self, served: ServedModel) -> int:
        """Drop idle base models, least recently used first, until a new one fits.

        Returns the bytes that the remaining ones may still need. Not called on the answering
        thread.
        """
        if not self._bases:
            return 0
        from tuneoff.models.loading import choose_dtype, get_device, release_memory
        from tuneoff.models.memory import measure_available_bytes
        from tuneoff.models.parameters import count_parameters

        wanted = (
            LOADING_PEAK_FACTOR
            * count_parameters(served.base)
            * choose_dtype(served.precision).itemsize
        )
        while True:
            promised = sum(base.count_unused_bytes() for base in list(self._bases.values()))
            if measure_available_bytes(get_device()) - promised >= wanted:
                return promised
            dropped: Future[bool] = Future()
            self._queue.put(partial(self._drop, dropped))
            if not dropped.result():
                return promised
            release_memory()

    def _drop(self, dropped: Future[bool]) -> None:
        """Drop the least recently used idle base model, and report whether there was one."""
        idle = next((key for key, base in list(self._bases.items()) if not base.busy()), None)
        if idle is not None:
            self._bases.pop(idle).drop()
        dropped.set_result(idle is not None)


def _build_key(served: ServedModel) -> ModelKey:
    """Return what identifies a loaded base model."""
    return served.base, served.precision, served.quantization
