"""Answers through a provider's Batch API: at half the price, within a day.

`batch.json` is written before a batch is paid for and after each change. A batch whose create call
was lost is found again by the idempotency key (`intent`) in its metadata, so each batch is created
once and followed to its end. Requests that a batch did not answer are put into the next one, a few
times. A command that was killed continues with its batch.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tuneoff.contenders.base import ContenderContext, Reservation
from tuneoff.contenders.fine_tuning_job import CONTENDER_FIELD, IDEMPOTENCY_KEY_FIELD, RUN_FIELD
from tuneoff.contenders.hosted_inference import (
    MAX_REJECTED,
    ChatRequest,
    ProviderConfig,
    build_prediction,
    count_max_output_tokens,
    count_max_prompt_tokens,
    get_reasoning_effort,
)
from tuneoff.contenders.idempotency import find_or_create, find_or_upload, wait_until_processed
from tuneoff.contenders.samples import Question, name_request, name_requests, read_request
from tuneoff.errors import (
    ConfigError,
    ProviderError,
    RateLimitedError,
    RejectedError,
    UnknownOutcomeError,
)
from tuneoff.prompts import Message
from tuneoff.providers.base import BATCH_FINISHED, BATCH_WAITING, Batch, Batches, BatchRow, Provider
from tuneoff.providers.http_errors import REJECTED_STATUSES
from tuneoff.providers.retries import retry
from tuneoff.records import Prediction

# OpenAI's limits per batch; a larger test set needs several batches.
MAX_REQUESTS, MAX_BYTES = 50_000, 190 * 1024**2
MIN_POLL_SECONDS, MAX_POLL_SECONDS, POLL_BACKOFF = 0.5, 60.0, 1.3
POLL_TRIES = 25

# The requests that are not answered yet, by name (`samples.py`).
PendingRequests = dict[str, list[Message]]


class BatchJobs:
    """One contender's batches, saved as they progress."""

    def __init__(
        self, settings: ProviderConfig, work: ContenderContext, batches: Batches, model: str
    ) -> None:
        self._settings, self._work, self.batches, self._model = settings, work, batches, model
        self._kept = work.directory.batches()
        if not self._kept and work.replay is not None:
            self._kept = [{**facts, "read": False} for facts in work.replay.batches()]
        self.url = batches.url
        self._most = count_max_output_tokens(settings, work.max_new_tokens)
        before = work.directory.answers().values()
        self.answered_before = any(row.error is None for row in before)

    def note(self, facts: dict[str, Any], **changed: Any) -> None:
        """Update a batch's facts and save them."""
        facts.update(changed)
        self._work.directory.write_batches(self._kept)

    def current(self, left: PendingRequests) -> dict[str, Any]:
        """Return the batch under way, or a new one for the requests that are left."""
        unread = next((facts for facts in self._kept if not facts["read"]), None)
        if unread is not None and not _is_abandoned(unread, left):
            return unread
        if unread is not None:
            self._kept.remove(unread)
        intent, ids = secrets.token_hex(12), [id for id, _ in self._lines(left)]
        facts = {"intent": intent, "since": time.time(), "ids": ids, "file": None, "batch_id": None,
                 "status": None, "look_until": None, "read": False}  # fmt: skip
        self._kept.append(facts)
        self.note(facts)
        return facts

    def wait_for_batch(self, facts: dict[str, Any], left: PendingRequests) -> Batch:
        """Wait for a batch to end and return it.

        Raises:
            KeyboardInterrupt: the batch continues at the provider.
        """
        batch = self._submit_batch(facts, left)
        try:
            return self._poll_batch(facts, batch)
        except KeyboardInterrupt:
            self._work.progress.say(
                f"{self._settings.name}: batch {batch.id} goes on at {self.url}; the same "
                "command follows it again."
            )
            raise

    def read(self, facts: dict[str, Any], batch: Batch) -> list[BatchRow]:
        """Return the rows of a finished batch, and settle their cost.

        Raises:
            ProviderError: the provider rejected the batch as a whole.
        """
        ticket = self._authorize_batch(facts)
        rows = retry(lambda: list(self.batches.rows(batch)))
        if batch.status == "failed" and not rows:
            ticket.release()
            self.note(facts, read=True)
            why = batch.error or "it does not say why"
            raise ProviderError(f"{self.url} refused batch {batch.id}: {why}")
        _settle_batch(ticket, batch, rows)
        return rows

    def _lines(self, left: PendingRequests) -> Iterator[tuple[str, str]]:
        """Yield requests as lines, up to the limits of one batch."""
        size = 0
        for count, (id, turns) in enumerate(left.items()):
            effort, temperature = get_reasoning_effort(self._settings), self._settings.temperature
            request = self.batches.request(id, self._model, turns, self._most, effort, temperature)
            line = json.dumps(request, ensure_ascii=False) + "\n"
            size += len(line.encode())
            if count == MAX_REQUESTS or (count and size > MAX_BYTES):
                return
            yield id, line

    def _authorize_batch(
        self, facts: dict[str, Any], left: PendingRequests | None = None
    ) -> Reservation:
        """Authorize a batch and return its reservation; a repeated call changes nothing."""
        turns = [left[id] for id in facts["ids"] if id in left] if left else []
        return self._work.guard.authorize(
            "answering",
            str(facts["intent"]),
            input=sum(count_max_prompt_tokens(self._settings, messages) for messages in turns),
            output=len(facts["ids"]) * self._most,
            batch=True,
        )

    def _submit_batch(self, facts: dict[str, Any], left: PendingRequests) -> Batch:
        """Return the batch of `batch.json`, one that an earlier try created, or a new one."""
        if facts["batch_id"] is not None:
            return retry(lambda: self.batches.batch(facts["batch_id"]))
        is_uploading = facts["file"] is not None
        if not is_uploading:
            requests = {id: left[id] for id in facts["ids"]}
            text = "".join(line for _, line in self._lines(requests))
            name = f"tuneoff-batch-{hashlib.sha256(text.encode()).hexdigest()}.jsonl"
            self._work.directory.write_upload(name, text)
            self.note(facts, file=name)
        file = self._upload_file(facts["file"], is_uploading)
        wait_until_processed(
            lambda: self.batches.file_state(file),
            self.url,
            facts["file"],
            lambda line: self._work.progress.say(f"{self._settings.name}: {line}"),
        )
        batch = self._create_batch(facts, left, file)
        self.note(facts, batch_id=batch.id, status=batch.status, look_until=None)
        self._work.progress.say(
            f"{self._settings.name}: batch {batch.id} at {self.url}, {len(facts['ids'])} requests"
        )
        return batch

    def _upload_file(self, name: str, begun: bool) -> str:
        """Return a file's id; a file of that name that is there already is not sent again."""
        path = self._work.directory.upload(name)
        return find_or_upload(
            lambda: self.batches.find_file(name), lambda: self.batches.upload(path), begun
        )

    def _create_batch(self, facts: dict[str, Any], left: PendingRequests, file: str) -> Batch:
        """Return a batch that an earlier try created, or a new one."""
        metadata = {RUN_FIELD: self._work.name[:500], CONTENDER_FIELD: self._settings.name,
                    IDEMPOTENCY_KEY_FIELD: facts["intent"]}  # fmt: skip
        return find_or_create(
            find=lambda: self.batches.find(metadata, facts["since"]),
            create=lambda: self.batches.create(file, metadata),
            authorized=lambda: self._authorize_batch(facts, left),
            look_until=facts["look_until"],
            note=lambda until: self.note(facts, look_until=until),
            # The next try builds the requests anew; they may be the cause.
            refused=lambda: self.note(facts, file=None),
        )

    def _poll_batch(self, facts: dict[str, Any], batch: Batch) -> Batch:
        """Poll a batch until it ends and return it."""
        name, wait, status = self._settings.name, MIN_POLL_SECONDS, ""
        step = self._work.progress.stage(f"{name}: batch", len(facts["ids"]))
        while True:
            if batch.status != status:
                status, wait = batch.status, MIN_POLL_SECONDS
                self.note(facts, status=status)
                note = "" if status in BATCH_WAITING + BATCH_FINISHED else (
                    " (a state that is not known here; waiting on)"
                )  # fmt: skip
                self._work.progress.say(f"{name}: batch {batch.id} is {status}{note}")
            step(batch.done)
            if status in BATCH_FINISHED:
                return batch
            time.sleep(wait * (0.75 + secrets.randbelow(500) / 1000))
            wait = min(MAX_POLL_SECONDS, wait * POLL_BACKOFF)
            batch = self._fetch_batch(batch.id)

    def _fetch_batch(self, id: str) -> Batch:
        """Return a batch's current state, retrying for as long as a paid batch deserves."""
        try:
            return retry(lambda: self.batches.batch(id), POLL_TRIES)
        except (RateLimitedError, UnknownOutcomeError) as error:
            raise ProviderError(
                f"{error}; batch {id} goes on there, and the same command follows it again"
            ) from None


