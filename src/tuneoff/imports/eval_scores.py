"""Compares the scores of an export with those that its graders give here to the same answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tuneoff.errors import UserError
from tuneoff.scoring import grader_forms as forms
from tuneoff.scoring.grader_templates import MissingFieldError, build_sample
from tuneoff.scoring.graders import build_grader, grade_sample, is_passed

# Tolerance of equal scores: OpenAI's are written with few digits.
SCORE_TOLERANCE = 0.001
ASKS_MODEL, IS_CODE = (
    "it asks a model, which costs money",
    "it is code, which an import does not run",
)


@dataclass(frozen=True, slots=True)
class StoredScore:
    """The score that OpenAI's grader gave one answer."""

    id: str
    item: Mapping[str, Any]
    answer: str
    result: Mapping[str, Any]


@dataclass(slots=True)
class ScoreComparison:
    """How many stored scores a grader reproduces."""

    of: int = 0
    """The number of stored scores."""
    agree: int = 0
    """The number of equal scores."""
    first: dict[str, Any] | None = None
    """The first one that differs."""
    skipped: str | None = None
    """Why none was compared; None if they were."""


def has_code(form: forms.AnyForm) -> bool:
    """Return whether a grader, or a part of it, is somebody's code."""
    if isinstance(form, forms.MultiForm):
        return any(part.get("type") == "python" for part in form.graders.values())
    return isinstance(form, forms.PythonForm)


def compare_scores(form: forms.AnyForm, stored: Sequence[StoredScore]) -> dict[str, Any]:
    """Return how many stored scores a grader reproduces, as plain values."""
    comparison = ScoreComparison(len(stored))
    if isinstance(form, forms.ModelGraderForm):
        comparison.skipped = ASKS_MODEL
    elif has_code(form):
        comparison.skipped = IS_CODE
    elif stored:
        try:
            _compare(form, stored, comparison)
        except UserError as error:
            comparison.skipped = str(error)
    return asdict(comparison)


def _compare(
    form: forms.AnyForm, stored: Sequence[StoredScore], comparison: ScoreComparison
) -> None:
    """Compare the scores and add up the result."""
    grader = build_grader(form, f"grader {form.name}")
    for each in stored:
        try:
            ours = grade_sample(grader, each.item, build_sample(each.answer))
        except MissingFieldError as error:
            comparison.first = comparison.first or {
                "id": each.id,
                "ours": str(error),
                "theirs": None,
            }
            continue
        score, passed = each.result.get("score"), each.result.get("passed")
        is_number = isinstance(score, (int, float)) and not isinstance(score, bool)
        same = abs(float(score or 0) - ours.score) < SCORE_TOLERANCE if is_number else True
        if isinstance(passed, bool):
            same = same and passed == is_passed(ours, form)
        if same:
            comparison.agree += 1
        elif comparison.first is None:
            comparison.first = {
                "id": each.id,
                "ours": ours.score,
                "theirs": score if is_number else passed,
            }
