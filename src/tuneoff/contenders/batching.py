"""Answers through a provider's Batch API: at half the price, within a day.

Requests that a batch did not answer are put into the next one, a few times. A command that was
killed continues with its batch (`batch_job.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from tuneoff.contenders.base import ContenderContext
from tuneoff.contenders.batch_inference import BatchJobs, PendingRequests
from tuneoff.contenders.hosted_inference import (
    MAX_REJECTED,
    ChatRequest,
    ProviderConfig,
    build_prediction,
)
from tuneoff.contenders.samples import Question, name_request, name_requests, read_request
from tuneoff.errors import ConfigError, ProviderError, RejectedError
from tuneoff.providers.base import Batches, BatchRow, Provider
from tuneoff.providers.http_errors import REJECTED_STATUSES
from tuneoff.records import Prediction

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