def _is_abandoned(facts: dict[str, Any], left: PendingRequests) -> bool:
    """Return whether a batch was never sent and holds samples that are no longer asked for."""
    is_sent = facts["batch_id"] is not None or facts["look_until"] is not None
    return not is_sent and not left.keys() >= set(facts["ids"])


def _settle_batch(ticket: Reservation, batch: Batch, rows: list[BatchRow]) -> None:
    """Settle a reservation by the batch's own token count, else by its answers'.

    If one answer reports no tokens, the reservation stays open. Only the answers report cache
    writes.
    """
    replies = [row.reply for row in rows if row.reply is not None]
    written = sum(reply.written_tokens_in for reply in replies)
    if batch.tokens_in and batch.tokens_out is not None:
        written = min(written, batch.tokens_in)
        ticket.settle(input=batch.tokens_in, output=batch.tokens_out, written=written)
        return
    tokens_in = [reply.tokens_in for reply in replies if reply.tokens_in is not None]
    tokens_out = [reply.tokens_out for reply in replies if reply.tokens_out is not None]
    if len(tokens_in) == len(tokens_out) == len(replies):
        ticket.settle(input=sum(tokens_in), output=sum(tokens_out), written=written)


# This many batches may fail to answer an example.
MAX_TRIES = 3
UNSUPPORTED_CODES = ("unsupported_parameter", "unsupported_value")


