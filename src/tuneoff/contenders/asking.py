"""What `hosted` and `prompted` share: asking a provider's model many things at once.

Requests run on threads; how many at once the provider's limits decide (`providers/calls.py`). An
answer that is paid for is handed out as soon as it is there. Each attempt has a leave of its own
in the ledger: an attempt whose answer was lost may have been billed.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from itertools import islice
from typing import Any

from tuneoff import providers
from tuneoff.billing import counter_for
from tuneoff.contender_settings import HostedSettings, PromptedSettings
from tuneoff.contenders import Ticket, Work
from tuneoff.contenders.measuring import MOST, asks_on, divided, timed_then
from tuneoff.contenders.samples import name_request
from tuneoff.errors import BusyError, ConfigError, LostError, ProviderError, RefusedError
from tuneoff.prompts import Message
from tuneoff.providers import Provider, Reply
from tuneoff.providers.calls import ClosedError, Limiter, most_tries, pause_before, tell
from tuneoff.providers.recording import Player, Recorder, Tape, mark_sample
from tuneoff.records import Example, Prediction

Settings = HostedSettings | PromptedSettings
# What is asked: of which example, for which sample, by which turns.
Asked = tuple[Example, int, list[Message]]
# Lost answers may each have been paid for; being told to wait costs nothing but time.
MOST_LOST, MOST_BUSY = 6, 40
# A model that was just tuned is not found at first, while it is being loaded.
MOST_LOADING, NOT_FOUND = 12, 404
ANYTHING: Message = {"role": "user", "content": "Say yes."}
# So many refusals without one answer are no accident of single examples.
MOST_REFUSED = 10
# Tokens around each message, and around all of them. Chat templates of open models may begin
# with a system message of their own.
AROUND, AROUND_ALL = 8, 128


def refuse_text(name: str, rendering: str | None) -> None:
    """A hosted model takes chat turns.

    Raises:
        ConfigError: it was to get plain text.
    """
    if rendering == "text":
        raise ConfigError(
            f"contender {name}: rendering: text is for open models; a hosted one takes chat turns."
        )


def ask_all(
    settings: Settings,
    work: Work,
    provider: Provider,
    model: str,
    asked: Iterable[Asked],
) -> Iterator[list[Prediction]]:
    """Answers, handed out as they come. A request that the provider refuses for
    good is a row with `error`; refusals are held back until something was answered, for if nothing
    is, they say nothing about single examples.

    Raises:
        ProviderError: the provider does not answer, or refuses whatever is asked.
        BudgetError: the next request could pass the budget; what is under way is handed out first.
    """
    asking = _Asking(settings, work, provider, model)
    refused: list[Prediction] = []
    answered = asking.answered_before
    more = _finished(asking, asked, lambda: len(refused) < MOST_REFUSED)
    for found in more:
        answered = answered or any(row.error is None for row in found)
        refused += found
        if answered:
            yield refused
            refused = []
    if refused:
        raise ProviderError(
            f"{provider.url} refused every request; the first refusal: {refused[0].error}"
        )


def connected(settings: Settings, work: Work) -> Provider:
    """The contender's provider; in a replay what was recorded of it.

    Raises:
        ConfigError: there is no such provider, no key, or nothing recorded.
        MissingExtraError: its SDK is not installed.
    """
    tape: Tape | None = None
    if work.replay is not None:
        tape = Player(work.replay.exchanges)
    elif settings.record:
        tape = Recorder(work.directory.exchanges)
    name = settings.provider or "openai"
    provider = providers.connect(name, settings.base_url, settings.key_variable, tape)
    provider.reach.tell_to(
        lambda line: work.progress.say(f"{settings.name}: {line}"), _has_answered(work)
    )
    return provider


def _has_answered(work: Work) -> bool:
    """Whether the provider has answered this contender before, perhaps to another command."""
    batches = any(batch["batch_id"] for batch in work.directory.batches())
    answers = any(row.error is None for row in work.directory.answers().values())
    return bool(batches or answers or work.directory.job().get("job_id"))


def most_billed(settings: Settings, turns: Iterable[Message]) -> int:
    """The most tokens that turns can be billed as. Where no tokenizer is known: none makes more
    tokens than a text has bytes."""
    if counts_as_openai(settings):
        return AROUND + counter_for(str(settings.model)).conversation(turns)
    texts = (text for turn in turns for text in (turn["role"], turn["content"]))
    return AROUND_ALL + sum(AROUND + len(text.encode("utf-8", "surrogatepass")) for text in texts)


def counts_as_openai(settings: Settings) -> bool:
    """Whether a contender's tokens are counted with OpenAI's encodings."""
    own = settings.provider in (None, "openai") and settings.base_url is None
    return own or settings.provider == "azure"


def effort_of(settings: Settings) -> str | None:
    """Return the reasoning effort that is asked for; None leaves it to the model."""
    return settings.reasoning_effort if isinstance(settings, PromptedSettings) else None


def name_temperature(settings: Settings) -> str:
    """Return what a model's name says of its temperature; empty where the file has none."""
    return "" if settings.temperature is None else f", temperature {settings.temperature:g}"


