"""A model tuned through a provider's fine-tuning API and asked through its chat API."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from tuneoff import prompts
from tuneoff.config.contenders import HostedConfig
from tuneoff.contenders import fine_tuning_job, job_polling, latency
from tuneoff.contenders.base import ContenderContext, choose_template
from tuneoff.contenders.batch_inference import get_batch_api, request_batched_answers
from tuneoff.contenders.hosted_inference import (
    connect_provider,
    count_max_answering_tokens,
    format_temperature,
    reject_text_rendering,
    request_answers,
)
from tuneoff.contenders.samples import is_answered, list_questions
from tuneoff.progress import AT_PROVIDER
from tuneoff.providers import base
from tuneoff.providers.http_errors import is_loopback
from tuneoff.records import Example, Prediction, ServingRecord


def check(settings: HostedConfig, folder: Path) -> None:
    """Raise ConfigError unless the provider is known and takes this rendering."""
    base.load_provider_module(settings.provider).check(settings)
    reject_text_rendering(settings.name, settings.rendering)


def ready(settings: HostedConfig, work: ContenderContext) -> None:
    """Raise unless the SDK, the key and a valid training file are there.

    Nothing is needed once all answers exist.
    """
    if not is_answered(settings, work):
        with closing(connect_provider(settings, work)) as provider:
            if settings.batch:
                get_batch_api(settings, provider)
        fine_tuning_job.build_training_files(settings, work)


def model_name(settings: HostedConfig) -> str:
    """Return the provider's name of the model, and who tunes it."""
    where = f"tuned by {settings.provider}"
    if settings.base_url is not None:
        where = f"tuned at {settings.base_url}"
        if is_loopback(settings.base_url):
            where = "tuned through the fine-tuning API of a server on this machine"
    return f"{settings.model}, {where}{format_temperature(settings)}"


def begin(settings: HostedConfig, work: ContenderContext) -> None:
    """Submit the job if it was not, so that it runs while this machine does its own part.

    A server on this machine would compete for the same resources, so it waits for its turn.

    Raises:
        ProviderError: the provider rejected the job, or cannot be reached.
        BudgetError: the job would cost too much.
    """
    here = settings.base_url is not None and is_loopback(settings.base_url)
    begun = work.directory.job().get("job_id") is not None
    if here or begun or work.replay is not None or work.directory.training() is not None:
        return
    with closing(connect_provider(settings, work)) as provider:
        fine_tuning_job.submit_job(settings, work, provider)
    work.progress.status(settings.name, AT_PROVIDER)


def interrupted(settings: HostedConfig, work: ContenderContext) -> None:
    """Ask, after Ctrl-C, whether a running job should be cancelled."""
    if work.replay is None and job_polling.is_job_running(work):
        with closing(connect_provider(settings, work)) as provider:
            job_polling.cancel_or_detach(settings, work, provider)


def tune(settings: HostedConfig, work: ContenderContext) -> None:
    """Run the fine-tuning job to its end; do nothing if that was done."""
    if work.directory.training() is None or not fine_tuning_job.find_tuned_model(settings, work):
        with closing(connect_provider(settings, work)) as provider:
            fine_tuning_job.run_job(settings, work, provider)


def answer(
    settings: HostedConfig, work: ContenderContext, examples: Sequence[Example]
) -> Iterator[list[Prediction]]:
    """Yield the tuned model's answers, as many samples as the file says."""
    model = settings.deployment or fine_tuning_job.find_tuned_model(settings, work)
    template = choose_template(settings, work)
    questions = list_questions(settings, work, examples)
    chat_requests = ((e, sample, prompts.render_messages(e, template)) for e, sample in questions)
    with closing(connect_provider(settings, work)) as provider:
        ask = request_batched_answers if settings.batch else request_answers
        yield from ask(settings, work, provider, model, chat_requests)


def serving(settings: HostedConfig, work: ContenderContext) -> ServingRecord | None:
    """Return the latency of the tuned model, as its answers were timed."""
    return latency.load_provider_latency(settings, work)


def prompt_sha256(settings: HostedConfig, work: ContenderContext) -> str:
    """Return the hash of the rendered test prompts."""
    return prompts.hash_prompts(work.test, choose_template(settings, work), "chat")


def most_tokens(settings: HostedConfig, work: ContenderContext) -> tuple[int, int, int]:
    """Return the maximum tokens that the remaining work can bill: training, input, output."""
    template = choose_template(settings, work)
    rendered = ((example, prompts.render_messages(example, template)) for example in work.test)
    begun = work.directory.job().get("intent") is not None  # then the ledger holds its reservation
    training = 0 if begun else fine_tuning_job.count_max_training_tokens(settings, work)
    return (training, *count_max_answering_tokens(settings, work, rendered))
