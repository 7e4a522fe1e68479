"""Refuses prompts that are too long before they cost time and memory.

A long prompt is counted piece by piece, and only up to the allowed length. The decision uses the
tokens of the pieces counted so far and the minimum for the rest (`server/token_bounds.py`). Long
prompts are processed one at a time, off the event loop; work for a disconnected client stops.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from functools import lru_cache, partial
from typing import Any, Protocol, TypeVar

import anyio.to_thread
from starlette.requests import ClientDisconnect

from tuneoff.server.token_bounds import TokenLowerBound

T = TypeVar("T")
# Longer bodies (in bytes) and texts (in characters) wait for their turn.
LONG_PROMPT = 64 * 1024
PIECE_CHARACTERS = 8 * 1024
# Cutting a word or a special token adds tokens; surely not more than this per cut.
CUT_TOKENS = 32
LOOK_SECONDS = 0.5


class Client(Protocol):
    """A client that may disconnect: an HTTP request, or a batch."""

    @property
    def app(self) -> Any: ...
    @property
    def state(self) -> Any: ...
    async def is_disconnected(self) -> bool: ...


class TooLongError(Exception):
    """A prompt takes more tokens than allowed."""


class Turn:
    """The turn of one long prompt; other long ones wait while it is held."""

    def __init__(self, lock: asyncio.Lock) -> None:
        self._lock, self._held = lock, False

    async def begin(self) -> None:
        """Wait for the turn."""
        if not self._held:
            await self._lock.acquire()
            self._held = True

    def end(self) -> None:
        """Give the turn to the next prompt, if it is held."""
        if self._held:
            self._held = False
            self._lock.release()


def get_turn(client: Client) -> Turn:
    """Return the turn of a client's request, which it may not hold yet."""
    turn = getattr(client.state, "turn", None)
    if turn is None:
        turn = client.state.turn = Turn(client.app.state.long_prompts)
    return turn


async def run_while_connected(client: Client, work: Awaitable[T]) -> T:
    """Return the result of `work`, which is cancelled when the client disconnects.

    Raises:
        ClientDisconnect: the client has disconnected.
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
    """Encode a prompt on a thread and return its token ids; a long one waits for its turn.

    The turn ends with the encoding.

    Args:
        characters: total length of the prompt's texts.
        encode: returns the token ids; its argument tells whether the client has disconnected.

    Raises:
        ClientDisconnect: the client has disconnected.
    """
    turn, gone = get_turn(client), threading.Event()
    try:
        if characters > LONG_PROMPT:
            await run_while_connected(client, turn.begin())
        work = partial(anyio.to_thread.run_sync, encode, gone.is_set, abandon_on_cancel=True)
        return await (run_while_connected(client, work()) if characters > LONG_PROMPT else work())
    finally:
        gone.set()
        turn.end()


def refuse_too_long(tokenizer: Any, text: str, room: int, gone: Callable[[], bool]) -> None:
    """Refuse a text that surely takes more than `room` tokens.

    A text that is only slightly too long may pass; its tokens are counted exactly later.

    Raises:
        TooLongError: the text is too long.
        ClientDisconnect: the client has disconnected.
    """
    if len(text) <= PIECE_CHARACTERS:
        return
    lower_bound, rest, floors = _load_lower_bound(tokenizer), 0.0, list[float]()
    starts = range(0, len(text), PIECE_CHARACTERS)
    for start in starts:
        floors.append(lower_bound.of(text[start : start + PIECE_CHARACTERS]))
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
    """Count the tokens of a piece, without those that only a whole text has."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:  # a tokenizer written in Python
        return len(tokenizer(piece, add_special_tokens=False)["input_ids"])
    # The batch method releases the GIL, even for one text.
    return len(backend.encode_batch_fast([piece], add_special_tokens=False)[0])


@lru_cache(maxsize=16)
def _load_lower_bound(tokenizer: Any) -> TokenLowerBound:
    """Return the lower bound for a tokenizer, computed once."""
    return TokenLowerBound(tokenizer)
