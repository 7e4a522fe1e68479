"""Together: open models, tuned with LoRA or all their parameters, through its own SDK.

Its jobs have no metadata: a lost one is known by its training file and its suffix. All tokens are
billed, as the base's chat template writes them, those of the validation examples as often as they
are evaluated (docs.together.ai/docs/fine-tuning/pricing); what a job will cost is asked for before
it is created. A tuned model answers only once it is deployed, on a dedicated
endpoint that is billed by the minute (docs.together.ai/docs/fine-tuning/deployment and
/docs/dedicated-endpoints, read in November 2026); deploying it is left to its owner.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tuneoff.contender_settings import HostedSettings
from tuneoff.errors import NOT_DEPLOYED, ConfigError, MissingExtraError, RefusedError
from tuneoff.providers import (
    FILE_BAD,
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
from tuneoff.providers.reach import Reach
from tuneoff.providers.recording import SECONDS_HEADER, Player, Tape
from tuneoff.providers.sdk import calling, hidden, hidden_in, key_of, pause_of
from tuneoff.providers.together_shapes import event_of, fits, job_of, losses_of, number

KEY_VARIABLE = "TOGETHER_API_KEY"
MOST_LETTERS_OF_SUFFIX, USUAL_EPOCHS = 40, 1
# As often as an own training evaluates, and as often as early stopping needs at least.
VALIDATIONS_AN_EPOCH, FEWEST_VALIDATIONS, MOST_VALIDATIONS = 2, 4, 100
# What its own command line takes, unless told otherwise.
RATES = {"lora": 1e-3, "full": 1e-5}
CONNECT_SECONDS, ANSWER_SECONDS = 20.0, 180.0
NOT_THERE = (
    "model_not_available", "model_not_found", "endpoint_not_configured", "endpoint_not_ready",
)  # fmt: skip


def check(settings: HostedSettings) -> None:
    """Refuses what its jobs do not take (ConfigError)."""
    if settings.learning_rate_multiplier != "auto":
        raise ConfigError(
            f"contender {settings.name}: together's jobs take no learning_rate_multiplier; give "
            "the rate itself as learning_rate (left out: 1.0e-3 for LoRA)."
        )
    if settings.suffix is not None and len(settings.suffix) > MOST_LETTERS_OF_SUFFIX:
        raise ConfigError(
            f"contender {settings.name}: the suffix {settings.suffix!r} has "
            f"{len(settings.suffix)} letters; together takes at most {MOST_LETTERS_OF_SUFFIX}."
        )


def schedule(epochs: int | str, examples: int, validation: bool) -> Schedule:
    """One epoch unless asked for more, and what each look at the validation examples costs."""
    whole = USUAL_EPOCHS if isinstance(epochs, str) else epochs
    looks = max(FEWEST_VALIDATIONS, VALIDATIONS_AN_EPOCH * whole)
    return Schedule(whole, min(MOST_VALIDATIONS, looks) if validation else 0)


def connect(
    base_url: str | None = None, key_variable: str | None = None, tape: Tape | None = None
) -> Provider:
    """Together's own API, or the one at `base_url`, which may need no key.

    Raises:
        MissingExtraError: the SDK is not installed.
        ConfigError: there is no key.
    """
    needed = not isinstance(tape, Player) and (base_url is None or key_variable is not None)
    return Together(base_url, key_of(key_variable or KEY_VARIABLE, base_url, needed), tape)


class Together:
    """The provider. One may be used by many threads."""

    def __init__(self, base_url: str | None, key: str, tape: Tape | None = None) -> None:
        try:
            import together
        except ModuleNotFoundError:
            raise MissingExtraError("together", "together", "a model of Together") from None
        timeout = together.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
        own = None
        if tape is not None:
            import httpx

            own = together.DefaultHttpxClient(transport=tape.transport(httpx, key), timeout=timeout)
        self.sdk = together.Together(
            api_key=key or "none",
            # Its paths begin with /v1 themselves.
            base_url=base_url.rstrip("/").removesuffix("/v1") if base_url else None,
            max_retries=0,
            timeout=timeout,
            http_client=own,
        )
        self._key = key
        self.url = str(self.sdk.base_url).rstrip("/")
        self.reach = Reach(self.url)

    def find_file(self, name: str) -> str | None:
        with self._calling("its files could not be listed"):
            fine = (
                f
                for f in self.sdk.files.list().data
                # A file whose content never came is listed, too.
                if f.filename == name and f.bytes and _state(f).status not in FILE_BAD
            )
            return next((str(f.id) for f in fine), None)

    def upload(self, path: Path) -> str:
        with self._calling(f"{path.name} could not be uploaded"):
            return str(self.sdk.files.upload(path, purpose="fine-tune", check=False).id)

    def file_state(self, id: str) -> FileState:
        with self._calling(f"file {id} could not be looked at"):
            found = _state(self.sdk.files.retrieve(id))
        return replace(found, error=found.error and hidden(found.error, self._key))

    def find_job(self, spec: JobSpec, taken: Sequence[str]) -> Job | None:
        with self._calling("its jobs could not be listed"):
            alike = [
                job
                for each in self.sdk.fine_tuning.list().data
                for job in [job_of(each, self._key)]
                if job.id not in taken and fits(each, job, spec)
            ]
        return min(alike, key=lambda job: job.created_at or 0.0, default=None)

    def estimate(self, spec: JobSpec) -> Estimate | None:
        wanted = ("training_file", "validation_file", "model", "n_epochs", "n_evals")
        with self._calling("the job's price could not be estimated"):
            job = self._asked(spec, self._limits(spec))
            asked: dict[str, Any] = {name: job[name] for name in wanted if name in job}
            asked["training_method"] = {"method": "sft", "train_on_inputs": False}
            if spec.method == "full":
                asked["training_type"] = {"type": "Full"}
            found = self.sdk.fine_tuning.estimate_price(**asked)
        if not found.estimation_available:
            return None
        counts = (found.estimated_train_token_count, found.estimated_eval_token_count)
        poor = found.allowed_to_proceed is False
        return Estimate(
            found.estimated_total_price,
            round(sum(count or 0 for count in counts)),
            "together says that your balance does not cover this job" if poor else None,
        )

    def create_job(self, spec: JobSpec) -> Job:
        with self._calling("the job could not be created"):
            limits = self._limits(spec)
            created = self.sdk.fine_tuning.create(**self._asked(spec, limits), model_limits=limits)
            return job_of(created, self._key)

    def job(self, id: str) -> Job:
        with self._calling(f"job {id} could not be looked at"):
            return job_of(self.sdk.fine_tuning.retrieve(id), self._key)

    def cancel(self, id: str) -> Job:
        with self._calling(f"job {id} could not be cancelled"):
            return job_of(self.sdk.fine_tuning.cancel(id), self._key)

    def events(self, id: str) -> list[Event]:
        with self._calling(f"the events of job {id} could not be read"):
            listed = sorted(self.sdk.fine_tuning.list_events(id).data, key=lambda e: e.created_at)
            return [event_of(each, self._key) for each in listed]

    def checkpoints(self, id: str) -> list[Checkpoint]:
        losses = {loss.step: loss for loss in self._metrics(id)}
        with self._calling(f"the checkpoints of job {id} could not be read"):
            listed = sorted(self.sdk.fine_tuning.list_checkpoints(id).data, key=lambda c: c.step)
        unknown = StepLoss(0)
        return [
            Checkpoint(each.object_name or each.path, each.step, loss.train, loss.validation)
            for each in listed
            for loss in [losses.get(each.step, unknown)]
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
        asked: Any = {"model": model, "messages": [dict(turn) for turn in messages]}
        if max_tokens is not None:
            asked["max_tokens"] = max_tokens
        if reasoning_effort == "none":
            asked["reasoning"] = {"enabled": False}
        elif reasoning_effort is not None:
            asked["reasoning_effort"] = reasoning_effort
        try:
            with self._calling(f"model {model!r} did not answer"):
                completions = self.sdk.chat.completions.with_raw_response
                raw = completions.create(**asked, temperature=temperature or 0)
                answer = raw.parse()
                choice, usage = answer.choices[0], answer.usage
                return Reply(
                    (choice.message.content if choice.message else None) or "",
                    usage.prompt_tokens if usage else None,
                    usage.completion_tokens if usage else None,
                    choice.finish_reason,
                    number(raw.headers.get(SECONDS_HEADER)),
                    pause_of(raw.headers),
                )
        except RefusedError as error:
            if error.code not in NOT_THERE and error.status != 404:
                raise
            raise RefusedError(
                f"{error} (a model that was tuned at Together answers only on a dedicated "
                "endpoint, which is billed by the minute: deploy it, `tg beta endpoints deploy "
                "MODEL --endpoint NAME`, give PROJECT/NAME as `deployment:` of the contender, run "
                "the same command again, and stop the endpoint afterwards)",
                400,
                NOT_DEPLOYED,
            ) from None

    def _asked(self, spec: JobSpec, limits: Any) -> dict[str, Any]:
        """The job in Together's words."""
        when = schedule(spec.epochs, 0, spec.validation_file is not None)
        kept = min(when.validations, limits.max_num_checkpoints) if spec.keep_checkpoints else 1
        asked: dict[str, Any] = {
            "training_file": spec.training_file,
            "validation_file": spec.validation_file,
            "model": spec.model,
            "n_epochs": when.epochs,
            "n_evals": min(when.validations, limits.max_num_evals),
            "n_checkpoints": max(1, kept),
            "batch_size": "max" if spec.batch_size == "auto" else spec.batch_size,
            "learning_rate": spec.learning_rate or RATES[spec.method or "lora"],
            "suffix": spec.suffix,
            "random_seed": spec.seed,
            # Only the answers are learned, as everywhere else.
            "train_on_inputs": False,
            "early_stopping_enabled": spec.early_stopping,
            # Left out, it is LoRA with the model's own rank.
            "lora": False if spec.method == "full" else None,
        }
        return {name: value for name, value in asked.items() if value is not None}

    def _limits(self, spec: JobSpec) -> Any:
        """A model's limits, which the job keeps to.

        Raises:
            RefusedError: it does not, or the model cannot be tuned.
        """
        limits = self.sdk.fine_tuning.model_limits(model_name=spec.model)
        full = spec.method == "full"
        sizes = limits.full_training if full else limits.lora_training
        if full and (not limits.supports_full_training or sizes is None):
            self._refuse(f"{spec.model} can only be tuned with method: lora")
        if isinstance(spec.batch_size, int) and sizes is not None:
            _within(self, "batch_size", spec.batch_size, sizes.min_batch_size, sizes.max_batch_size)
        if spec.learning_rate is not None:
            low, high = limits.min_learning_rate, limits.max_learning_rate
            _within(self, "learning_rate", spec.learning_rate, low, high)
        if spec.early_stopping and spec.validation_file is None:
            self._refuse("early_stopping needs a validation split")
        return limits

    def _refuse(self, why: str) -> None:
        raise RefusedError(f"{self.url}: the job could not be created: {why}", 400)

    def _metrics(self, id: str) -> list[StepLoss]:
        with self._calling(f"the metrics of job {id} could not be read"):
            rows = self.sdk.fine_tuning.list_metrics(id).metrics or []
        return losses_of(rows)

    def tuned_models(self) -> list[TunedModel]:
        with self._calling("its jobs could not be listed"):
            return [
                TunedModel(
                    job.model, each.model or "", each.training_file, each.validation_file, job.id
                )
                for each in self.sdk.fine_tuning.list().data
                for job in [job_of(each, self._key)]
                if job.model is not None
            ]

    def has_jobs(self) -> bool | None:
        with self._calling("its jobs could not be listed"):
            return bool(self.sdk.fine_tuning.list().data)

    def job_facts(self, id: str) -> dict[str, Any]:
        with self._calling(f"job {id} could not be looked at"):
            shown = self.sdk.fine_tuning.retrieve(id).to_dict(mode="json", warnings=False)
            return dict(hidden_in(shown, self._key))

    def result_text(self, id: str) -> str:
        return hidden(self.download(id).decode(errors="replace"), self._key)

    def download(self, id: str) -> bytes:
        with self._calling(f"file {id} could not be downloaded"):
            return bytes(self.sdk.files.content(id).read())

    def batches(self) -> Batches | None:
        return None

    def close(self) -> None:
        self.sdk.close()

    def _calling(self, what: str) -> Any:
        return calling(self.reach, self._key, what)


def _state(given: Any) -> FileState:
    """Returns the state of a file as the SDK shows it."""
    status = str(given.processing_status).lower() if given.processing_status else None
    report = getattr(given, "validation_report", None)
    return FileState(
        status, (report and report.error) or None, getattr(given, "bytes", None) or None
    )


def _within(provider: Together, name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        provider._refuse(f"{name} {value:g} is not between {low:g} and {high:g}")
