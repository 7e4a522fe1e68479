"""Questions to a model that scores answers: paid within the budget, and kept for good.

What a model said is paid for, so it is written down at once (`judgements.jsonl`) and not asked
again. Each question needs leave of the run's ledger, and what was billed is noted there.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tuneoff.errors import ProviderError
from tuneoff.files import append_lines, read_lines
from tuneoff.providers import Provider, Reply, connect
from tuneoff.providers.calls import repeated
from tuneoff.records import ScoredRow
from tuneoff.scoring.rows import Purse, Row
from tuneoff.settings import PriceSettings

# Tokens around each turn of a question, and of a reply at most: one that thinks aloud first.
AROUND, MOST_REPLY = 16, 4096


class AskedModel(Protocol):
    """A provider's model that scores answers: a judge's, or a grader's."""

    @property
    def provider(self) -> str: ...

    @property
    def model(self) -> str: ...

    @property
    def base_url(self) -> str | None: ...

    @property
    def price(self) -> PriceSettings | None: ...


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about one example. `key` holds everything that the reply depends on; `more` is
    written down beside the reply."""

    id: str
    key: str
    turns: tuple[Mapping[str, str], ...]
    max_tokens: int = MOST_REPLY
    reasoning_effort: str | None = None
    temperature: float | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


class Memory:
    """What models said, by a hash of everything they were asked; in a file if there is one."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._replies = {row["key"]: row["reply"] for row in (read_lines(path) if path else ())}

    def get(self, key: str) -> str | None:
        with self._lock:
            return self._replies.get(key)

    def add(self, row: dict[str, Any]) -> None:
        with self._lock:
            self._replies[row["key"]] = row["reply"]
            if self._path is not None:
                append_lines(self._path, [row])


def connect_to(asked: AskedModel) -> Provider:
    """Return a connection to the server of a model that scores.

    Raises:
        ConfigError: the SDK or the key is missing.
    """
    return connect(asked.provider, asked.base_url)


def hash_question(*parts: Any) -> str:
    """Return the key of a question, from everything that its reply depends on."""
    return hashlib.sha256(json.dumps(list(parts)).encode()).hexdigest()


def count_bytes(turns: Iterable[Mapping[str, str]]) -> int:
    """Return the most tokens that a question has: no tokenizer makes more than there are bytes."""
    return sum(AROUND + len(turn["content"].encode("utf-8", "surrogatepass")) for turn in turns)


def ask(
    question: Question, model: str, provider: Provider, memory: Memory, purse: Purse | None
) -> str:
    """Return the reply to a question, from memory where it was asked before.

    Raises:
        ProviderError: the model cannot be asked.
        BudgetError: the question could pass the budget.
    """
    reply = memory.get(question.key)
    if reply is None:
        given = repeated(lambda: _pay(question, model, provider, purse))
        reply = given.text
        memory.add({
            "key": question.key, "id": question.id, "model": model, "reply": reply,
            "tokens_in": given.tokens_in, "tokens_out": given.tokens_out, **question.more,
        })  # fmt: skip
    return reply


def score_in_order(
    rows: Iterable[Row], score: Callable[[Row], ScoredRow], concurrency: int
) -> Iterator[ScoredRow]:
    """Yield the scores of rows, in order; a few rows are asked about at once."""
    waiting: deque[Future[ScoredRow]] = deque()
    with ThreadPoolExecutor(concurrency) as threads:
        try:
            for row in rows:
                waiting.append(threads.submit(score, row))
                if len(waiting) >= 2 * concurrency:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            threads.shutdown(wait=True, cancel_futures=True)


def _pay(question: Question, model: str, provider: Provider, purse: Purse | None) -> Reply:
    """Try once to get a reply, and return it; where it is lost, or the server counts no tokens, the
    reservation stays in the ledger as money that may have been spent."""

    def chat() -> Reply:
        return provider.chat(
            model,
            question.turns,
            question.max_tokens,
            question.reasoning_effort,
            question.temperature,
        )

    if purse is None:
        return chat()
    most = count_bytes(question.turns)
    ticket = purse.authorize("judging", input=most, output=question.max_tokens)
    try:
        given = chat()
    except ProviderError as error:
        if error.certain:
            ticket.give_back()
        raise
    if given.tokens_in is not None and given.tokens_out is not None:
        ticket.settle(
            input=given.tokens_in,
            output=given.tokens_out,
            cached=given.cached_tokens_in,
            written=given.written_tokens_in,
        )
    return given
