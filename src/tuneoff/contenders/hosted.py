"""A model tuned through a provider's fine-tuning API and asked through its chat API."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from tuneoff import prompts, providers
from tuneoff.contender_settings import HostedSettings
from tuneoff.contenders import Work, hosted_following, hosted_job, measuring, template_for
from tuneoff.contenders.asking import (
    ask_all,
    connected,
    most_answering_tokens,
    name_temperature,
    refuse_text,
)
from tuneoff.contenders.batching import ask_in_batches, batches_of
from tuneoff.contenders.samples import is_answered, list_questions
from tuneoff.progress import AWAY
from tuneoff.providers.sdk import is_here
from tuneoff.records import Example, Prediction, ServingRecord


def check(settings: HostedSettings, folder: Path) -> None:
    """Raise ConfigError unless the provider is known and takes this rendering."""
    providers.module_of(settings.provider).check(settings)
    refuse_text(settings.name, settings.rendering)


def ready(settings: HostedSettings, work: Work) -> None:
    """Raise unless the SDK, the key and a valid training file are there.

    Nothing is needed once all answers exist.
    """
    if not is_answered(settings, work):
        with closing(connected(settings, work)) as provider:
            if settings.batch:
                batches_of(settings, provider)
        hosted_job.files_of(settings, work)


def model_name(settings: HostedSettings) -> str:
    """Return the provider's name of the model, and who tunes it."""
    where = f"tuned by {settings.provider}"
    if settings.base_url is not None:
        where = f"tuned at {settings.base_url}"
        if is_here(settings.base_url):
            where = "tuned through the fine-tuning API of a server on this machine"
    return f"{settings.model}, {where}{name_temperature(settings)}"


def begin(settings: HostedSettings, work: Work) -> None:
    """Submit the job if it was not, so that it runs while this machine does its own part.

    A server on this machine would compete for the same resources, so it waits for its turn.

    Raises:
        ProviderError: the provider rejected the job, or cannot be reached.
        BudgetError: the job would cost too much.
    """
    here = settings.base_url is not None and is_here(settings.base_url)
    begun = work.directory.job().get("job_id") is not None
    if here or begun or work.replay is not None or work.directory.training() is not None:
        return
    with closing(connected(settings, work)) as provider:
        hosted_job.submitted(settings, work, provider)
    work.progress.status(settings.name, AWAY)


def interrupted(settings: HostedSettings, work: Work) -> None:
    """Ask, after Ctrl-C, whether a running job should be cancelled."""
    if work.replay is None and hosted_following.is_under_way(work):
        with closing(connected(settings, work)) as provider:
            hosted_following.left_or_cancelled(settings, work, provider)


def tune(settings: HostedSettings, work: Work) -> None:
    """Run the fine-tuning job to its end; do nothing if that was done."""
    if work.directory.training() is None or not hosted_job.answers_with(settings, work):
        with closing(connected(settings, work)) as provider:
            hosted_job.carry_out(settings, work, provider)


def answer(
    settings: HostedSettings, work: Work, examples: Sequence[Example]
) -> Iterator[list[Prediction]]:
    """Yield the tuned model's answers, as many samples as the file says."""
    model = settings.deployment or hosted_job.answers_with(settings, work)
    template = template_for(settings, work)
    questions = list_questions(settings, work, examples)
    chat_requests = ((e, sample, prompts.messages(e, template)) for e, sample in questions)
    with closing(connected(settings, work)) as provider:
        ask = ask_in_batches if settings.batch else ask_all
        yield from ask(settings, work, provider, model, chat_requests)


def serving(settings: HostedSettings, work: Work) -> ServingRecord | None:
    """Return the latency of the tuned model, as its answers were timed."""
    return measuring.of_provider(settings, work)


def prompt_sha256(settings: HostedSettings, work: Work) -> str:
    """Return the hash of the rendered test prompts."""
    return prompts.prompt_sha256(work.test, template_for(settings, work), "chat")


def most_tokens(settings: HostedSettings, work: Work) -> tuple[int, int, int]:
    """Return the maximum tokens that the remaining work can bill: training, input, output."""
    template = template_for(settings, work)
    rendered = ((example, prompts.messages(example, template)) for example in work.test)
    begun = work.directory.job().get("intent") is not None  # then the ledger holds its reservation
    training = 0 if begun else hosted_job.most_training_tokens(settings, work)
    return (training, *most_answering_tokens(settings, work, rendered))
