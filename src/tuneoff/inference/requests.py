"""A generation request and its generation in progress.

This module samples tokens, detects the end and reports new text. It does not depend on how the
logits are computed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuneoff.inference.detokenizer import IncrementalDetokenizer

# Finish reasons of a request that fails: an error, or a deleted model.
ERROR, GONE = "error", "gone"
# Top-p first considers only weights above this share of the greatest; 0 means all of them.
TOP_P_CUTOFFS = (1e-2, 1e-4, 0)


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """The log-probability of a chosen token, with the likeliest alternatives."""

    token: int
    logprob: float
    likeliest: tuple[tuple[int, float], ...]
    """(token id, log-probability), the likeliest first."""


@dataclass(frozen=True, slots=True)
class Delta:
    """The part of a generation that is new since the last report."""

    text: str
    """New text; empty if there is none."""
    chances: tuple[TokenLogprob, ...] = ()
    """Log-probabilities of the new tokens, if requested."""
    finish_reason: str | None = None
    """Why the generation ended; None while it continues."""
    tokens_out: int = 0
    """Number of tokens generated so far."""
    tokens_cached: int = 0
    """Number of prompt tokens that were read from the prefix cache."""
    error: str | None = None
    """What failed, on one line."""


@dataclass
class GenerationRequest:
    """One generation that is wanted."""

    ids: list[int]
    """Token ids of the prompt."""
    max_tokens: int
    tell: Callable[[Delta], None]
    """Called with each piece, from the engine's thread."""
    stop: tuple[str, ...] = ()
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    logprobs: int | None = None
    """How many alternatives to report for each token; None: report no log-probabilities."""
    cancelled: threading.Event = field(default_factory=threading.Event)
    """Set when the client no longer wants the answer."""


class InFlightCounter:
    """Counts the requests in flight."""

    def __init__(self) -> None:
        self._lock, self._count = threading.Lock(), 0

    def track(self, request: GenerationRequest) -> GenerationRequest:
        """Return the request, counted until it gets its last piece.

        It gets nothing after its last piece, even if a failure hits the whole batch.
        """
        tell, complete = request.tell, False
        with self._lock:
            self._count += 1

        def told(piece: Delta) -> None:
            """Pass a piece on, unless the request is complete."""
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


class Generation:
    """A generation in progress."""

    def __init__(self, request: GenerationRequest, tokenizer: Any, tokens_cached: int = 0) -> None:
        self.request, self.tokens_cached = request, tokens_cached
        self._random = np.random.default_rng(request.seed)
        self._growing = IncrementalDetokenizer(tokenizer)
        self._untold = ""
        self.new: list[int] = []
        self._chances: list[TokenLogprob] = []

    def choose(self, logits: NDArray[np.float32]) -> int:
        """Return the next token: the likeliest at temperature 0, otherwise a sampled one."""
        asked = self.request
        token = int(logits.argmax()) if asked.temperature == 0 else self._sample_token(logits)
        if asked.logprobs is not None:
            self._chances.append(_compute_logprob(logits, token, asked.logprobs))
        return token

    def _sample_token(self, logits: NDArray[np.float32]) -> int:
        """Sample a token with the request's temperature and top-p."""
        # Work in place where possible: a vocabulary has 150,000 tokens, and a batch has many rows.
        weights = logits.astype(np.float64)
        best = weights.max()
        if not np.isfinite(best):  # overflow: no choice is better; the batch must not fail
            return int(logits.argmax())
        weights -= best
        with np.errstate(over="ignore"):  # weights far below the best become 0
            weights /= self.request.temperature
        np.exp(weights, out=weights)
        if self.request.top_p < 1:
            weights = _keep_top_p(weights, self.request.top_p)
        below = np.cumsum(weights)
        place = int(np.searchsorted(below, self._random.random() * below[-1], side="right"))
        return min(place, int(np.searchsorted(below, below[-1])))

    def add_logprob(self, chance: TokenLogprob) -> None:
        """Add the log-probability of the next token, where another engine chose it."""
        self._chances.append(chance)

    def finish(self) -> None:
        """End the generation because no more tokens come."""
        self._close("length" if len(self.new) >= self.request.max_tokens else "stop")

    def accept_token(self, token: int, is_end: bool) -> bool:
        """Add a token and report new text; return whether the generation is complete."""
        asked = self.request
        reason: str | None = None
        if is_end:
            reason = "stop"
            del self._chances[-1:]  # the end token is not part of the answer
        else:
            self.new.append(token)
            self._untold += self._growing.add(token)
        if reason is None and len(self.new) >= asked.max_tokens:
            reason = "length"
        if reason is None and asked.cancelled.is_set():
            reason = "stop"
        return self._close(reason)

    def _close(self, reason: str | None) -> bool:
        """Report new text, cut at a stop string; return whether the generation is complete."""
        if reason is not None:
            self._untold += self._growing.rest()
        # Text that may begin a stop string is held back, so a stop string is complete here.
        stops = self.request.stop
        places = [place for stop in stops if (place := self._untold.find(stop)) >= 0]
        if places:
            self._untold, reason = self._untold[: min(places)], "stop"
        self._report(reason)
        return reason is not None

    def _report(self, reason: str | None) -> None:
        """Report the text that is ready, and the finish reason if there is one."""
        ready = len(self._untold) if reason else self._count_reportable()
        if not (reason or ready or self._chances):
            return
        text, self._untold = self._untold[:ready], self._untold[ready:]
        chances, self._chances = tuple(self._chances), []
        self.request.tell(Delta(text, chances, reason, len(self.new), self.tokens_cached))

    def _count_reportable(self) -> int:
        """Return how many characters may be reported: none that may begin a stop string."""
        end = len(self._untold)
        for stop in self.request.stop:
            for size in range(min(len(stop) - 1, end), 0, -1):
                if self._untold.endswith(stop[:size], 0, end):
                    end = min(end, len(self._untold) - size)
                    break
        return end


def fail_request(request: GenerationRequest, message: str, reason: str = ERROR) -> None:
    """Report to a request that it fails."""
    request.tell(Delta("", finish_reason=reason, error=message))


def describe_error(error: Exception) -> str:
    """Return what went wrong, on one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _keep_top_p(weights: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Return the greatest weights that have this share of the sum, with the others set to 0.

    Usually few tokens have that share, so hardly anything must be sorted.
    """
    enough = share * weights.sum()
    for least in TOP_P_CUTOFFS:
        some = np.flatnonzero(weights > least * weights.max())
        order = some[np.argsort(-weights[some], kind="stable")]
        reached = np.cumsum(weights[order])
        if reached[-1] >= enough:
            break
    kept = order[: np.searchsorted(reached, enough) + 1]
    kept_weights = np.zeros_like(weights)
    kept_weights[kept] = weights[kept]
    return kept_weights


def _compute_logprob(logits: NDArray[np.float32], token: int, count: int) -> TokenLogprob:
    """Return a token's log-probability and the `count` likeliest alternatives."""
    scaled = logits.astype(np.float64)
    with np.errstate(invalid="ignore"):  # values that overflowed
        scaled -= scaled.max()
    total = np.log(np.exp(scaled).sum())
    candidates = np.arange(0)
    if count:
        # All candidates in the order of their ids, so that ties keep that order.
        count = min(count, len(scaled))
        candidates = np.flatnonzero(scaled >= np.partition(scaled, -count)[-count])
    best = candidates[np.argsort(-scaled[candidates], kind="stable")][:count]
    return TokenLogprob(
        token,
        float(scaled[token] - total),
        tuple((int(id), float(scaled[id] - total)) for id in best),
    )