def max_output_tokens(settings: Settings, max_new_tokens: int) -> int:
    """Return the most tokens that one answer may take and bill, its reasoning included."""
    reasoning = settings.max_reasoning_tokens if isinstance(settings, PromptedSettings) else 0
    return max_new_tokens + reasoning


def most_answering_tokens(
    settings: Settings, work: Work, asked: Iterable[tuple[Example, list[Message]]]
) -> tuple[int, int]:
    """The most tokens, in and out, that the answers still to be had can bill. What a batch that is
    under way can, the ledger has."""
    known = {name_request(*each) for each in work.directory.answers()}
    for batch in work.directory.batches():
        if not batch["read"] and (batch["batch_id"] or batch["look_until"]):
            known.update(batch["ids"])
    tokens = count = 0
    for example, turns in asked:
        names = (name_request(example.id, sample) for sample in range(settings.samples))
        times = sum(name not in known for name in names)
        if times:
            tokens, count = tokens + times * most_billed(settings, turns), count + times
    return tokens, count * max_output_tokens(settings, work.max_new_tokens)


def _finished(
    asking: _Asking,
    asked: Iterable[Asked],
    asks_more: Callable[[], bool],
) -> Iterator[list[Prediction]]:
    """Answers as they come. When something goes wrong, or somebody presses Ctrl-C, no more is
    asked; what is under way, and paid for, is waited for and handed out before the error is
    raised."""
    left, waiting = iter(asked), set[Future[Prediction]]()
    stopped: BaseException | None = None
    threads, waits = ThreadPoolExecutor(asking.concurrency), True
    try:
        while True:
            if stopped is None and asks_more():
                at_once = asking.at_once()
                room = 1 if at_once == 1 else 2 * at_once
                more = islice(left, room - len(waiting))
                waiting |= {threads.submit(asking.ask, *one, at_once) for one in more}
            if not waiting:
                break
            try:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            except KeyboardInterrupt as interrupt:
                if stopped is not None:  # pressed again: nobody wants to wait
                    waits = False
                    raise
                asking.say_waiting()
                stopped, done = interrupt, set()
            found, error = _results(done)
            stopped = stopped or error
            if stopped is not None:
                asking.stop()
            if found:
                yield found
    finally:
        asking.stop()
        threads.shutdown(wait=waits, cancel_futures=True)
    if stopped is not None:
        raise stopped


def _results(done: Iterable[Future[Prediction]]) -> tuple[list[Prediction], BaseException | None]:
    """The answers among finished requests, and what went wrong with one, if anything did."""
    found, wrong = [], None
    for each in done:
        error = each.exception()
        if error is None:
            found.append(each.result())
        elif not isinstance(error, ClosedError):
            wrong = error
    return found, wrong


