"""A hosted fine-tuning job: sent once, whatever happens, and what comes of it.

`job.json` holds what is meant before each paid call and what came of it after. Before a job is
created it is looked for: a create whose answer was lost, or a process that was killed, may have
left one that nobody here has heard of. It is known by the intent in its metadata.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tuneoff import prompts, providers
from tuneoff.billing import trained_on
from tuneoff.contender_settings import HostedSettings
from tuneoff.contenders import Ticket, Work, template_for
from tuneoff.contenders.asking import counts_as_openai, most_billed
from tuneoff.contenders.hosted_following import followed
from tuneoff.contenders.once import (
    found_or_created,
    found_or_uploaded,
    wait_until_processed,
)
from tuneoff.errors import ContenderError, DataError, RefusedError
from tuneoff.providers import Job, JobSpec, Provider
from tuneoff.providers.calls import repeated
from tuneoff.records import Example
from tuneoff.tasks import training_rows

INTENT, RUN, CONTENDER = "tuneoff_intent", "tuneoff_run", "tuneoff_contender"
# What a replay takes over of the recorded run's job.
KEPT = ("provider", "base_url", "model", "intent", "since", "suffix", "metadata", "job_id")
CREATING = "create job"
WITHOUT_MODEL = {"failed": "failed", "cancelled": "was cancelled"}


def carry_out(settings: HostedSettings, work: Work, provider: Provider) -> None:
    """Has the job done, or goes on with it, and writes down what came of it.

    Raises:
        ContenderError: it failed, or was cancelled.
        ProviderError: the provider refused, or is out of reach; the job, if there is one, goes on.
        BudgetError: it would cost too much.
    """
    from tuneoff.contenders.hosted_record import write_down

    job = followed(settings, work, provider, submitted(settings, work, provider))
    ticket = _authorized(settings, work)
    if job.status != "succeeded" or not job.model:
        _settle_without_model(job, ticket)
        raise ContenderError(
            f"contender {settings.name}: job {job.id} at {provider.url} "
            f"{WITHOUT_MODEL.get(job.status, 'ended without a model')}"
            f"{f' ({job.error})' if job.error else ''}; "
            f"`--only {settings.name} --fresh` pays for a new one."
        )
    # Before `training.json` is there, so that a kill in between leaves nothing undone.
    tokens = job.trained_tokens or most_training_tokens(settings, work)
    ticket.settle(training=tokens, usd=job.billed_usd)
    write_down(settings, work, provider, job)


def answers_with(settings: HostedSettings, work: Work) -> str:
    """The tuned model, or the best checkpoint if asked for; empty before there is one."""
    facts = work.directory.job()
    if settings.checkpoint == "best":
        measured = [c for c in facts.get("checkpoints", ()) if c["validation"] is not None]
        best = min(measured, key=lambda each: each["validation"], default=None)
        if best is not None:
            return str(best["model"])
    return str(facts.get("tuned_model") or "")


def files_of(settings: HostedSettings, work: Work) -> dict[str, tuple[str, str]]:
    """Return name and text of the training file and, if there is one, of the validation file. A
    name is its content's hash, so that a file which was uploaded before is known.

    Raises:
        DataError: an example cannot be learned from; the message names the line.
    """
    if len(work.train) < training_rows.MIN_EXAMPLES:
        raise DataError(
            f"contender {settings.name}: {len(work.train)} training examples are fewer than the "
            f"{training_rows.MIN_EXAMPLES} that a hosted job needs; add some."
        )
    examples = {"training_file": work.train, "validation_file": work.validation}
    return {which: _file(settings, work, which, some) for which, some in examples.items() if some}


def _file(
    settings: HostedSettings, work: Work, which: str, examples: Sequence[Example]
) -> tuple[str, str]:
    template, lines = template_for(settings, work), list[str]()
    # What is paid for was checked then, by the rules of its day, and stays what it was.
    begun = work.directory.has_begun_paying()
    for number, example in enumerate(examples, 1):
        turns = prompts.conversation(example, template)
        fault = None if begun else training_rows.find_fault({"messages": turns})
        if fault is not None:
            if training_rows.ONLY_THE_LAST in fault:
                # Earlier versions did not store weights.
                fault += " (where your file does so already, give another --run-dir)"
            raise DataError(
                f"contender {settings.name}: the {which} cannot be learned from: line {number} "
                f"(example {example.id!r}): {fault}."
            )
        lines.append(training_rows.to_line(turns))
    text = "".join(lines)
    if len(text.encode()) > training_rows.MOST_BYTES:
        raise DataError(
            f"contender {settings.name}: the {which} is larger than the "
            f"{training_rows.MOST_BYTES} bytes that a hosted job takes; use fewer examples "
            "(task.limit)."
        )
    return f"tuneoff-{hashlib.sha256(text.encode()).hexdigest()}.jsonl", text


def most_training_tokens(settings: HostedSettings, work: Work) -> int:
    """The most tokens that the job can bill: as counted before, as often as it goes over them."""
    found = providers.module_of(settings.provider).schedule(
        settings.epochs, len(work.train), bool(work.validation)
    )
    sets = (_most_tokens(settings, work, examples) for examples in (work.train, work.validation))
    return int(found.billed(*sets))


def _most_tokens(settings: HostedSettings, work: Work, examples: Sequence[Example]) -> int:
    template, counted = template_for(settings, work), counts_as_openai(settings)
    most = trained_on(settings.model) if counted else None
    found = 0
    for example in examples:
        turns = prompts.messages(example, template)
        whole = most_billed(
            settings, [*turns, {"role": "assistant", "content": example.completion}]
        )
        found += whole if most is None else min(whole, most)
    return found


def _authorized(settings: HostedSettings, work: Work) -> Ticket:
    """Leave to train, asked for once however often this is carried out."""
    facts = _facts(settings, work)
    return work.guard.authorize(
        "training", str(facts["intent"]), training=most_training_tokens(settings, work)
    )


def _facts(settings: HostedSettings, work: Work) -> dict[str, Any]:
    """What is known of the job; the first time an intent, which is written down."""
    facts = work.directory.job()
    if "intent" not in facts and work.replay is not None:
        kept = work.replay.job()
        facts = {name: kept.get(name) for name in KEPT}
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
            "metadata": {RUN: work.name[:500], CONTENDER: settings.name, INTENT: intent},
            "doing": None,
            "look_until": None,
            "job_id": None,
        }
        work.directory.write_job(facts)
    return facts


def submitted(settings: HostedSettings, work: Work, provider: Provider) -> Job:
    """The job: the one of `job.json`, one that an earlier try created, or a new one.

    Raises:
        ProviderError: the provider refused, or is out of reach.
        BudgetError: it would cost too much.
    """
    facts = _facts(settings, work)
    if facts["job_id"] is not None:
        return repeated(lambda: provider.job(facts["job_id"]))
    for which, (name, text) in files_of(settings, work).items():
        path = work.directory.write_upload(name, text)
        if (facts.get(which) or {}).get("name") != name:
            id = _uploaded(work, provider, facts, path)
            _note(work, facts, **{which: {"name": name, "id": id}})
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
    job = _created(settings, work, provider, spec, facts)
    _note(work, facts, doing=None, look_until=None, job_id=job.id, status=job.status)
    work.progress.say(f"{settings.name}: job {job.id} at {provider.url}")
    return job


def _estimated(
    settings: HostedSettings, work: Work, provider: Provider, spec: JobSpec, ticket: Ticket
) -> None:
    """Asks the provider what the job will cost, and asks leave for that, where it is more than was
    thought."""
    try:
        estimate = repeated(lambda: provider.estimate(spec))
        if estimate is None:
            return
        if estimate.warning is not None:
            work.progress.say(f"warning: {settings.name}: {estimate.warning}")
        if estimate.usd is not None:
            tokens = "" if estimate.tokens is None else f" for {estimate.tokens:,} tokens"
            work.progress.say(
                f"{settings.name}: {provider.url} estimates ${estimate.usd:.2f}{tokens} of training"
            )
            ticket.at_least(estimate.usd)
    except BaseException:  # there is no job yet, whatever went wrong
        ticket.give_back()
        raise


def _uploaded(work: Work, provider: Provider, facts: dict[str, Any], path: Path) -> str:
    """A file's id; one of that name that is there already is not sent again."""
    doing = f"upload {path.name}"
    begun = facts["doing"] == doing
    _note(work, facts, doing=doing)
    return found_or_uploaded(
        lambda: provider.find_file(path.name), lambda: provider.upload(path), begun
    )


