"""Together: open models, tuned with LoRA or all their parameters, through Together's own SDK.

Its jobs have no metadata: a lost one is recognized by its training file and suffix. All tokens are
billed, as the base's chat template writes them; validation examples as often as they are evaluated
(docs.together.ai/docs/fine-tuning/pricing). Its estimate is requested before a job is created. A
tuned model answers only once it is deployed, on a dedicated endpoint billed by the minute
(docs.together.ai/docs/fine-tuning/deployment and /docs/dedicated-endpoints, read in November 2026).
Deploying it is left to its owner.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tuneoff.config.contenders import HostedConfig
from tuneoff.errors import NOT_DEPLOYED, ConfigError, MissingExtraError, RejectedError
from tuneoff.providers.base import (
    FILE_FAILED,
    Batches,
    Checkpoint,
    Estimate,
    Event,
    FileState,
    Job,
    JobSpec,
    Provider,
    Reply,
    Schedule,
    StepLoss,
    TunedModel,
)
from tuneoff.providers.cassette import SECONDS_HEADER, Cassette, ReplayTransport
from tuneoff.providers.http_errors import (
    ConnectionStatus,
    load_key,
    parse_rate_limit_pause,
    redact,
    redact_values,
    translate_errors,
)
from tuneoff.providers.together_responses import (
    is_job_of_spec,
    parse_event,
    parse_job,
    parse_losses,
    parse_number,
)

KEY_VARIABLE = "TOGETHER_API_KEY"
MAX_SUFFIX_LENGTH, DEFAULT_EPOCHS = 40, 1
# As often as a local training evaluates, and the minimum that early stopping needs.
VALIDATIONS_PER_EPOCH, MIN_VALIDATIONS, MAX_VALIDATIONS = 2, 4, 100
# Defaults of Together's own command line.
DEFAULT_LEARNING_RATES = {"lora": 1e-3, "full": 1e-5}
CONNECT_TIMEOUT_SECONDS, ANSWER_TIMEOUT_SECONDS = 20.0, 180.0
NOT_AVAILABLE_CODES = (
    "model_not_available", "model_not_found", "endpoint_not_configured", "endpoint_not_ready",
)  # fmt: skip


def check(settings: HostedConfig) -> None:
    """Raise ConfigError for options that Together's jobs do not take."""
    if settings.learning_rate_multiplier != "auto":
        raise ConfigError(
            f"contender {settings.name}: together's jobs take no learning_rate_multiplier; give "
            "the rate itself as learning_rate (left out: 1.0e-3 for LoRA)."
        )
    if settings.suffix is not None and len(settings.suffix) > MAX_SUFFIX_LENGTH:
        raise ConfigError(
            f"contender {settings.name}: the suffix {settings.suffix!r} has "
            f"{len(settings.suffix)} letters; together takes at most {MAX_SUFFIX_LENGTH}."
        )


def schedule(epochs: int | str, examples: int, validation: bool) -> Schedule:
    """Return what a job bills: its epochs (default: one), and evaluations of validation data."""
    whole = DEFAULT_EPOCHS if isinstance(epochs, str) else epochs
    looks = max(MIN_VALIDATIONS, VALIDATIONS_PER_EPOCH * whole)
    return Schedule(whole, min(MAX_VALIDATIONS, looks) if validation else 0)


def connect(
    base_url: str | None = None, key_variable: str | None = None, tape: Cassette | None = None
) -> Provider:
    """Connect to Together, or to its API at `base_url`, which may need no key, and return it.

    Raises:
        MissingExtraError: the SDK is not installed.
        ConfigError: there is no key.
    """
    needed = not isinstance(tape, ReplayTransport) and (
        base_url is None or key_variable is not None
    )
    return Together(base_url, load_key(key_variable or KEY_VARIABLE, base_url, needed), tape)


