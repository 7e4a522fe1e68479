"""Contenders: one file per way of answering. They know nothing about money or metrics.

A contender kind is a module with the names of `Contender`, found by the `id` of its settings. It
returns tokens and seconds. `costs` turns them into money, and `scoring` judges the answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from tuneoff import plugins
from tuneoff.progress import Progress
from tuneoff.prompts import Template
from tuneoff.records import Example, Prediction, PromptRecord
from tuneoff.storage.run_dir import ContenderDir

NEEDS = ("check", "ready", "model_name", "tune", "answer", "prompt_sha256")


class Reservation(Protocol):
    """A budget reservation for one paid call. Until it is settled or released, the ledger counts it
    as possibly spent."""

    def increase_to(self, usd: float) -> None:
        """Increase the reservation to the provider's own estimate.

        Raises:
            BudgetError: the larger amount could pass the budget.
        """
        ...

    def settle(
        self,
        *,
        training: int = 0,
        input: int = 0,
        output: int = 0,
        cached: int = 0,
        written: int = 0,
        usd: float | None = None,
    ) -> None:
        """Record that the call was carried out, with the tokens that were billed.

        Args:
            cached: tokens of `input` billed at the price of cached input.
            written: tokens of `input` billed at the price of cache writes.
            usd: the amount that the provider says it billed; None where it does not say.
        """
        ...

    def release(self) -> None:
        """Release the reservation: the call was certainly not carried out."""
        ...


class BudgetGuard(Protocol):
    """Decides whether a paid call fits the budget."""

    def authorize(
        self,
        what: str,
        key: str | None = None,
        *,
        training: int = 0,
        input: int = 0,
        output: int = 0,
        batch: bool = False,
    ) -> Reservation:
        """Reserve the maximum cost of a call and return the reservation.

        Args:
            key: idempotency key of a call that continues after a restart; it is authorized once.
            training: maximum training tokens, all epochs together; `input` and `output` for
                answers.
            batch: the call is billed at the prices of a batch.

        Raises:
            BudgetError: the call could pass the budget.
        """
        ...


class UnlimitedBudget:
    """The budget of a contender that costs nothing; it is its own reservation."""

    def authorize(self, *_: Any, **__: Any) -> Reservation:
        return self

    def increase_to(self, usd: float) -> None:
        return None

    def settle(self, **_: Any) -> None:
        return None

    def release(self) -> None:
        return None


UNLIMITED_BUDGET = UnlimitedBudget()


@dataclass(frozen=True, slots=True)
class ContenderContext:
    """What a contender works with. All contenders of a run share it, except `directory` and
    `guard`."""

    folder: Path
    """Folder of the bake-off file; its paths are relative to it."""
    train: Sequence[Example]
    validation: Sequence[Example]
    test: Sequence[Example]
    template: Template
    prompt: str
    max_new_tokens: int
    directory: ContenderDir
    """Where this contender's files are kept."""
    progress: Progress
    name: str = ""
    """The run's name."""
    guard: BudgetGuard = UNLIMITED_BUDGET
    """The contender's budget."""
    replay: ContenderDir | None = None
    """Folder of the same contender in a recorded run, whose exchanges replace the provider."""
    keep: Callable[[], None] | None = None
    """Called when a checkpoint is complete, where training runs on another machine than its run
    directory."""
    most_at_once: int | None = None
    """Maximum tokens computed at once, where training runs on another machine than its run
    directory."""
    measure: bool = True
    """Time test prompts one at a time."""


class Contender(Protocol):
    """The interface of a contender kind's module; `settings` is the kind's own class.

    A kind may also have:

    - `serving(settings, work) -> ServingRecord | None`: latency and throughput, once the test set
      is answered. A model that answers on this machine is timed then.
    - `prompt_record(settings, work) -> PromptRecord`: what its chat template makes of the prompts.
    - `begin(settings, work)`: starts remote work before any contender's turn comes.
    - `interrupted(settings, work)`: asks after Ctrl-C what should become of remote work.
    """

    def check(self, settings: Any, folder: Path) -> None:
        """Raise ConfigError for settings that can be rejected before anything is spent."""
        ...

    def ready(self, settings: Any, work: ContenderContext) -> None:
        """Raise ConfigError if the work cannot be done here and now, for instance without a key."""
        ...

    def model_name(self, settings: Any) -> str:
        """Return the model's name in the report."""
        ...

    def tune(self, settings: Any, work: ContenderContext) -> None:
        """Train the model; do nothing if this kind does not train."""
        ...

    def answer(
        self, settings: Any, work: ContenderContext, examples: Sequence[Example]
    ) -> Iterator[list[Prediction]]:
        """Yield lists of answers to the examples; each list is written at once."""
        ...

    def prompt_sha256(self, settings: Any, work: ContenderContext) -> str | None:
        """Return the hash of the turns of the test prompts; None where no prompt was made here."""
        ...


def load_contender(id: str) -> Contender:
    """Load the contender kind of an id and return its module.

    Raises:
        ConfigError: there is no such kind.
    """
    return cast(Contender, plugins.find("tuneoff.contenders", id, "contender id", NEEDS))


def describe_prompts(kind: Contender, settings: Any, work: ContenderContext) -> PromptRecord:
    """Return the record of a contender's test prompts; only their hash if its kind has no more."""
    build_record: Callable[[Any, ContenderContext], PromptRecord] | None = getattr(
        kind, "prompt_record", None
    )
    return (
        build_record(settings, work)
        if build_record
        else PromptRecord(kind.prompt_sha256(settings, work))
    )


def choose_template(settings: Any, work: ContenderContext) -> Template:
    """Return the template, without its instruction where `prompt: short`.

    The contender's `prompt:` comes before the task's.
    """
    return (
        work.template.drop_instruction()
        if (settings.prompt or work.prompt) == "short"
        else work.template
    )
