"""OpenAI and every server that speaks its API (`base_url`): Azure OpenAI's v1 endpoint, Nebius
Token Factory, vLLM, Ollama, `tuneoff serve`.

It uses the official SDK with the SDK's retries off: the SDK sends no idempotency key, so a repeated
create call would be paid for twice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tuneoff.config.contenders import HostedConfig
from tuneoff.errors import ConfigError, MissingExtraError, RejectedError
from tuneoff.providers import openai_batches, openai_models
from tuneoff.providers.base import (
    FILE_FAILED,
    Batches,
    Checkpoint,
    Estimate,
    Event,
    FileState,
    Job,
    JobSpec,
    Reply,
    Schedule,
    StepLoss,
    TunedModel,
    iterate_pages,
)
from tuneoff.providers.cassette import SECONDS_HEADER, Cassette, ReplayTransport
from tuneoff.providers.http_errors import (
    ConnectionStatus,
    is_loopback,
    load_key,
    parse_rate_limit_pause,
    redact,
    redact_values,
    translate_errors,
)
from tuneoff.providers.openai_responses import (
    decode_text,
    get_first,
    is_match,
    parse_file_state,
    parse_job,
    parse_losses,
    parse_number,
    parse_step,
)
from tuneoff.providers.usage import read_usage
from tuneoff.tokenization.openai import compute_default_epochs

KEY_VARIABLE = "OPENAI_API_KEY"
PAGE_SIZE, MAX_PAGES = 100, 200
CONNECT_TIMEOUT_SECONDS, ANSWER_TIMEOUT_SECONDS = 20.0, 180.0


def check(settings: HostedConfig) -> None:
    """Raise ConfigError for options that jobs of this API do not take."""
    options = {
        "learning_rate": settings.learning_rate is not None,
        "method": settings.method is not None,
        "early_stopping": settings.early_stopping,
    }
    for name in (name for name, is_set in options.items() if is_set):
        instead = "; it takes learning_rate_multiplier" if name == "learning_rate" else ""
        raise ConfigError(
            f"contender {settings.name}: {settings.provider}'s jobs take no {name}{instead}. "
            "Leave it out."
        )


def schedule(epochs: int | str, examples: int, validation: bool) -> Schedule:
    """Return what a job bills: validation is free, and `auto` epochs are guessed as OpenAI does."""
    return Schedule(compute_default_epochs(examples) if isinstance(epochs, str) else epochs)


def connect(
    base_url: str | None = None,
    key_variable: str | None = None,
    tape: Cassette | None = None,
    method: bool = True,
) -> OpenAI:
    """Connect to OpenAI, or to the API at `base_url`, which may need no key, and return it.

    Args:
        method: jobs take their hyperparameters as `method`, as OpenAI's have since 2025; otherwise
            as the older `hyperparameters`.

    Raises:
        MissingExtraError: the SDK is not installed.
        ConfigError: there is no key.
    """
    needed = not isinstance(tape, ReplayTransport) and (
        base_url is None or key_variable is not None
    )
    key = load_key(key_variable or KEY_VARIABLE, base_url, needed)
    return OpenAI(base_url, key, tape, method)


class OpenAI:
    """A provider with OpenAI's API. One object may be used by many threads."""

    def __init__(
        self, base_url: str | None, key: str, tape: Cassette | None = None, method: bool = True
    ) -> None:
        try:
            import openai
        except ModuleNotFoundError:
            raise MissingExtraError("openai", "hosted", "a hosted model") from None
        timeout = openai.Timeout(ANSWER_TIMEOUT_SECONDS, connect=CONNECT_TIMEOUT_SECONDS)
        own = None
        if base_url is not None and is_loopback(base_url):
            # Between this machine and itself no proxy of the environment is used.
            own = openai.DefaultHttpxClient(trust_env=False, timeout=timeout)
        if tape is not None:
            import httpx2

            carried = tape.transport(httpx2, key)
            own = openai.DefaultHttpxClient(transport=carried, timeout=timeout)
        self.sdk = openai.OpenAI(
            api_key=key or "none",
            base_url=base_url,
            max_retries=0,
            timeout=timeout,
            http_client=own,
        )
        self._key, self._method = key, method
        self.url = str(self.sdk.base_url).rstrip("/")
        self.reach = ConnectionStatus(self.url)
        # Newer models take another name for the limit, or only their own temperature.
        self._left_out: set[str] = set()

    def find_file(self, name: str) -> str | None:
        with self._translate_errors("its files could not be listed"):
            listed = iterate_pages(
                self.sdk.files.list(purpose="fine-tune", limit=PAGE_SIZE), MAX_PAGES
            )
            fine = (
                f
                for f in listed
                if f.filename == name and parse_file_state(f).status not in FILE_FAILED
            )
            return next((str(f.id) for f in fine), None)

    def upload(self, path: Path) -> str:
        with (
            self._translate_errors(f"{path.name} could not be uploaded"),
            path.open("rb") as stream,
        ):
            uploaded = self.sdk.files.create(file=(path.name, stream), purpose="fine-tune")
            return str(uploaded.id)

    def file_state(self, id: str) -> FileState:
        with self._translate_errors(f"file {id} could not be looked at"):
            state = parse_file_state(self.sdk.files.retrieve(id))
        return dataclasses.replace(state, error=state.error and redact(state.error, self._key))

    def find_job(self, spec: JobSpec, taken: Sequence[str]) -> Job | None:
        with self._translate_errors("its jobs could not be listed"):
            metadata = dict(spec.metadata)
            try:
                listed = self.sdk.fine_tuning.jobs.list(limit=PAGE_SIZE, metadata=metadata)
                job = self._find_by_spec(listed, spec, taken)
            except Exception as error:
                if getattr(error, "status_code", None) not in (400, 422):
                    raise
                job = None  # the server does not know the filter
            # A server may keep metadata but filter by something else; it shows the metadata without
            # a filter.
            return job or self._find_by_spec(
                self.sdk.fine_tuning.jobs.list(limit=PAGE_SIZE), spec, taken
            )  # fmt: skip

    def _find_by_spec(self, listed: Any, spec: JobSpec, taken: Sequence[str]) -> Job | None:
        """Find the job with this spec's metadata.

        Where jobs have no metadata, it is the first one since then with this training file and
        suffix.
        """
        alike = []
        for listed_job in iterate_pages(listed, MAX_PAGES):
            job = self._job(listed_job)
            if job.metadata:
                if all(job.metadata.get(k) == v for k, v in spec.metadata.items()):
                    return job
            elif job.id not in taken and is_match(listed_job, spec):
                alike.append(job)
        return min(alike, key=lambda job: job.created_at or 0.0, default=None)

    def estimate(self, spec: JobSpec) -> Estimate | None:
        return None

    def create_job(self, spec: JobSpec) -> Job:
        numbers = {
            "n_epochs": spec.epochs,
            "batch_size": spec.batch_size,
            "learning_rate_multiplier": spec.learning_rate_multiplier,
        }
        numbers = {name: value for name, value in numbers.items() if value != "auto"}
        options: dict[str, Any] = {
            "model": spec.model,
            "training_file": spec.training_file,
            "validation_file": spec.validation_file,
            "suffix": spec.suffix,
            "seed": spec.seed,
            "metadata": dict(spec.metadata),
        }
        if self._method:
            options["method"] = {"type": "supervised", "supervised": {"hyperparameters": numbers}}
        else:
            options["hyperparameters"] = numbers
        with self._translate_errors("the job could not be created"):
            present = {name: value for name, value in options.items() if value is not None}
            return self._job(self.sdk.fine_tuning.jobs.create(**present))

    def job(self, id: str) -> Job:
        with self._translate_errors(f"job {id} could not be looked at"):
            return self._job(self.sdk.fine_tuning.jobs.retrieve(id))

    def cancel(self, id: str) -> Job:
        with self._translate_errors(f"job {id} could not be cancelled"):
            return self._job(self.sdk.fine_tuning.jobs.cancel(id))

    def events(self, id: str) -> list[Event]:
        with self._translate_errors(f"the events of job {id} could not be read"):
            listed = self.sdk.fine_tuning.jobs.list_events(id, limit=PAGE_SIZE).data or []
            return [
                Event(event.id, redact(event.message, self._key), *parse_step(event.message))
                for event in reversed(listed)
            ]

    def checkpoints(self, id: str) -> list[Checkpoint]:
        with self._translate_errors(f"the checkpoints of job {id} could not be read"):
            listed = iterate_pages(
                self.sdk.fine_tuning.jobs.checkpoints.list(id, limit=PAGE_SIZE), MAX_PAGES
            )
            checkpoints = [
                Checkpoint(
                    listed_checkpoint.fine_tuned_model_checkpoint,
                    int(listed_checkpoint.step_number),
                    listed_checkpoint.metrics.train_loss,
                    get_first(
                        listed_checkpoint.metrics.full_valid_loss,
                        listed_checkpoint.metrics.valid_loss,
                    ),
                )
                for listed_checkpoint in listed
            ]
        return sorted(checkpoints, key=lambda listed_checkpoint: listed_checkpoint.step)

    def losses(self, job: Job) -> list[StepLoss]:
        with self._translate_errors(f"the metrics of job {job.id} could not be read"):
            for id in job.result_files:
                losses = parse_losses(decode_text(self.sdk.files.content(id).read()))
                if losses:
                    return losses
        return []

    def tuned_models(self) -> list[TunedModel]:
        with self._translate_errors("its models could not be listed"):
            listed = list(iterate_pages(self.sdk.models.list(), 1))
        with (
            contextlib.suppress(RejectedError),  # a key may have fewer permissions
            self._translate_errors("its jobs could not be listed"),
        ):
            jobs = list(iterate_pages(self.sdk.fine_tuning.jobs.list(limit=PAGE_SIZE), MAX_PAGES))
            return openai_models.join_models(listed, jobs)
        return openai_models.join_models(listed, ())

    def has_jobs(self) -> bool | None:
        with (
            contextlib.suppress(RejectedError),
            self._translate_errors("its jobs could not be listed"),
        ):
            return bool(self.sdk.fine_tuning.jobs.list(limit=1).data)
        return None

    def job_facts(self, id: str) -> dict[str, Any]:
        with self._translate_errors(f"job {id} could not be looked at"):
            shown = self.sdk.fine_tuning.jobs.retrieve(id).to_dict(mode="json", warnings=False)
            return dict(redact_values(shown, self._key))

    def result_text(self, id: str) -> str:
        return redact(decode_text(self.download(id)), self._key)

    def download(self, id: str) -> bytes:
        with self._translate_errors(f"file {id} could not be fetched"):
            return self.sdk.files.content(id).read()

    def chat(
        self,
        model: str,
        messages: Sequence[Mapping[str, str]],
        max_tokens: int | None = None,
        reasoning_effort: str | None = None,
        temperature: float | None = None,
    ) -> Reply:
        while True:
            left_out = frozenset(self._left_out)
            try:
                return self._chat(
                    self.chat_body(model, messages, max_tokens, reasoning_effort, temperature)
                )
            except RejectedError as error:
                self.adapted(error)
                # Another thread may have learned meanwhile what this request was rejected for.
                if left_out == self._left_out:
                    raise

    def _chat(self, body: Mapping[str, Any]) -> Reply:
        """Send one request and return its reply."""
        with self._translate_errors(f"model {body['model']!r} did not answer"):
            started = time.perf_counter()
            raw = self.sdk.chat.completions.with_raw_response.create(**body)
            seconds = time.perf_counter() - started
            answer = raw.parse()
            choice = answer.choices[0]
            text = choice.message.content or choice.message.refusal or ""
            if not isinstance(text, str):
                raise ValueError("what came is no text")
            usage = read_usage(answer.usage.to_dict(warnings=False) if answer.usage else {})
            return Reply(
                text,
                usage.tokens_in,
                usage.tokens_out,
                choice.finish_reason,
                get_first(parse_number(raw.headers.get(SECONDS_HEADER)), seconds),
                parse_rate_limit_pause(raw.headers),
                usage.cached_tokens_in,
                usage.written_tokens_in,
            )

    def chat_body(
        self,
        model: str,
        messages: Sequence[Mapping[str, str]],
        max_tokens: int | None,
        reasoning_effort: str | None = None,
        temperature: float | None = None,
    ) -> dict[str, Any]:
        """Return the body of a chat request."""
        body: dict[str, Any] = {"model": model, "messages": [dict(turn) for turn in messages]}
        # Models that reason take the newer name of the limit, and no temperature while they reason.
        newer = reasoning_effort is not None or "max_tokens" in self._left_out
        if max_tokens is not None:
            body["max_completion_tokens" if newer else "max_tokens"] = max_tokens
        if temperature is not None:  # set by the user, who should see a rejection
            body["temperature"] = temperature
        elif "temperature" not in self._left_out and reasoning_effort in (None, "none"):
            body["temperature"] = 0
        if reasoning_effort is not None:
            body["reasoning_effort"] = reasoning_effort
        return body

    def adapted(self, error: RejectedError) -> bool:
        """Return whether later requests will omit a parameter that this model does not take."""
        before = len(self._left_out)
        if error.code in ("unsupported_parameter", "unsupported_value") and error.param:
            self._left_out.update({error.param} & {"max_tokens", "temperature"})
        return len(self._left_out) > before

    def _job(self, sdk_job: Any) -> Job:
        """Return a job; its error may quote the key, which is redacted."""
        job = parse_job(sdk_job)
        return dataclasses.replace(job, error=job.error and redact(job.error, self._key))

    def batches(self) -> Batches | None:
        return openai_batches.Batches(self, self._key, decode_text)

    def close(self) -> None:
        self.sdk.close()

    def _translate_errors(self, what: str) -> Any:
        """Translate the SDK's errors while inside."""
        return translate_errors(self.reach, self._key, what)
