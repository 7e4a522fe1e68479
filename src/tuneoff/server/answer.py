"""What is asked of a model, and an answer to it under way: how its tokens are chosen, where it
ends, and what is told of it meanwhile. Which way its logits are computed is no matter here."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuneoff.generation.growing_text import GrowingText

# Why a piece ends an answer that there will not be.
ERROR, GONE = "error", "gone"
# Weights are looked at that are more than so much of the greatest; in the end all that are any.
FEW = (1e-2, 1e-4, 0)


@dataclass(frozen=True, slots=True)
class TokenChance:
    """A token with its log-probability, and the likeliest in its place."""

    token: int
    logprob: float
    likeliest: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """What is new of an answer: text, chances where asked for, and how many tokens it has so far;
    at the end why it ended. `tokens_cached` of the prompt's were not computed for it."""

    text: str
    chances: tuple[TokenChance, ...] = ()
    finish_reason: str | None = None
    tokens_out: int = 0
    tokens_cached: int = 0
    error: str | None = None


@dataclass
class Request:
    """One answer that is wanted. `tell` is called, from the engine's thread, with each piece."""

    ids: list[int]
    max_tokens: int
    tell: Callable[[Piece], None]
    stop: tuple[str, ...] = ()
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    logprobs: int | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)


class Unfinished:
    """How many answers are wanted and not complete."""

    def __init__(self) -> None:
        self._lock, self._count = threading.Lock(), 0

    def counted(self, request: Request) -> Request:
        """The request, counted until it is told its last piece; it is told nothing after that,
        whatever fails for all that were together with it."""
        tell, complete = request.tell, False
        with self._lock:
            self._count += 1

        def told(piece: Piece) -> None:
            nonlocal complete
            if complete:
                return
            if piece.finish_reason is not None:
                complete = True
                with self._lock:
                    self._count -= 1
            tell(piece)

        return replace(request, tell=told)

    def __len__(self) -> int:
        with self._lock:
            return self._count


class Answer:
    """An answer under way."""

    def __init__(self, request: Request, tokenizer: Any, tokens_cached: int = 0) -> None:
        self.request, self.tokens_cached = request, tokens_cached
        self._random = np.random.default_rng(request.seed)
        self._growing = GrowingText(tokenizer)
        self._untold = ""
        self.new: list[int] = []
        self._chances: list[TokenChance] = []

    def choose(self, logits: NDArray[np.float32]) -> int:
        """The next token."""
        asked = self.request
        token = int(logits.argmax()) if asked.temperature == 0 else self._sampled(logits)
        if asked.logprobs is not None:
            self._chances.append(_chance(logits, token, asked.logprobs))
        return token

    def _sampled(self, logits: NDArray[np.float32]) -> int:
        # In place as far as that goes: a vocabulary has 150,000 tokens, and a batch many rows.
        weights = logits.astype(np.float64)
        best = weights.max()
        if not np.isfinite(best):  # numbers ran over: no choice is better, nor may it fail others
            return int(logits.argmax())
        weights -= best
        with np.errstate(over="ignore"):  # what is far from the best becomes impossible
            weights /= self.request.temperature
        np.exp(weights, out=weights)
        if self.request.top_p < 1:
            weights = _likeliest(weights, self.request.top_p)
        below = np.cumsum(weights)
        place = int(np.searchsorted(below, self._random.random() * below[-1], side="right"))
        return min(place, int(np.searchsorted(below, below[-1])))

    def saw(self, chance: TokenChance) -> None:
        """The chances of the token that comes next, where somebody else chose it."""
        self._chances.append(chance)

    def ended(self) -> None:
        """No more tokens come."""
        self._close("length" if len(self.new) >= self.request.max_tokens else "stop")

    def took(self, token: int, is_end: bool) -> bool:
        """Adds a token and tells what is new; whether the answer is complete."""
        asked = self.request
        reason: str | None = None
        if is_end:
            reason = "stop"
            del self._chances[-1:]  # the end is no part of the answer
        else:
            self.new.append(token)
            self._untold += self._growing.add(token)
        if reason is None and len(self.new) >= asked.max_tokens:
            reason = "length"
        if reason is None and asked.cancelled.is_set():
            reason = "stop"
        return self._close(reason)

    def _close(self, reason: str | None) -> bool:
        """Tells what is new, and whether the answer is complete, for this reason or by a stop."""
        if reason is not None:
            self._untold += self._growing.rest()
        # Nothing that may begin a stop was told, so it is here as a whole.
        stops = self.request.stop
        places = [place for stop in stops if (place := self._untold.find(stop)) >= 0]
        if places:
            self._untold, reason = self._untold[: min(places)], "stop"
        self._tell(reason)
        return reason is not None

    def _tell(self, reason: str | None) -> None:
        ready = len(self._untold) if reason else self._settled()
        if not (reason or ready or self._chances):
            return
        text, self._untold = self._untold[:ready], self._untold[ready:]
        chances, self._chances = tuple(self._chances), []
        self.request.tell(Piece(text, chances, reason, len(self.new), self.tokens_cached))

    def _settled(self) -> int:
        """How much of the text may be told: not what may begin a stop."""
        end = len(self._untold)
        for stop in self.request.stop:
            for size in range(min(len(stop) - 1, end), 0, -1):
                if self._untold.endswith(stop[:size], 0, end):
                    end = min(end, len(self._untold) - size)
                    break
        return end


def refuse(request: Request, message: str, reason: str = ERROR) -> None:
    """Tells that there will be no answer."""
    request.tell(Piece("", finish_reason=reason, error=message))


def first_line(error: Exception) -> str:
    """What went wrong, on one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _likeliest(weights: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """The greatest weights that have this share of their sum, the others 0. Few have it as a rule,
    so that there is hardly anything to sort."""
    enough = share * weights.sum()
    for least in FEW:
        some = np.flatnonzero(weights > least * weights.max())
        order = some[np.argsort(-weights[some], kind="stable")]
        reached = np.cumsum(weights[order])
        if reached[-1] >= enough:
            break
    kept = order[: np.searchsorted(reached, enough) + 1]
    found = np.zeros_like(weights)
    found[kept] = weights[kept]
    return found


def _chance(logits: NDArray[np.float32], token: int, count: int) -> TokenChance:
    scaled = logits.astype(np.float64)
    with np.errstate(invalid="ignore"):  # numbers that ran over
        scaled -= scaled.max()
    total = np.log(np.exp(scaled).sum())
    some = np.arange(0)
    if count:
        # All that may be among the first, in the order of their numbers, as ties are to stay.
        count = min(count, len(scaled))
        some = np.flatnonzero(scaled >= np.partition(scaled, -count)[-count])
    best = some[np.argsort(-scaled[some], kind="stable")][:count]
    return TokenChance(
        token,
        float(scaled[token] - total),
        tuple((int(each), float(scaled[each] - total)) for each in best),
    )
