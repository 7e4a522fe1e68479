"""Asking a provider's model many questions concurrently, shared by `hosted` and `prompted`.

Requests run on threads. The provider's rate limits decide how many run at once
(`providers/retries.py`). An answer that is paid for is yielded as soon as it arrives. Each attempt
has its own reservation in the ledger, because an attempt whose answer was lost may have been
billed.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from itertools import islice
from typing import Any

from tuneoff.config.contenders import HostedConfig, PromptedConfig
from tuneoff.contenders.base import ContenderContext, Reservation
from tuneoff.contenders.latency import (
    MAX_TIMED,
    list_recorded_timed,
    needs_more_timing,
    split_by_load,
)
from tuneoff.contenders.samples import name_request
from tuneoff.errors import (
    ConfigError,
    ProviderError,
    RateLimitedError,
    RejectedError,
    UnknownOutcomeError,
)
from tuneoff.prompts import Message
from tuneoff.providers import base
from tuneoff.providers.base import Provider, Reply
from tuneoff.providers.cassette import Cassette, RecordingTransport, ReplayTransport, mark_sample
from tuneoff.providers.retries import (
    AdaptiveLimiter,
    LimiterClosedError,
    compute_backoff,
    compute_max_tries,
    report_retry,
)
from tuneoff.records import Example, Prediction
from tuneoff.tokenization.openai import build_counter

ProviderConfig = HostedConfig | PromptedConfig
# The example, the sample of it, and the turns that are sent.
ChatRequest = tuple[Example, int, list[Message]]
# Each lost answer may have been paid for. Waiting for a rate limit costs only time.
MAX_LOST, MAX_RATE_LIMITED = 6, 40
# A model that was just tuned is not found at first, while it is being loaded.
MAX_LOADING, NOT_FOUND = 12, 404
PROBE_MESSAGE: Message = {"role": "user", "content": "Say yes."}
# This many rejections without one answer are not the fault of single examples.
MAX_REJECTED = 10
# Tokens added around each message, and around the conversation. Chat templates of open models may
# begin with a system message of their own.
MESSAGE_OVERHEAD, CONVERSATION_OVERHEAD = 8, 128


def reject_text_rendering(name: str, rendering: str | None) -> None:
    """Raise ConfigError for `rendering: text`; a hosted model takes chat turns."""
    if rendering == "text":
        raise ConfigError(
            f"contender {name}: rendering: text is for open models; a hosted one takes chat turns."
        )


def request_answers(
    settings: ProviderConfig,
    work: ContenderContext,
    provider: Provider,
    model: str,
    chat_requests: Iterable[ChatRequest],
) -> Iterator[list[Prediction]]:
    """Yield answers as they arrive.

    A request that the provider rejects for good becomes a row with `error`. Rejections are held
    back until the first answer: if nothing is answered, they say nothing about single examples.

    Raises:
        ProviderError: the provider does not answer, or rejects every request.
        BudgetError: the next request could pass the budget; answers under way are yielded first.
    """
    asking = _RequestRunner(settings, work, provider, model)
    refused: list[Prediction] = []
    answered = asking.answered_before
    finished = _run_requests(asking, chat_requests, lambda: len(refused) < MAX_REJECTED)
    for rows in finished:
        answered = answered or any(row.error is None for row in rows)
        refused += rows
        if answered:
            yield refused
            refused = []
    if refused:
        raise ProviderError(
            f"{provider.url} refused every request; the first refusal: {refused[0].error}"
        )


def connect_provider(settings: ProviderConfig, work: ContenderContext) -> Provider:
    """Connect to the contender's provider and return it; a replay connects to the recording.

    Raises:
        ConfigError: there is no such provider, no key, or no recording.
        MissingExtraError: the provider's SDK is not installed.
    """
    tape: Cassette | None = None
    if work.replay is not None:
        tape = ReplayTransport(work.replay.exchanges)
    elif settings.record:
        tape = RecordingTransport(work.directory.exchanges)
    name = settings.provider or "openai"
    provider = base.connect(name, settings.base_url, settings.key_variable, tape)
    provider.reach.set_listener(
        lambda line: work.progress.say(f"{settings.name}: {line}"), _has_answered(work)
    )
    return provider


def _has_answered(work: ContenderContext) -> bool:
    """Return whether the provider has answered this contender before, maybe in another command."""
    batches = any(batch["batch_id"] for batch in work.directory.batches())
    answers = any(row.error is None for row in work.directory.answers().values())
    return bool(batches or answers or work.directory.job().get("job_id"))


def count_max_prompt_tokens(settings: ProviderConfig, turns: Iterable[Message]) -> int:
    """Return the maximum tokens that the turns can be billed as.

    Where the tokenizer is unknown, bytes are counted: no tokenizer makes more tokens than bytes.
    """
    if has_openai_encoding(settings):
        return MESSAGE_OVERHEAD + build_counter(str(settings.model)).count_conversation(turns)
    texts = (text for turn in turns for text in (turn["role"], turn["content"]))
    return CONVERSATION_OVERHEAD + sum(
        MESSAGE_OVERHEAD + len(text.encode("utf-8", "surrogatepass")) for text in texts
    )


def has_openai_encoding(settings: ProviderConfig) -> bool:
    """Return whether a contender's tokens are counted with OpenAI's encodings."""
    own = settings.provider in (None, "openai") and settings.base_url is None
    return own or settings.provider == "azure"


def get_reasoning_effort(settings: ProviderConfig) -> str | None:
    """Return the requested reasoning effort; None leaves it to the model."""
    return settings.reasoning_effort if isinstance(settings, PromptedConfig) else None


def format_temperature(settings: ProviderConfig) -> str:
    """Return the temperature as part of a model's name; empty where the file sets none."""
    return "" if settings.temperature is None else f", temperature {settings.temperature:g}"


