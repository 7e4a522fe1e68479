"""A model that is not tuned: it only answers, zero-shot or with shots from train."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tuneoff.config import PromptedSettings
from tuneoff.contenders import Work
from tuneoff.contenders.answering import answers, hash_of_prompts
from tuneoff.errors import ContenderError
from tuneoff.models import bases
from tuneoff.models.loading import dtype_of, load_tokenizer, resolve_base
from tuneoff.records import Example, Prediction


def check(settings: PromptedSettings, folder: Path) -> None:
    """The base must exist; a provider's model is not looked up here."""
    if settings.base is not None:
        resolve_base(settings.base, folder)


def model_name(settings: PromptedSettings) -> str:
    """Model and number of shots, for instance `tiny, 5 shots`."""
    shots = "zero-shot" if settings.shots == 0 else f"{settings.shots} shots"
    return f"{settings.base or settings.model}, {shots}"


def tune(settings: PromptedSettings, work: Work) -> None:
    """Nothing is trained."""


def answer(
    settings: PromptedSettings, work: Work, examples: Sequence[Example]
) -> Iterator[list[Prediction]]:
    """Greedy answers of the untuned base."""
    base = resolve_base(_base(settings), work.folder)
    work.progress.say(f"{settings.name}: loading {settings.base}")
    dtype = dtype_of("auto")
    model = bases.borrow(base, settings.quantization, dtype)
    yield from answers(settings, work, model, load_tokenizer(base), examples)
    bases.give_back(base, settings.quantization, dtype, model)


def prompt_sha256(settings: PromptedSettings, work: Work) -> str:
    """Hash of the rendered test prompts, shots included."""
    return hash_of_prompts(settings, work, resolve_base(_base(settings), work.folder))


def _base(settings: PromptedSettings) -> str:
    if settings.base is None:
        raise ContenderError(
            f"contender {settings.name}: this version does not answer through a provider yet; "
            "run the other contenders with --only, or record its answers (id: recorded)."
        )
    return settings.base
