"""Contenders: one file a way to answer. They know no money and no metrics.

A contender kind is a module with the names of `Contender`, found by the `id` of its
settings. It returns tokens and seconds; `costs` multiplies, `scoring` judges.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from tuneoff import discovery
from tuneoff.progress import Progress
from tuneoff.prompts import Template
from tuneoff.records import Example, Prediction
from tuneoff.rundir import ContenderDir

NEEDS = ("check", "model_name", "tune", "answer", "prompt_sha256")


@dataclass(frozen=True, slots=True)
class Work:
    """What a contender gets to work with: the same for every contender of a run."""

    folder: Path
    train: Sequence[Example]
    validation: Sequence[Example]
    test: Sequence[Example]
    template: Template
    prompt: str
    max_new_tokens: int
    directory: ContenderDir
    progress: Progress


class Contender(Protocol):
    """What a contender kind's module has. `settings` is the kind's own class."""

    def check(self, settings: Any, folder: Path) -> None:
        """Refuses what can be refused before anything is spent (ConfigError)."""
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
        """Hash of the rendered test prompts; None where no prompt was rendered here."""
        ...


def load_contender(id: str) -> Contender:
    """The contender kind of an id.

    Raises:
        ConfigError: there is no such kind.
    """
    return cast(Contender, discovery.find(__name__, id, "contender id", NEEDS))


def template_for(settings: Any, work: Work) -> Template:
    """The template with or without its instruction: the contender's `prompt:` decides, then
    the task's."""
    return work.template.short() if (settings.prompt or work.prompt) == "short" else work.template