def count_max_output_tokens(settings: ProviderConfig, max_new_tokens: int) -> int:
    """Return the maximum tokens of one answer, reasoning included."""
    reasoning = settings.max_reasoning_tokens if isinstance(settings, PromptedConfig) else 0
    return max_new_tokens + reasoning


def count_max_answering_tokens(
    settings: ProviderConfig,
    work: ContenderContext,
    prompts: Iterable[tuple[Example, list[Message]]],
) -> tuple[int, int]:
    """Return the maximum input and output tokens that the missing answers can bill.

    A batch under way is left out: the ledger holds its reservation.
    """
    known = {name_request(*question) for question in work.directory.answers()}
    for batch in work.directory.batches():
        if not batch["read"] and (batch["batch_id"] or batch["look_until"]):
            known.update(batch["ids"])
    tokens = count = 0
    for example, turns in prompts:
        names = (name_request(example.id, sample) for sample in range(settings.samples))
        times = sum(name not in known for name in names)
        if times:
            tokens, count = tokens + times * count_max_prompt_tokens(settings, turns), count + times
    return tokens, count * count_max_output_tokens(settings, work.max_new_tokens)


def _run_requests(
    asking: _RequestRunner,
    chat_requests: Iterable[ChatRequest],
    asks_more: Callable[[], bool],
) -> Iterator[list[Prediction]]:
    """Yield answers as they arrive, and stop sending on an error or Ctrl-C.

    Requests under way are paid for, so they are awaited and yielded before the error is raised.
    """
    left, waiting = iter(chat_requests), set[Future[Prediction]]()
    stopped: BaseException | None = None
    threads, waits = ThreadPoolExecutor(asking.concurrency), True
    try:
        while True:
            if stopped is None and asks_more():
                at_once = asking.at_once()
                room = 1 if at_once == 1 else 2 * at_once
                requests = islice(left, room - len(waiting))
                waiting |= {threads.submit(asking.ask, *one, at_once) for one in requests}
            if not waiting:
                break
            try:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            except KeyboardInterrupt as interrupt:
                if stopped is not None:  # pressed again: do not wait
                    waits = False
                    raise
                asking.say_waiting()
                stopped, done = interrupt, set()
            answers, error = _collect_results(done)
            stopped = stopped or error
            if stopped is not None:
                asking.stop()
            if answers:
                yield answers
    finally:
        asking.stop()
        threads.shutdown(wait=waits, cancel_futures=True)
    if stopped is not None:
        raise stopped


