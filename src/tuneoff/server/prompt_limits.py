"""Refuses prompts that cannot fit before they cost.

A long prompt is counted in pieces, and no further than it may be long: what the pieces counted so
far take and the fewest tokens that the rest can take (`least_tokens.py`) decide. Long ones are
worked on one at a time, beside the event loop; work for a client that has gone stops.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from functools import lru_cache, partial
from typing import Any, Protocol, TypeVar

import anyio.to_thread
from starlette.requests import ClientDisconnect

from tuneoff.server.least_tokens import LeastTokens

T = TypeVar("T")
# What is longer, as a request's bytes or as a text's characters, waits for its turn.
LONG = 64 * 1024
PIECE_CHARACTERS = 8 * 1024
# A cut in a word or a special token makes more tokens of it; surely not more than these.
CUT_TOKENS = 32
LOOK_SECONDS = 0.5


class Client(Protocol):
    """Whoever asks: a request, or a batch."""

    @property
    def app(self) -> Any: ...
    @property
    def state(self) -> Any: ...
    async def is_disconnected(self) -> bool: ...


class TooLongError(Exception):
    """A prompt takes more tokens than it may."""


class Turn:
    """The turn of one long prompt: while it lasts, other long ones wait."""

    def __init__(self, lock: asyncio.Lock) -> None:
        self._lock, self._held = lock, False

    async def begin(self) -> None:
        """Wait until it is this one's turn."""
        if not self._held:
            await self._lock.acquire()
            self._held = True

    def end(self) -> None:
        """Let the next one begin; nothing where it was never this one's turn."""
        if self._held:
            self._held = False
            self._lock.release()


def get_turn(client: Client) -> Turn:
    """Return the turn of a client's request, which may not have begun."""
    turn = getattr(client.state, "turn", None)
    if turn is None:
        turn = client.state.turn = Turn(client.app.state.long_prompts)
    return turn


async def run_while_here(client: Client, work: Awaitable[T]) -> T:
    """Return what comes of `work`, which is given up when the client goes.

    Raises:
        ClientDisconnect: the client has gone.
    """
    task = asyncio.ensure_future(work)
    try:
        while True:
            if await client.is_disconnected():
                raise ClientDisconnect
            done, _ = await asyncio.wait({task}, timeout=LOOK_SECONDS)
            if done:
                return task.result()
    finally:
        task.cancel()


async def encode_in_turn(
    client: Client, characters: int, encode: Callable[[Callable[[], bool]], list[int]]
) -> list[int]:
    """Return the tokens of a prompt, made on a thread; a long one's when it is its turn, which
    ends then.

    Args:
        characters: how long the prompt's texts are.
        encode: makes the tokens; it is given what says whether the client has gone.

    Raises:
        ClientDisconnect: the client has gone.
    """
    turn, gone = get_turn(client), threading.Event()
    try:
        if characters > LONG:
            await run_while_here(client, turn.begin())
        work = partial(anyio.to_thread.run_sync, encode, gone.is_set, abandon_on_cancel=True)
        return await (run_while_here(client, work()) if characters > LONG else work())
    finally:
        gone.set()
        turn.end()


def refuse_too_long(tokenizer: Any, text: str, room: int, gone: Callable[[], bool]) -> None:
    """Refuse a text that surely takes more than `room` tokens; one that nearly does so may pass,
    so that its tokens are counted exactly.

    Raises:
        TooLongError: it does.
        ClientDisconnect: the client has gone.
    """
    if len(text) <= PIECE_CHARACTERS:
        return
    least, rest, floors = _least_tokens(tokenizer), 0.0, list[float]()
    starts = range(0, len(text), PIECE_CHARACTERS)
    for start in starts:
        floors.append(least.of(text[start : start + PIECE_CHARACTERS]))
        rest += floors[-1]
        if rest > room:
            raise TooLongError
    counted = 0
    for cuts, (start, floor) in enumerate(zip(starts, floors, strict=True)):
        if gone():
            raise ClientDisconnect
        counted += _count(tokenizer, text[start : start + PIECE_CHARACTERS])
        rest -= floor
        if counted + rest - CUT_TOKENS * (cuts + 1) > room:
            raise TooLongError


def _count(tokenizer: Any, piece: str) -> int:
    """Count the tokens of a piece, without what only a whole text has."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:  # a tokenizer in Python
        return len(tokenizer(piece, add_special_tokens=False)["input_ids"])
    # Of many texts, even of one, it lets other threads go on meanwhile.
    return len(backend.encode_batch_fast([piece], add_special_tokens=False)[0])


@lru_cache(maxsize=16)
def _least_tokens(tokenizer: Any) -> LeastTokens:
    return LeastTokens(tokenizer)
