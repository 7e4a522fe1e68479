"""A hosted fine-tuning job: created exactly once, and recorded.

`job.json` is written before each paid call and after it. Before a job is created, the provider is
searched for it: a create call whose answer was lost, or a process that was killed, may have left
one that is unknown here. It is recognized by the idempotency key (`intent`) in its metadata.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tuneoff import prompts
from tuneoff.config.contenders import HostedConfig
from tuneoff.contenders.base import ContenderContext, Reservation, choose_template
from tuneoff.contenders.hosted_inference import count_max_prompt_tokens, has_openai_encoding
from tuneoff.contenders.idempotency import find_or_create, find_or_upload, wait_until_processed
from tuneoff.contenders.job_polling import wait_for_job
from tuneoff.errors import ContenderError, DataError, RejectedError
from tuneoff.providers import base
from tuneoff.providers.base import Job, JobSpec, Provider
from tuneoff.providers.retries import retry
from tuneoff.records import Example
from tuneoff.tasks import training_rows
from tuneoff.tokenization.openai import find_training_limit

IDEMPOTENCY_KEY_FIELD, RUN_FIELD, CONTENDER_FIELD = (
    "tuneoff_intent",
    "tuneoff_run",
    "tuneoff_contender",
)
# Fields that a replay copies from the recorded run's job.
REPLAYED_FIELDS = (
    "provider",
    "base_url",
    "model",
    "intent",
    "since",
    "suffix",
    "metadata",
    "job_id",
)
CREATING_JOB = "create job"
FAILURE_WORDS = {"failed": "failed", "cancelled": "was cancelled"}


def run_job(settings: HostedConfig, work: ContenderContext, provider: Provider) -> None:
    """Run the job to its end, or continue it, and record its result.

    Raises:
        ContenderError: the job failed, or was cancelled.
        ProviderError: the provider rejected it, or cannot be reached; an existing job continues.
        BudgetError: the job would cost too much.
    """
    from tuneoff.contenders.job_record import save_job_result

    job = wait_for_job(settings, work, provider, submit_job(settings, work, provider))
    ticket = _authorize_training(settings, work)
    if job.status != "succeeded" or not job.model:
        _settle_without_model(job, ticket)
        raise ContenderError(
            f"contender {settings.name}: job {job.id} at {provider.url} "
            f"{FAILURE_WORDS.get(job.status, 'ended without a model')}"
            f"{f' ({job.error})' if job.error else ''}; "
            f"`--only {settings.name} --fresh` pays for a new one."
        )
    # Settle before `training.json` is written, so that a kill in between leaves nothing unsettled.
    tokens = job.trained_tokens or count_max_training_tokens(settings, work)
    ticket.settle(training=tokens, usd=job.billed_usd)
    save_job_result(settings, work, provider, job)


def find_tuned_model(settings: HostedConfig, work: ContenderContext) -> str:
    """Return the name of the tuned model, or of its best checkpoint; empty before there is one."""
    facts = work.directory.job()
    if settings.checkpoint == "best":
        measured = [c for c in facts.get("checkpoints", ()) if c["validation"] is not None]
        best = min(measured, key=lambda checkpoint: checkpoint["validation"], default=None)
        if best is not None:
            return str(best["model"])
    return str(facts.get("tuned_model") or "")


def build_training_files(
    settings: HostedConfig, work: ContenderContext
) -> dict[str, tuple[str, str]]:
    """Return (name, text) of the training file and, if there is one, of the validation file.

    A name holds the hash of the content, so that an uploaded file is recognized.

    Raises:
        DataError: an example cannot be learned from; the message names the line.
    """
    if len(work.train) < training_rows.MIN_EXAMPLES:
        raise DataError(
            f"contender {settings.name}: {len(work.train)} training examples are fewer than the "
            f"{training_rows.MIN_EXAMPLES} that a hosted job needs; add some."
        )
    examples = {"training_file": work.train, "validation_file": work.validation}
    return {
        which: _build_file(settings, work, which, some) for which, some in examples.items() if some
    }


def _build_file(
    settings: HostedConfig, work: ContenderContext, which: str, examples: Sequence[Example]
) -> tuple[str, str]:
    """Return name and text of one split's file; raise DataError for a faulty example."""
    template, lines = choose_template(settings, work), list[str]()
    # A file that is paid for was checked by the rules of its day, and must stay as it was.
    begun = work.directory.has_paid_work()
    for number, example in enumerate(examples, 1):
        turns = prompts.render_conversation(example, template)
        fault = None if begun else training_rows.find_fault({"messages": turns})
        if fault is not None:
            if training_rows.ONLY_THE_LAST in fault:
                # Earlier versions did not store weights.
                fault += " (where your file does so already, give another --run-dir)"
            raise DataError(
                f"contender {settings.name}: the {which} cannot be learned from: line {number} "
                f"(example {example.id!r}): {fault}."
            )
        lines.append(training_rows.render_line(turns))
    text = "".join(lines)
    if len(text.encode()) > training_rows.MAX_BYTES:
        raise DataError(
            f"contender {settings.name}: the {which} is larger than the "
            f"{training_rows.MAX_BYTES} bytes that a hosted job takes; use fewer examples "
            "(task.limit)."
        )
    return f"tuneoff-{hashlib.sha256(text.encode()).hexdigest()}.jsonl", text