def _collect_results(
    done: Iterable[Future[Prediction]],
) -> tuple[list[Prediction], BaseException | None]:
    """Return the answers of finished requests, and the error of one that failed, if any."""
    answers, failure = [], None
    for request in done:
        error = request.exception()
        if error is None:
            answers.append(request.result())
        elif not isinstance(error, LimiterClosedError):
            failure = error
    return answers, failure


class _RequestRunner:
    """Sends requests for one contender from many threads."""

    def __init__(
        self, settings: ProviderConfig, work: ContenderContext, provider: Provider, model: str
    ) -> None:
        self._settings, self._work, self._provider = settings, work, provider
        self._model, self._limiter = model, AdaptiveLimiter(settings.concurrency)
        self.concurrency = settings.concurrency
        known = work.directory.predictions()
        before = [row for row in known.values() if row.error is None]
        self.answered_before = bool(before)
        self._timed = [row.seconds or 0.0 for row in split_by_load(before, self.concurrency)[0]]
        # Only first samples are timed: a repeated prompt may be in the provider's cache.
        self._timed_requests, self._max_timed = 0, min(MAX_TIMED + 1, len(work.test) - len(known))
        self._recorded = work.replay.answers() if work.replay is not None else None
        self._recorded_timed = len(set(list_recorded_timed(work)) - set(known))

    def at_once(self) -> int:
        """Return how many requests may be under way: one while answers are timed.

        Timing ends even if every request is rejected. A replay sends those requests one at a time
        that were recorded so.
        """
        if self._recorded is not None:
            times_on = self._timed_requests < self._recorded_timed
        else:
            left = self._timed_requests < self._max_timed
            times_on = self._work.measure and left and needs_more_timing(self._timed)
        return 1 if times_on else self.concurrency

    def stop(self) -> None:
        """Stop sending; requests under way finish."""
        self._limiter.close()

    def say_waiting(self) -> None:
        """Tell the user why the command does not end at once."""
        self._work.progress.say(
            f"{self._settings.name}: waiting for the answers that are under way, and paid for"
        )

    def ask(self, example: Example, sample: int, turns: list[Message], at_once: int) -> Prediction:
        """Return one answer, retrying as often as needed.

        If the server fails at this request each time and answers others, the answer is a row with
        `error`: another retry would fail, too.

        Args:
            at_once: how many requests may be under way meanwhile.

        Raises:
            ProviderError: no answer after many tries, or this provider can give none.
            BudgetError: a try could pass the budget.
            LimiterClosedError: the run is being stopped.
        """
        with mark_sample(sample):
            answer = self._ask(example, sample, turns, at_once)
        return replace(answer, sample=sample)

    def _ask(self, example: Example, sample: int, turns: list[Message], at_once: int) -> Prediction:
        """Send one request until it is answered, rejected or given up, and return the row."""
        lost = busy = 0
        self._timed_requests += at_once == 1
        before = self._limiter.answers
        while True:
            error: ProviderError
            new = self._is_new()
            try:
                reply, seconds = self._try_request(turns, busy, new)
                return self._answered(example, sample, reply, reply.seconds or seconds, at_once)
            except RejectedError as refusal:
                if new and refusal.status == NOT_FOUND and busy < MAX_LOADING:
                    error, busy = refusal, busy + 1
                elif refusal.concerns_all():
                    raise
                else:
                    return Prediction(example.id, "", error=str(refusal))
            except RateLimitedError as failure:  # the limiter makes every thread wait
                error, busy = failure, busy + 1
            except UnknownOutcomeError as failure:
                error, lost = failure, lost + 1
                if (
                    lost == MAX_LOST
                    and failure.status is not None
                    and self._limiter.answers == before
                ):
                    self._probe_server()
                others = self._limiter.answers > before
                if others and lost == 2 * MAX_LOST and failure.status is not None:
                    return Prediction(
                        example.id, "", error=f"{failure} (tried {lost + busy} times)"
                    )
                max_tries = compute_max_tries(failure, MAX_LOST)
                if lost >= max_tries and not (others and lost < 2 * MAX_LOST):
                    raise _build_last_error(failure, lost + busy) from None
                report_retry(failure, lost, max_tries, lost)
                self._limiter.sleep(compute_backoff(lost, error))
            if busy >= MAX_RATE_LIMITED:
                raise _build_last_error(error, lost + busy)

    def _answered(
        self, example: Example, sample: int, reply: Reply, seconds: float, at_once: int
    ) -> Prediction:
        """Return an answer as a row; a replay takes `concurrency` from the recorded run."""
        if self._recorded is not None:
            before = self._recorded.get((example.id, sample))
            at_once_then = before.concurrency if before is not None else None
            return build_prediction(example.id, reply, seconds, at_once_then)
        row = build_prediction(example.id, reply, seconds, at_once)
        if at_once == 1 and row.error is None:
            self._timed.append(seconds)
        return row

    def _probe_server(self) -> None:
        """Send a harmless probe to learn whether the server fails at one example or at everything.

        By now no other thread may be asking it.
        """
        with contextlib.suppress(ProviderError):
            self._try_request([PROBE_MESSAGE], busy=0, new=False)

    def _try_request(self, turns: list[Message], busy: int, new: bool) -> tuple[Reply, float]:
        """Reserve, send and settle one request; return the reply and its seconds."""
        with self._limiter.hold_slot():
            max_tokens = count_max_output_tokens(self._settings, self._work.max_new_tokens)
            ticket = self._work.guard.authorize(
                "answering", input=count_max_prompt_tokens(self._settings, turns), output=max_tokens
            )
            started = time.perf_counter()
            try:
                effort = get_reasoning_effort(self._settings)
                temperature = self._settings.temperature
                reply = self._provider.chat(self._model, turns, max_tokens, effort, temperature)
            except RejectedError as error:
                # Azure bills prompts that its content filter rejects.
                if error.concerns_all() or self._settings.provider != "azure":
                    ticket.release()
                if new and error.status == NOT_FOUND:
                    self._limiter.back_off(compute_backoff(busy))
                raise
            except (RateLimitedError, UnknownOutcomeError) as error:
                if error.not_executed:
                    ticket.release()
                if isinstance(error, RateLimitedError):
                    self._limiter.back_off(compute_backoff(busy, error))
                raise
            seconds = time.perf_counter() - started
            _settle_reservation(ticket, reply)
            self._limiter.record_answer(reply.pause_seconds)
        return reply, seconds

    def _is_new(self) -> bool:
        """Return whether the model was just tuned and has not answered yet.

        It may not be found while it is being loaded. Call this before sending: another thread's
        answer may arrive first.
        """
        tuned = isinstance(self._settings, HostedConfig)
        return tuned and not self.answered_before and not self._limiter.answers


def _build_last_error(error: ProviderError, tries: int) -> ProviderError:
    """Return the error that is raised after the last try."""
    return ProviderError(f"{error} (tried {tries} times); the same command goes on later")


def _settle_reservation(ticket: Reservation, reply: Reply) -> None:
    """Settle a reservation by the reply's tokens; it stays open where the server reports none."""
    if reply.tokens_in is not None and reply.tokens_out is not None:
        ticket.settle(
            input=reply.tokens_in,
            output=reply.tokens_out,
            cached=reply.cached_tokens_in,
            written=reply.written_tokens_in,
        )


def build_prediction(
    id: str, reply: Reply, seconds: float | None, concurrency: int | None = None
) -> Prediction:
    """Return a reply as a row; `seconds` is None where it was not timed by itself."""
    filtered: Any = None
    if reply.finish_reason == "content_filter":
        filtered = "the provider's content filter kept the answer"
    return Prediction(
        id=id,
        prediction=reply.text,
        tokens_in=reply.tokens_in,
        tokens_out=reply.tokens_out,
        seconds=seconds,
        finish_reason=reply.finish_reason,
        error=filtered,
        concurrency=concurrency,
    )
