"""A model tuned through a provider's fine-tuning API.

This version checks such contenders in a bake-off file, and refuses to run them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tuneoff.config import HostedSettings
from tuneoff.contenders import Work
from tuneoff.errors import ContenderError
from tuneoff.records import Example, Prediction


def check(settings: HostedSettings, folder: Path) -> None:
    """Nothing can be wrong that the settings' types do not refuse."""


def model_name(settings: HostedSettings) -> str:
    """The provider's name of the model."""
    return settings.model


def tune(settings: HostedSettings, work: Work) -> None:
    """Refuses: no job is sent by this version.

    Raises:
        ContenderError: always.
    """
    raise ContenderError(
        f"contender {settings.name}: this version does not send fine-tuning jobs yet; "
        "run the other contenders with --only, or record its answers (id: recorded)."
    )


def answer(
    settings: HostedSettings, work: Work, examples: Sequence[Example]
) -> Iterator[list[Prediction]]:
    """Refuses, like `tune`."""
    tune(settings, work)
    return iter(())


def prompt_sha256(settings: HostedSettings, work: Work) -> None:
    """No prompt was rendered here."""
    return