def _wait_for_file(
    settings: HostedSettings, work: Work, provider: Provider, facts: dict[str, Any], which: str
) -> None:
    """Waits until a file can be used; one that never can is forgotten, and sent again next time."""
    file = facts[which]
    try:
        wait_until_processed(
            lambda: provider.file_state(file["id"]),
            provider.url,
            file["name"],
            lambda line: work.progress.say(f"{settings.name}: {line}"),
        )
    except RefusedError:
        _note(work, facts, **{which: None})
        raise


def _created(
    settings: HostedSettings, work: Work, provider: Provider, spec: JobSpec, facts: dict[str, Any]
) -> Job:
    """A job of the spec: one that an earlier try created, or a new one."""
    taken = [other.job().get("job_id") or "" for other in work.directory.siblings()]

    def authorized() -> Ticket:
        ticket = _authorized(settings, work)
        if facts["doing"] != CREATING:
            _estimated(settings, work, provider, spec, ticket)
        return ticket

    return found_or_created(
        find=lambda: provider.find_job(spec, taken),
        create=lambda: provider.create_job(spec),
        authorized=authorized,
        look_until=facts["look_until"],
        note=lambda until: _note(work, facts, doing=CREATING, look_until=until),
        # Another try is another job.
        refused=lambda: _note(work, facts, intent=None, doing=None),
    )


def _settle_without_model(job: Job, ticket: Ticket) -> None:
    """What a job that came to nothing costs, where the provider says it: nobody else knows until
    the bill comes, so the leave stays otherwise."""
    if job.trained_tokens or job.billed_usd is not None:
        ticket.settle(training=job.trained_tokens or 0, usd=job.billed_usd)


def _note(work: Work, facts: dict[str, Any], **changed: Any) -> None:
    facts.update(changed)
    work.directory.write_job(facts)