class Together:
    """The provider. One object may be used by many threads."""

    def __init__(self, base_url: str | None, key: str, tape: Cassette | None = None) -> None:
        try:
            import together
        except ModuleNotFoundError:
            raise MissingExtraError("together", "together", "a model of Together") from None
        timeout = together.Timeout(ANSWER_TIMEOUT_SECONDS, connect=CONNECT_TIMEOUT_SECONDS)
        own = None
        if tape is not None:
            import httpx

            own = together.DefaultHttpxClient(transport=tape.transport(httpx, key), timeout=timeout)
        self.sdk = together.Together(
            api_key=key or "none",
            # The SDK's paths begin with /v1 themselves.
            base_url=base_url.rstrip("/").removesuffix("/v1") if base_url else None,
            max_retries=0,
            timeout=timeout,
            http_client=own,
        )
        self._key = key
        self.url = str(self.sdk.base_url).rstrip("/")
        self.reach = ConnectionStatus(self.url)

    def find_file(self, name: str) -> str | None:
        with self._translate_errors("its files could not be listed"):
            fine = (
                f
                for f in self.sdk.files.list().data
                # A file whose content never arrived is listed, too.
                if f.filename == name and f.bytes and _parse_file_state(f).status not in FILE_FAILED
            )
            return next((str(f.id) for f in fine), None)

    def upload(self, path: Path) -> str:
        with self._translate_errors(f"{path.name} could not be uploaded"):
            return str(self.sdk.files.upload(path, purpose="fine-tune", check=False).id)

    def file_state(self, id: str) -> FileState:
        with self._translate_errors(f"file {id} could not be looked at"):
            state = _parse_file_state(self.sdk.files.retrieve(id))
        return replace(state, error=state.error and redact(state.error, self._key))

    def find_job(self, spec: JobSpec, taken: Sequence[str]) -> Job | None:
        with self._translate_errors("its jobs could not be listed"):
            alike = [
                job
                for listed_job in self.sdk.fine_tuning.list().data
                for job in [parse_job(listed_job, self._key)]
                if job.id not in taken and is_job_of_spec(listed_job, job, spec)
            ]
        return min(alike, key=lambda job: job.created_at or 0.0, default=None)

    def estimate(self, spec: JobSpec) -> Estimate | None:
        wanted = ("training_file", "validation_file", "model", "n_epochs", "n_evals")
        with self._translate_errors("the job's price could not be estimated"):
            job = self._asked(spec, self._limits(spec))
            options: dict[str, Any] = {name: job[name] for name in wanted if name in job}
            options["training_method"] = {"method": "sft", "train_on_inputs": False}
            if spec.method == "full":
                options["training_type"] = {"type": "Full"}
            estimated = self.sdk.fine_tuning.estimate_price(**options)
        if not estimated.estimation_available:
            return None
        counts = (estimated.estimated_train_token_count, estimated.estimated_eval_token_count)
        is_balance_low = estimated.allowed_to_proceed is False
        return Estimate(
            estimated.estimated_total_price,
            round(sum(count or 0 for count in counts)),
            "together says that your balance does not cover this job" if is_balance_low else None,
        )

    def create_job(self, spec: JobSpec) -> Job:
        with self._translate_errors("the job could not be created"):
            limits = self._limits(spec)
            created = self.sdk.fine_tuning.create(**self._asked(spec, limits), model_limits=limits)
            return parse_job(created, self._key)

    def job(self, id: str) -> Job:
        with self._translate_errors(f"job {id} could not be looked at"):
            return parse_job(self.sdk.fine_tuning.retrieve(id), self._key)

    def cancel(self, id: str) -> Job:
        with self._translate_errors(f"job {id} could not be cancelled"):
            return parse_job(self.sdk.fine_tuning.cancel(id), self._key)

    def events(self, id: str) -> list[Event]:
        with self._translate_errors(f"the events of job {id} could not be read"):
            listed = sorted(self.sdk.fine_tuning.list_events(id).data, key=lambda e: e.created_at)
            return [parse_event(event, self._key) for event in listed]

    def checkpoints(self, id: str) -> list[Checkpoint]:
        losses = {loss.step: loss for loss in self._metrics(id)}
        with self._translate_errors(f"the checkpoints of job {id} could not be read"):
            listed = sorted(self.sdk.fine_tuning.list_checkpoints(id).data, key=lambda c: c.step)
        unknown = StepLoss(0)
        return [
            Checkpoint(
                listed_checkpoint.object_name or listed_checkpoint.path,
                listed_checkpoint.step,
                loss.train,
                loss.validation,
            )
            for listed_checkpoint in listed
            for loss in [losses.get(listed_checkpoint.step, unknown)]
        ]

    def losses(self, job: Job) -> list[StepLoss]:
        return self._metrics(job.id)

    def chat(
        self,
        model: str,
        messages: Sequence[Mapping[str, str]],
        max_tokens: int | None = None,
        reasoning_effort: str | None = None,
        temperature: float | None = None,
    ) -> Reply:
        body: Any = {"model": model, "messages": [dict(turn) for turn in messages]}
        if max_tokens is not None:
            body["max_tokens"] = max_tokens
        if reasoning_effort == "none":
            body["reasoning"] = {"enabled": False}
        elif reasoning_effort is not None:
            body["reasoning_effort"] = reasoning_effort
        try:
            with self._translate_errors(f"model {model!r} did not answer"):
                completions = self.sdk.chat.completions.with_raw_response
                raw = completions.create(**body, temperature=temperature or 0)
                answer = raw.parse()
                choice, usage = answer.choices[0], answer.usage
                return Reply(
                    (choice.message.content if choice.message else None) or "",
                    usage.prompt_tokens if usage else None,
                    usage.completion_tokens if usage else None,
                    choice.finish_reason,
                    parse_number(raw.headers.get(SECONDS_HEADER)),
                    parse_rate_limit_pause(raw.headers),
                )
        except RejectedError as error:
            if error.code not in NOT_AVAILABLE_CODES and error.status != 404:
                raise
            raise RejectedError(
                f"{error} (a model that was tuned at Together answers only on a dedicated "
                "endpoint, which is billed by the minute: deploy it, `tg beta endpoints deploy "
                "MODEL --endpoint NAME`, give PROJECT/NAME as `deployment:` of the contender, run "
                "the same command again, and stop the endpoint afterwards)",
                400,
                NOT_DEPLOYED,
            ) from None

    def _asked(self, spec: JobSpec, limits: Any) -> dict[str, Any]:
        """Return the job's options in Together's terms."""
        job_schedule = schedule(spec.epochs, 0, spec.validation_file is not None)
        checkpoints = (
            min(job_schedule.validations, limits.max_num_checkpoints)
            if spec.keep_checkpoints
            else 1
        )
        options: dict[str, Any] = {
            "training_file": spec.training_file,
            "validation_file": spec.validation_file,
            "model": spec.model,
            "n_epochs": job_schedule.epochs,
            "n_evals": min(job_schedule.validations, limits.max_num_evals),
            "n_checkpoints": max(1, checkpoints),
            "batch_size": "max" if spec.batch_size == "auto" else spec.batch_size,
            "learning_rate": spec.learning_rate or DEFAULT_LEARNING_RATES[spec.method or "lora"],
            "suffix": spec.suffix,
            "random_seed": spec.seed,
            # Only the answers are learned, as everywhere else.
            "train_on_inputs": False,
            "early_stopping_enabled": spec.early_stopping,
            # Left out, it is LoRA with the model's own rank.
            "lora": False if spec.method == "full" else None,
        }
        return {name: value for name, value in options.items() if value is not None}

    def _limits(self, spec: JobSpec) -> Any:
        """Return the model's limits after checking the job against them.

        Raises:
            RejectedError: the job exceeds them, or the model cannot be tuned.
        """
        limits = self.sdk.fine_tuning.model_limits(model_name=spec.model)
        full = spec.method == "full"
        sizes = limits.full_training if full else limits.lora_training
        if full and (not limits.supports_full_training or sizes is None):
            self._refuse(f"{spec.model} can only be tuned with method: lora")
        if isinstance(spec.batch_size, int) and sizes is not None:
            _check_range(
                self, "batch_size", spec.batch_size, sizes.min_batch_size, sizes.max_batch_size
            )
        if spec.learning_rate is not None:
            low, high = limits.min_learning_rate, limits.max_learning_rate
            _check_range(self, "learning_rate", spec.learning_rate, low, high)
        if spec.early_stopping and spec.validation_file is None:
            self._refuse("early_stopping needs a validation split")
        return limits

    def _refuse(self, why: str) -> None:
        """Raise RejectedError for a job that cannot be created."""
        raise RejectedError(f"{self.url}: the job could not be created: {why}", 400)

    def _metrics(self, id: str) -> list[StepLoss]:
        """Return a job's losses by step."""
        with self._translate_errors(f"the metrics of job {id} could not be read"):
            rows = self.sdk.fine_tuning.list_metrics(id).metrics or []
        return parse_losses(rows)

    def tuned_models(self) -> list[TunedModel]:
        with self._translate_errors("its jobs could not be listed"):
            return [
                TunedModel(
                    job.model,
                    listed_job.model or "",
                    listed_job.training_file,
                    listed_job.validation_file,
                    job.id,
                )
                for listed_job in self.sdk.fine_tuning.list().data
                for job in [parse_job(listed_job, self._key)]
                if job.model is not None
            ]

    def has_jobs(self) -> bool | None:
        with self._translate_errors("its jobs could not be listed"):
            return bool(self.sdk.fine_tuning.list().data)

    def job_facts(self, id: str) -> dict[str, Any]:
        with self._translate_errors(f"job {id} could not be looked at"):
            shown = self.sdk.fine_tuning.retrieve(id).to_dict(mode="json", warnings=False)
            return dict(redact_values(shown, self._key))

    def result_text(self, id: str) -> str:
        return redact(self.download(id).decode(errors="replace"), self._key)

    def download(self, id: str) -> bytes:
        with self._translate_errors(f"file {id} could not be downloaded"):
            return bytes(self.sdk.files.content(id).read())

    def batches(self) -> Batches | None:
        return None

    def close(self) -> None:
        self.sdk.close()

    def _translate_errors(self, what: str) -> Any:
        """Translate the SDK's errors while inside."""
        return translate_errors(self.reach, self._key, what)


def _parse_file_state(sdk_file: Any) -> FileState:
    """Return the state of a file as the SDK shows it."""
    status = str(sdk_file.processing_status).lower() if sdk_file.processing_status else None
    report = getattr(sdk_file, "validation_report", None)
    return FileState(
        status, (report and report.error) or None, getattr(sdk_file, "bytes", None) or None
    )


def _check_range(provider: Together, name: str, value: float, low: float, high: float) -> None:
    """Raise RejectedError unless a value is between two limits."""
    if not low <= value <= high:
        provider._refuse(f"{name} {value:g} is not between {low:g} and {high:g}")