def count_max_training_tokens(settings: HostedConfig, work: ContenderContext) -> int:
    """Return the maximum tokens that the job can bill: the counted tokens times its epochs."""
    job_schedule = base.load_provider_module(settings.provider).schedule(
        settings.epochs, len(work.train), bool(work.validation)
    )
    sets = (
        _count_max_tokens(settings, work, examples) for examples in (work.train, work.validation)
    )
    return int(job_schedule.billed(*sets))


def _count_max_tokens(
    settings: HostedConfig, work: ContenderContext, examples: Sequence[Example]
) -> int:
    """Return the maximum tokens that one pass over the examples can bill."""
    template, counted = choose_template(settings, work), has_openai_encoding(settings)
    max_tokens = find_training_limit(settings.model) if counted else None
    total = 0
    for example in examples:
        turns = prompts.render_messages(example, template)
        whole = count_max_prompt_tokens(
            settings, [*turns, {"role": "assistant", "content": example.completion}]
        )
        total += whole if max_tokens is None else min(whole, max_tokens)
    return total


def _authorize_training(settings: HostedConfig, work: ContenderContext) -> Reservation:
    """Authorize the training and return its reservation; a repeated call changes nothing."""
    facts = _load_or_create_job(settings, work)
    return work.guard.authorize(
        "training", str(facts["intent"]), training=count_max_training_tokens(settings, work)
    )


def _load_or_create_job(settings: HostedConfig, work: ContenderContext) -> dict[str, Any]:
    """Load the job's facts; the first time, create them with a new idempotency key."""
    facts = work.directory.job()
    if "intent" not in facts and work.replay is not None:
        recorded = work.replay.job()
        facts = {name: recorded.get(name) for name in REPLAYED_FIELDS}
        work.directory.write_job(facts)
    if facts.get("intent") is None:
        intent = secrets.token_hex(12)
        facts = {
            "provider": settings.provider,
            "base_url": settings.base_url,
            "model": settings.model,
            "intent": intent,
            "since": time.time(),
            "suffix": settings.suffix or f"{settings.name[:24].rstrip('._-')}-{intent[:8]}",
            "metadata": {
                RUN_FIELD: work.name[:500],
                CONTENDER_FIELD: settings.name,
                IDEMPOTENCY_KEY_FIELD: intent,
            },
            "doing": None,
            "look_until": None,
            "job_id": None,
        }
        work.directory.write_job(facts)
    return facts


