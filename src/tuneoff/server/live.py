"""Our answering engine for requests that come and go: each with its own sampling, stops and
length, and told of every token as it is made.

Rows join the running batch when slots are free, and leave it when they are done, so nobody
waits for the longest answer. With temperature 0 the tokens are those of `generation/engine.py`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from tuneoff.generation.ending import ENDS, Ending
from tuneoff.generation.engine import Engine
from tuneoff.generation.grouping import group
from tuneoff.records import Prediction

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class TokenChance:
    """A token with its log-probability, and the likeliest in its place."""

    token: int
    logprob: float
    likeliest: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """What is new of an answer: text, chances where asked for; at the end why it ended, and how
    many tokens it has."""

    text: str
    chances: tuple[TokenChance, ...] = ()
    finish_reason: str | None = None
    tokens_out: int = 0
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


class _Answer:
    """An answer under way."""

    def __init__(self, request: Request, tokenizer: Any) -> None:
        self.request, self._tokenizer = request, tokenizer
        self._random = np.random.default_rng(request.seed)
        self._told = 0
        self.new: list[int] = []
        self._chances: list[TokenChance] = []
        self.finish_reason: str | None = None

    def choose(self, logits: NDArray[np.float32]) -> int:
        """The next token."""
        asked = self.request
        token = int(logits.argmax()) if asked.temperature == 0 else self._sampled(logits)
        if asked.logprobs is not None:
            self._chances.append(_chance(logits, token, asked.logprobs))
        return token

    def _sampled(self, logits: NDArray[np.float32]) -> int:
        scaled = logits.astype(np.float64)
        with np.errstate(over="ignore"):  # what is far from the best becomes impossible
            chances = np.exp((scaled - scaled.max()) / self.request.temperature)
        chances /= chances.sum()
        if self.request.top_p < 1:
            order = np.argsort(-chances, kind="stable")
            kept = np.searchsorted(np.cumsum(chances[order]), self.request.top_p) + 1
            chances[order[kept:]] = 0
            chances /= chances.sum()
        place = int(np.searchsorted(np.cumsum(chances), self._random.random(), side="right"))
        return min(place, len(chances) - 1)

    def took(self, token: int, is_end: bool) -> bool:
        """Adds a token and tells what is new; whether the answer is complete."""
        asked = self.request
        if is_end:
            self.finish_reason = "stop"
            del self._chances[-1:]  # the end is no part of the answer
        else:
            self.new.append(token)
        text = str(self._tokenizer.decode(self.new, skip_special_tokens=True))
        places = [place for stop in asked.stop if (place := text.find(stop)) >= 0]
        if places:
            text, self.finish_reason = text[: min(places)], "stop"
        elif self.finish_reason is None and len(self.new) >= asked.max_tokens:
            self.finish_reason = "length"
        done = self.finish_reason is not None or asked.cancelled.is_set()
        ready = len(text) if done else self._settled(text)
        chances, self._chances = tuple(self._chances), []
        if done or ready > self._told or chances:
            asked.tell(
                Piece(
                    text[self._told : ready],
                    chances,
                    (self.finish_reason or "stop") if done else None,
                    len(self.new),
                )
            )
            self._told = max(self._told, ready)
        return done

    def _settled(self, text: str) -> int:
        """How much of the text will stay: not half a character, nor what may begin a stop."""
        end = len(text)
        while end and text[end - 1] == "\ufffd":
            end -= 1
        for stop in self.request.stop:
            for size in range(min(len(stop) - 1, end), 0, -1):
                if text.endswith(stop[:size], 0, end):
                    end = min(end, len(text) - size)
                    break
        return end


def _chance(logits: NDArray[np.float32], token: int, count: int) -> TokenChance:
    scaled = logits.astype(np.float64)
    scaled -= scaled.max()
    scaled -= np.log(np.exp(scaled).sum())
    best = np.argsort(-scaled, kind="stable")[:count]
    return TokenChance(
        token, float(scaled[token]), tuple((int(each), float(scaled[each])) for each in best)
    )


class LiveEngine(Engine):
    """An engine that requests join at any time."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: Any, ends: Sequence[int], slots: int, most: int
    ) -> None:
        super().__init__(model, Ending(tokenizer, tuple(ends), ()), most, slots)
        self._answers: dict[int, _Answer] = {}

    def join(self, requests: Sequence[Request]) -> None:
        """Lets requests wait for slots; those that come together share their prefixes."""
        first = self.added
        runs, rows = group([request.ids for request in requests])
        self.add([("", request.ids) for request in requests], runs, rows)
        for index, request in enumerate(requests):
            self._answers[first + index] = _Answer(request, self.ending.tokenizer)

    def fail(self, message: str) -> None:
        """Tells everybody who waits that there will be no answer."""
        for answer in self._answers.values():
            answer.request.tell(Piece("", finish_reason="error", error=message))

    def _choose(self, logits: torch.Tensor) -> Any:
        host = logits.float().cpu().numpy()
        tokens = np.array(
            [self._answers[row.prompt].choose(host[slot]) for slot, row in enumerate(self.active)],
            dtype=np.int64,
        )
        self.inputs = torch.from_numpy(tokens).to(logits.device)
        return tokens

    def _ended(self, tokens: NDArray[np.int64]) -> list[int]:
        signs = self.signs[tokens]
        return [
            slot
            for slot, row in enumerate(self.active)
            if self._answers[row.prompt].took(int(tokens[slot]), bool(signs[slot] == ENDS))
        ]

    def _prediction(self, slot: int) -> Prediction:
        del self._answers[self.active[slot].prompt]
        return Prediction("", "")  # the request was told already