class _Asking:
    """Asks one example after another, from many threads."""

    def __init__(self, settings: Settings, work: Work, provider: Provider, model: str) -> None:
        self._settings, self._work, self._provider = settings, work, provider
        self._model, self._limiter = model, Limiter(settings.concurrency)
        self.concurrency = settings.concurrency
        known = work.directory.predictions()
        before = [row for row in known.values() if row.error is None]
        self.answered_before = bool(before)
        self._timed = [row.seconds or 0.0 for row in divided(before, self.concurrency)[0]]
        # Only first samples are timed: what was asked before may be in the provider's cache.
        self._asked_alone, self._most_alone = 0, min(MOST + 1, len(work.test) - len(known))
        self._recorded = work.replay.answers() if work.replay is not None else None
        self._alone_then = len(set(timed_then(work)) - set(known))

    def at_once(self) -> int:
        """Returns how many requests may be under way: one while answers are timed. That ends though
        every request should be refused. A replay asks those one at a time that were asked so."""
        if self._recorded is not None:
            times_on = self._asked_alone < self._alone_then
        else:
            left = self._asked_alone < self._most_alone
            times_on = self._work.measure and left and asks_on(self._timed)
        return 1 if times_on else self.concurrency

    def stop(self) -> None:
        """Nothing more is sent."""
        self._limiter.close()

    def say_waiting(self) -> None:
        """Says why it does not end at once."""
        self._work.progress.say(
            f"{self._settings.name}: waiting for the answers that are under way, and paid for"
        )

    def ask(self, example: Example, sample: int, turns: list[Message], at_once: int) -> Prediction:
        """Return one answer, after as many tries as it takes. One that the server fails at each
        time, while it answers others, is a row with `error`, for it would be so for ever.

        Args:
            at_once: how many requests may be under way meanwhile.

        Raises:
            ProviderError: there is none after many tries, or none can be had of this provider.
            BudgetError: a try could pass the budget.
            ClosedError: everything is being stopped.
        """
        with mark_sample(sample):
            found = self._ask(example, sample, turns, at_once)
        return replace(found, sample=sample)

    def _ask(self, example: Example, sample: int, turns: list[Message], at_once: int) -> Prediction:
        lost = busy = 0
        self._asked_alone += at_once == 1
        before = self._limiter.answers
        while True:
            error: ProviderError
            new = self._is_new()
            try:
                reply, seconds = self._tried(turns, busy, new)
                return self._answered(example, sample, reply, reply.seconds or seconds, at_once)
            except RefusedError as refusal:
                if new and refusal.status == NOT_FOUND and busy < MOST_LOADING:
                    error, busy = refusal, busy + 1
                elif refusal.concerns_all():
                    raise
                else:
                    return Prediction(example.id, "", error=str(refusal))
            except BusyError as told:  # the limiter makes everybody wait
                error, busy = told, busy + 1
            except LostError as told:
                error, lost = told, lost + 1
                if (
                    lost == MOST_LOST
                    and told.status is not None
                    and self._limiter.answers == before
                ):
                    self._ask_anything()
                others = self._limiter.answers > before
                if others and lost == 2 * MOST_LOST and told.status is not None:
                    return Prediction(example.id, "", error=f"{told} (tried {lost + busy} times)")
                most = most_tries(told, MOST_LOST)
                if lost >= most and not (others and lost < 2 * MOST_LOST):
                    raise _given_up(told, lost + busy) from None
                tell(told, lost, most, lost)
                self._limiter.sleep(pause_before(lost, error))
            if busy >= MOST_BUSY:
                raise _given_up(error, lost + busy)

    def _answered(
        self, example: Example, sample: int, reply: Reply, seconds: float, at_once: int
    ) -> Prediction:
        """Returns an answer as a row. A replay has `concurrency` from the recorded run."""
        if self._recorded is not None:
            before = self._recorded.get((example.id, sample))
            at_once_then = before.concurrency if before is not None else None
            return prediction(example.id, reply, seconds, at_once_then)
        found = prediction(example.id, reply, seconds, at_once)
        if at_once == 1 and found.error is None:
            self._timed.append(seconds)
        return found

    def _ask_anything(self) -> None:
        """Finds out whether the server fails at one example, or at everything; by now there may be
        nobody else who asks it."""
        with contextlib.suppress(ProviderError):
            self._tried([ANYTHING], busy=0, new=False)

    def _tried(self, turns: list[Message], busy: int, new: bool) -> tuple[Reply, float]:
        with self._limiter.slot():
            most = max_output_tokens(self._settings, self._work.max_new_tokens)
            ticket = self._work.guard.authorize(
                "answering", input=most_billed(self._settings, turns), output=most
            )
            began = time.perf_counter()
            try:
                effort = effort_of(self._settings)
                temperature = self._settings.temperature
                reply = self._provider.chat(self._model, turns, most, effort, temperature)
            except RefusedError as error:
                # Azure bills prompts that its filter refuses.
                if error.concerns_all() or self._settings.provider != "azure":
                    ticket.give_back()
                if new and error.status == NOT_FOUND:
                    self._limiter.busy(pause_before(busy))
                raise
            except (BusyError, LostError) as error:
                if error.certain:
                    ticket.give_back()
                if isinstance(error, BusyError):
                    self._limiter.busy(pause_before(busy, error))
                raise
            seconds = time.perf_counter() - began
            _settle(ticket, reply)
            self._limiter.answered(reply.pause_seconds)
        return reply, seconds

    def _is_new(self) -> bool:
        """Whether it is a model that was tuned just now and has not answered yet: it may not be
        found while it is being loaded. Who asks looks before it asks, for another's answer may
        come first."""
        tuned = isinstance(self._settings, HostedSettings)
        return tuned and not self.answered_before and not self._limiter.answers


def _given_up(error: ProviderError, tries: int) -> ProviderError:
    return ProviderError(f"{error} (tried {tries} times); the same command goes on later")


def _settle(ticket: Ticket, reply: Reply) -> None:
    """Where the server does not say how many tokens it billed, the leave stays as it is."""
    if reply.tokens_in is not None and reply.tokens_out is not None:
        ticket.settle(
            input=reply.tokens_in,
            output=reply.tokens_out,
            cached=reply.cached_tokens_in,
            written=reply.written_tokens_in,
        )


def prediction(
    id: str, reply: Reply, seconds: float | None, concurrency: int | None = None
) -> Prediction:
    """Return a reply as a row; `seconds` is None where nobody waited for it alone."""
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