def submit_job(settings: HostedConfig, work: ContenderContext, provider: Provider) -> Job:
    """Return the job of `job.json`, one that an earlier try created, or a new one.

    Raises:
        ProviderError: the provider rejected the job, or cannot be reached.
        BudgetError: the job would cost too much.
    """
    facts = _load_or_create_job(settings, work)
    if facts["job_id"] is not None:
        return retry(lambda: provider.job(facts["job_id"]))
    for which, (name, text) in build_training_files(settings, work).items():
        path = work.directory.write_upload(name, text)
        if (facts.get(which) or {}).get("name") != name:
            id = _upload_file(work, provider, facts, path)
            _update_job(work, facts, **{which: {"name": name, "id": id}})
    for which in ("training_file", "validation_file"):
        if facts.get(which):
            _wait_for_file(settings, work, provider, facts, which)
    spec = JobSpec(
        model=settings.model,
        training_file=facts["training_file"]["id"],
        validation_file=(facts.get("validation_file") or {}).get("id"),
        suffix=facts["suffix"],
        metadata=facts["metadata"],
        since=facts["since"],
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate_multiplier=settings.learning_rate_multiplier,
        seed=settings.seed,
        learning_rate=settings.learning_rate,
        method=settings.method,
        early_stopping=settings.early_stopping,
        keep_checkpoints=settings.checkpoint == "best",
    )
    job = _create_job(settings, work, provider, spec, facts)
    _update_job(work, facts, doing=None, look_until=None, job_id=job.id, status=job.status)
    work.progress.say(f"{settings.name}: job {job.id} at {provider.url}")
    return job


def _increase_to_estimate(
    settings: HostedConfig,
    work: ContenderContext,
    provider: Provider,
    spec: JobSpec,
    ticket: Reservation,
) -> None:
    """Ask the provider what the job will cost, and increase the reservation if that is more."""
    try:
        estimate = retry(lambda: provider.estimate(spec))
        if estimate is None:
            return
        if estimate.warning is not None:
            work.progress.say(f"warning: {settings.name}: {estimate.warning}")
        if estimate.usd is not None:
            tokens = "" if estimate.tokens is None else f" for {estimate.tokens:,} tokens"
            work.progress.say(
                f"{settings.name}: {provider.url} estimates ${estimate.usd:.2f}{tokens} of training"
            )
            ticket.increase_to(estimate.usd)
    except BaseException:  # there is no job yet, whatever the error
        ticket.release()
        raise


def _upload_file(
    work: ContenderContext, provider: Provider, facts: dict[str, Any], path: Path
) -> str:
    """Return a file's id; a file of that name that is there already is not sent again."""
    doing = f"upload {path.name}"
    is_resumed = facts["doing"] == doing
    _update_job(work, facts, doing=doing)
    return find_or_upload(
        lambda: provider.find_file(path.name), lambda: provider.upload(path), is_resumed
    )


def _wait_for_file(
    settings: HostedConfig,
    work: ContenderContext,
    provider: Provider,
    facts: dict[str, Any],
    which: str,
) -> None:
    """Wait until a file can be used; drop one that never can, so that it is uploaded again."""
    file = facts[which]
    try:
        wait_until_processed(
            lambda: provider.file_state(file["id"]),
            provider.url,
            file["name"],
            lambda line: work.progress.say(f"{settings.name}: {line}"),
        )
    except RejectedError:
        _update_job(work, facts, **{which: None})
        raise


def _create_job(
    settings: HostedConfig,
    work: ContenderContext,
    provider: Provider,
    spec: JobSpec,
    facts: dict[str, Any],
) -> Job:
    """Return a job of the spec: one that an earlier try created, or a new one."""
    taken = [other.job().get("job_id") or "" for other in work.directory.siblings()]

    def authorized() -> Reservation:
        ticket = _authorize_training(settings, work)
        if facts["doing"] != CREATING_JOB:
            _increase_to_estimate(settings, work, provider, spec, ticket)
        return ticket

    return find_or_create(
        find=lambda: provider.find_job(spec, taken),
        create=lambda: provider.create_job(spec),
        authorized=authorized,
        look_until=facts["look_until"],
        note=lambda until: _update_job(work, facts, doing=CREATING_JOB, look_until=until),
        # The next try needs a new idempotency key: it is another job.
        refused=lambda: _update_job(work, facts, intent=None, doing=None),
    )


def _settle_without_model(job: Job, ticket: Reservation) -> None:
    """Settle the cost of a job without a model, where the provider reports it.

    Otherwise the reservation stays open: nobody knows the cost until the bill comes.
    """
    if job.trained_tokens or job.billed_usd is not None:
        ticket.settle(training=job.trained_tokens or 0, usd=job.billed_usd)


def _update_job(work: ContenderContext, facts: dict[str, Any], **changed: Any) -> None:
    """Update the job's facts and save them."""
    facts.update(changed)
    work.directory.write_job(facts)