def get_batch_api(settings: ProviderConfig, provider: Provider) -> Batches:
    """Return the provider's batches.

    Raises:
        ConfigError: the provider has none.
    """
    batches = provider.batches()
    if batches is None:
        raise ConfigError(
            f"contender {settings.name}: {settings.provider} has no batches that are known here; "
            "leave `batch` out."
        )
    return batches


def request_batched_answers(
    settings: ProviderConfig,
    work: ContenderContext,
    provider: Provider,
    model: str,
    chat_requests: Iterable[ChatRequest],
) -> Iterator[list[Prediction]]:
    """Yield answers whenever a batch is finished; a rejected request becomes a row with `error`.

    Raises:
        ProviderError: a batch is rejected, or several batches leave some requests unanswered.
        BudgetError: the next batch could pass the budget.
    """
    jobs = BatchJobs(settings, work, get_batch_api(settings, provider), model)
    questions, left = list[Question](), PendingRequests()
    for example, sample, turns in chat_requests:
        questions.append((example, sample))
        left[name_request(example.id, sample)] = turns
    named = name_requests(questions)
    failed, last = Counter[str](), dict[str, BatchRow]()
    while left:
        facts = jobs.current(left)
        rows = jobs.read(facts, jobs.wait_for_batch(facts, left))
        outcome = _classify_rows(jobs, [row for row in rows if row.id in left], len(left))
        predictions = [_restore_question(prediction_row, named) for prediction_row in outcome.found]
        predictions += _collect_extra_answers(work, rows, left)
        if predictions:
            yield predictions
        jobs.note(facts, read=True)
        if outcome.refusal is not None:
            raise ProviderError(f"{jobs.url} {outcome.refusal}")
        for answered in outcome.found:
            left.pop(answered.id)
        if outcome.adapted:
            continue
        last |= {row.id: row for row in rows}
        failed.update(id for id in facts["ids"] if id in left)
        given_up = _fail_requests(jobs, [id for id in left if failed[id] >= MAX_TRIES], last)
        if given_up:
            yield [_restore_question(prediction_row, named) for prediction_row in given_up]
            for answered in given_up:
                left.pop(answered.id)


