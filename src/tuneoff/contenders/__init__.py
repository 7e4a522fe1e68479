"""Contenders: one file a way to answer. They know no money and no metrics.

A contender kind is a module with the names of `Contender`, found by the `id` of its
settings. It returns tokens and seconds; `costs` multiplies, `scoring` judges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from tuneoff import discovery
from tuneoff.progress import Progress
from tuneoff.prompts import Template
from tuneoff.records import Example, Prediction, PromptRecord
from tuneoff.rundir import ContenderDir

NEEDS = ("check", "ready", "model_name", "tune", "answer", "prompt_sha256")


class Ticket(Protocol):
    """Leave to carry out one paid step. One that is neither settled nor given back stays in the
    ledger as money that may have been spent."""

    def at_least(self, usd: float) -> None:
        """It can cost so much by the provider's own word.

        Raises:
            BudgetError: that could pass the budget.
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
        """Note that it was carried out, and so many tokens were billed; `cached` are those of
        `input` that cost the cached price, `written` those that cost the price of cache writes. It
        cost `usd`, where the provider says so."""
        ...

    def give_back(self) -> None:
        """It was certainly not carried out."""
        ...


class Guard(Protocol):
    """Knows the money: whether a paid step may be taken."""

    def authorize(
        self,
        what: str,
        key: str | None = None,
        *,
        training: int = 0,
        input: int = 0,
        output: int = 0,
        batch: bool = False,
    ) -> Ticket:
        """Leave for a step that bills at most so many tokens, at the prices of a `batch` if it is
        one. A step that goes on after a restart has a `key`, and is authorised once.

        Raises:
            BudgetError: it could pass the budget.
        """
        ...


class Free:
    """The guard, and the ticket, of what costs nothing."""

    def authorize(self, *_: Any, **__: Any) -> Ticket:
        return self

    def at_least(self, usd: float) -> None:
        return None

    def settle(self, **_: Any) -> None:
        return None

    def give_back(self) -> None:
        return None


FREE = Free()


@dataclass(frozen=True, slots=True)
class Work:
    """What a contender gets to work with: the same for every contender of a run, but for its
    own `directory` and `guard`. `name` is the run's; `replay` the folder of the same contender
    in a recorded run, whose exchanges stand for the provider. `keep` is called when a checkpoint
    is complete, and `most_at_once` bounds the tokens that are computed at once, where a training
    runs on another machine than its run directory. `measure`: test prompts are timed one at a time.
    """

    folder: Path
    train: Sequence[Example]
    validation: Sequence[Example]
    test: Sequence[Example]
    template: Template
    prompt: str
    max_new_tokens: int
    directory: ContenderDir
    progress: Progress
    name: str = ""
    guard: Guard = FREE
    replay: ContenderDir | None = None
    keep: Callable[[], None] | None = None
    most_at_once: int | None = None
    measure: bool = True


class Contender(Protocol):
    """What a contender kind's module has. `settings` is the kind's own class. A kind may
    have a `serving(settings, work) -> ServingRecord | None` besides, which says how fast it answers
    once the test set is answered (one that answers here is timed then), and a
    `prompt_record(settings, work) -> PromptRecord`, which says what its chat template makes of the
    prompts. One whose work goes on elsewhere may have a `begin(settings, work)`, which sends it off
    before any contender's turn comes, and an `interrupted(settings, work)`, which asks after Ctrl-C
    what is to become of it.
    """

    def check(self, settings: Any, folder: Path) -> None:
        """Refuses what can be refused before anything is spent (ConfigError)."""
        ...

    def ready(self, settings: Any, work: Work) -> None:
        """Refuses what cannot be carried out here and now (a key is missing) before anything is
        done (ConfigError)."""
        ...

    def model_name(self, settings: Any) -> str:
        """What the report calls the model."""
        ...

    def tune(self, settings: Any, work: Work) -> None:
        """Trains, if this kind trains, and is done already otherwise."""
        ...

    def answer(
        self, settings: Any, work: Work, examples: Sequence[Example]
    ) -> Iterator[list[Prediction]]:
        """Answers examples; each list handed out is written down at once."""
        ...

    def prompt_sha256(self, settings: Any, work: Work) -> str | None:
        """Return the hash of the turns of the test prompts; None where no prompt was made here."""
        ...


def load_contender(id: str) -> Contender:
    """The contender kind of an id.

    Raises:
        ConfigError: there is no such kind.
    """
    return cast(Contender, discovery.find(__name__, id, "contender id", NEEDS))


def describe_prompts(kind: Contender, settings: Any, work: Work) -> PromptRecord:
    """Describe a contender's test prompts; by their hash alone where its kind says no more."""
    told: Callable[[Any, Work], PromptRecord] | None = getattr(kind, "prompt_record", None)
    return told(settings, work) if told else PromptRecord(kind.prompt_sha256(settings, work))


def template_for(settings: Any, work: Work) -> Template:
    """The template with or without its instruction: the contender's `prompt:` decides, then
    the task's."""
    return work.template.short() if (settings.prompt or work.prompt) == "short" else work.template
