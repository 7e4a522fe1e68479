"""Questions to a scoring model: paid within the budget, and stored for good.

A reply is paid for, so it is written to `judgements.jsonl` at once and never requested again. Each
question needs a reservation from the run's ledger, which records the amount billed.
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

from tuneoff.config.base import PriceConfig
from tuneoff.errors import ProviderError
from tuneoff.providers.base import Provider, Reply, connect
from tuneoff.providers.retries import retry
from tuneoff.records import ScoredRow
from tuneoff.scoring.base import QuestionBudget, ScoringInput
from tuneoff.storage.files import append_lines, read_lines

# Tokens around each turn of a question; and the most tokens of a reply, which may reason aloud
# first.
TURN_OVERHEAD_TOKENS, MAX_REPLY_TOKENS = 16, 4096


class ScoringModel(Protocol):
    """A provider's model that scores answers, for a judge or a grader."""

    @property
    def provider(self) -> str: ...

    @property
    def model(self) -> str: ...

    @property
    def base_url(self) -> str | None: ...

    @property
    def price(self) -> PriceConfig | None: ...


@dataclass(frozen=True, slots=True)
class ScoringQuestion:
    """A question about one example."""

    id: str
    key: str
    """A hash of everything that the reply depends on."""
    turns: tuple[Mapping[str, str], ...]
    max_tokens: int = MAX_REPLY_TOKENS
    reasoning_effort: str | None = None
    temperature: float | None = None
    more: Mapping[str, Any] = field(default_factory=dict)
    """Further fields that are stored with the reply."""


class ReplyStore:
    """Stored replies by question key, in a file if there is one."""

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


def connect_to(asked: ScoringModel) -> Provider:
    """Return a connection to the provider of a scoring model.

    Raises:
        ConfigError: the SDK or the key is missing.
    """
    return connect(asked.provider, asked.base_url)


def hash_question(*parts: Any) -> str:
    """Return the key of a question: a hash of everything that its reply depends on."""
    return hashlib.sha256(json.dumps(list(parts)).encode()).hexdigest()


def count_max_tokens(turns: Iterable[Mapping[str, str]]) -> int:
    """Return the most tokens of a question: no tokenizer makes more tokens than bytes."""
    return sum(
        TURN_OVERHEAD_TOKENS + len(turn["content"].encode("utf-8", "surrogatepass"))
        for turn in turns
    )


def ask(
    question: ScoringQuestion,
    model: str,
    provider: Provider,
    memory: ReplyStore,
    purse: QuestionBudget | None,
) -> str:
    """Return the reply to a question; a stored reply is not requested again.

    Raises:
        ProviderError: the model cannot be called.
        BudgetError: the question could exceed the budget.
    """
    reply = memory.get(question.key)
    if reply is None:
        billed = retry(lambda: _call_model(question, model, provider, purse))
        reply = billed.text
        memory.add({
            "key": question.key, "id": question.id, "model": model, "reply": reply,
            "tokens_in": billed.tokens_in, "tokens_out": billed.tokens_out, **question.more,
        })  # fmt: skip
    return reply


def score_in_order(
    rows: Iterable[ScoringInput], score: Callable[[ScoringInput], ScoredRow], concurrency: int
) -> Iterator[ScoredRow]:
    """Yield the scores of rows in order; several rows are scored concurrently."""
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


def _call_model(
    question: ScoringQuestion, model: str, provider: Provider, purse: QuestionBudget | None
) -> Reply:
    """Call the model once, and return the reply.

    If the reply is lost, or the server counts no tokens, the reservation stays in the ledger as
    possibly spent.
    """

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
    most = count_max_tokens(question.turns)
    ticket = purse.authorize("judging", input=most, output=question.max_tokens)
    try:
        reply = chat()
    except ProviderError as error:
        if error.not_executed:
            ticket.release()
        raise
    if reply.tokens_in is not None and reply.tokens_out is not None:
        ticket.settle(
            input=reply.tokens_in,
            output=reply.tokens_out,
            cached=reply.cached_tokens_in,
            written=reply.written_tokens_in,
        )
    return reply