def _collect_extra_answers(
    work: ContenderContext, rows: Iterable[BatchRow], left: PendingRequests
) -> list[Prediction]:
    """Return answers to samples that the file asked for when the batch was sent: they are paid."""
    ids, answered = {example.id for example in work.test}, work.directory.answers()
    predictions = list[Prediction]()
    for row in rows:
        question = read_request(row.id, ids) if row.id not in left else None
        if row.reply is not None and question is not None and question not in answered:
            id, sample = question
            predictions.append(replace(build_prediction(id, row.reply, None), sample=sample))
    return predictions


def _restore_question(answered: Prediction, named: Mapping[str, Question]) -> Prediction:
    """Return an answer under its example's id and sample instead of its request's name."""
    example, sample = named[answered.id]
    return replace(answered, id=example.id, sample=sample)


@dataclass
class _BatchOutcome:
    """What a batch returned."""

    found: list[Prediction] = field(default_factory=list)
    """Rows to yield."""
    adapted: bool = False
    """Later requests are built differently, so some of these are sent again."""
    refusal: str | None = None
    """Why nothing more is sent, if so."""


def _classify_rows(jobs: BatchJobs, rows: list[BatchRow], left: int) -> _BatchOutcome:
    """Classify the rows of a batch that are not yielded yet, and return the outcome."""
    outcome = _BatchOutcome()
    for row in rows:
        if row.reply is not None:
            outcome.found.append(build_prediction(row.id, row.reply, None))
        elif jobs.batches.adapted(row) or (outcome.adapted and row.code in UNSUPPORTED_CODES):
            outcome.adapted = True
        elif row.status in REJECTED_STATUSES:
            refusal = RejectedError(row.error or "", row.status, row.code, row.param)
            if refusal.concerns_all():
                outcome.refusal = f"refused the batch's requests: {refusal}"
            else:
                outcome.found.append(Prediction(row.id, "", error=f"{jobs.url}: {refusal}"))
    refused = [row for row in outcome.found if row.error is not None]
    few = len(refused) < min(MAX_REJECTED, left)
    if len(refused) == len(outcome.found) and not few and not jobs.answered_before:
        first = refused[0].error
        return _BatchOutcome(refusal=f"refused every request; the first refusal: {first}")
    return outcome


def _fail_requests(
    jobs: BatchJobs, hopeless: list[str], last: Mapping[str, BatchRow]
) -> list[Prediction]:
    """Return rows with `error` for requests that the server failed at in every batch.

    Raises:
        ProviderError: the server never processed some of them.
    """
    silent = [id for id in hopeless if id not in last or last[id].status is None]
    if silent:
        raise ProviderError(
            f"{jobs.url}: {len(silent)} requests got no answer in {MAX_TRIES} batches (the first "
            f"one: {silent[0]}); the same command goes on later"
        )
    tried = f"(tried in {MAX_TRIES} batches)"
    return [Prediction(id, "", error=f"{jobs.url}: {last[id].error} {tried}") for id in hopeless]
