"""OpenAI's graders as metrics, from files that hold an exported grader object.

    metrics: [graders/match.json, exact_match]

`string_check`, `text_similarity`, `python` and `multi` are computed here; `score_model` and
`label_model` call a model (`model_grader.py`). Each returns what OpenAI's guide "Graders"
describes. The metric has the grader's name; with a `pass_threshold` there is a second metric,
`NAME_passed`. A python grader is its author's code: it runs in this process, without limits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from tuneoff.errors import ConfigError, DataError
from tuneoff.records import ScoredRow
from tuneoff.scoring import grader_forms as forms
from tuneoff.scoring.base import (
    MetricKind,
    Options,
    ScoringInput,
    build_unanswered,
    explain_no_answer,
    shorten_text,
)
from tuneoff.scoring.custom import MAX_TRIED
from tuneoff.scoring.formula import Formula
from tuneoff.scoring.grader_templates import (
    GraderTemplate,
    MissingFieldError,
    build_item,
    build_sample,
    read_answer,
)
from tuneoff.scoring.similarity import SIMILARITIES, check_fuzzy_match

Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Grade:
    """The grade of an answer."""

    score: float
    fault: str | None = None
    """Why the answer could not be graded, which scores 0; else None."""


class Grader(Protocol):
    """A grader that is computed in this process."""

    templates: Sequence[GraderTemplate]
    """The templates that it fills in."""
    kind: MetricKind

    def grade(self, item: Values, sample: Values) -> Grade: ...


class StringCheckGrader:
    """Tests whether a text is, is not, or contains another text; only `ilike` ignores case."""

    kind: MetricKind = "yes/no"

    def __init__(self, form: forms.StringCheckForm, where: str) -> None:
        self._operation = form.operation
        self.templates: Sequence[GraderTemplate] = (
            GraderTemplate(form.input, where),
            GraderTemplate(form.reference, where),
        )

    def grade(self, item: Values, sample: Values) -> Grade:
        text, reference = (template.render(item, sample) for template in self.templates)
        match self._operation:
            case "eq":
                return Grade(float(text == reference))
            case "ne" | "neq":
                return Grade(float(text != reference))
            case "like":
                return Grade(float(reference in text))
        return Grade(float(reference.lower() in text.lower()))


class TextSimilarityGrader:
    """Measures how similar two texts are."""

    kind: MetricKind = "fraction"

    def __init__(self, form: forms.TextSimilarityForm, where: str) -> None:
        if form.evaluation_metric == "fuzzy_match":
            check_fuzzy_match()
        self._measure = SIMILARITIES[form.evaluation_metric]
        self.templates: Sequence[GraderTemplate] = (
            GraderTemplate(form.input, where),
            GraderTemplate(form.reference, where),
        )

    def grade(self, item: Values, sample: Values) -> Grade:
        text, reference = (template.render(item, sample) for template in self.templates)
        return Grade(self._measure(text, reference))


class PythonGrader:
    """Runs the author's `grade(sample, item)`."""

    kind: MetricKind = "yes/no"
    templates: Sequence[GraderTemplate] = ()

    def __init__(self, form: forms.PythonForm, where: str) -> None:
        names: dict[str, Any] = {"__name__": "grader"}
        self._where = where
        try:
            exec(compile(form.source, where, "exec"), names)
        except Exception as error:
            raise ConfigError(
                f"{where}: the grader's source cannot be run ({_describe_error(error)})."
            ) from error
        self._grade: Any = names.get("grade")
        if not callable(self._grade):
            raise ConfigError(f"{where}: the grader's source has no grade(sample, item); add it.")

    def grade(self, item: Values, sample: Values) -> Grade:
        """Return the function's value; 0 if it fails or returns no number, as at OpenAI.

        Raises:
            DataError: a module or a name is missing, which is no answer's fault.
        """
        try:
            value = self._grade(sample, item)
        except (ImportError, NameError) as error:
            raise DataError(
                f"{self._where}: grade() failed ({_describe_error(error)}); install or correct "
                "it and "
                "score again."
            ) from error
        except Exception as error:
            return Grade(0.0, f"grade() failed: {_describe_error(error)}")
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            return Grade(0.0, f"grade() gave {value!r:.40}")
        return Grade(number)


class MultiGrader:
    """Computes a formula over the scores of several graders."""

    kind: MetricKind = "fraction"

    def __init__(self, form: forms.MultiForm, where: str) -> None:
        self._parts = {
            name: _build_part(name, value, where) for name, value in form.graders.items()
        }
        self._formula = Formula(form.calculate_output, form.graders.keys(), where)
        self.templates: Sequence[GraderTemplate] = [
            template for part in self._parts.values() for template in part.templates
        ]

    def grade(self, item: Values, sample: Values) -> Grade:
        grades = {name: grade_sample(part, item, sample) for name, part in self._parts.items()}
        fault = next((grade.fault for grade in grades.values() if grade.fault), None)
        try:
            value = self._formula.evaluate({name: grade.score for name, grade in grades.items()})
        except (ArithmeticError, ValueError) as error:
            return Grade(0.0, f"calculate_output: {_describe_error(error)}")
        return Grade(value, fault)


class GraderMetric:
    """The scorer of a grader that calls no model."""

    def __init__(self, grader: Grader, form: forms.GraderForm, where: Path) -> None:
        self.PRIMARY = forms.name_metric(form, where.stem)
        self.METRICS: Mapping[str, MetricKind] = name_metrics(self.PRIMARY, grader.kind, form)
        self._grader, self._form, self._where = grader, form, where

    def score_rows(self, rows: Iterable[ScoringInput], options: Options) -> Iterator[ScoredRow]:
        """Yield the metrics of each row, in order.

        Raises:
            DataError: a row lacks a field of `item`, or a python grader fails whatever the answer
                is.
        """
        for row in rows:
            missing = explain_no_answer(row)
            if missing is not None:
                yield build_unanswered(row, missing, self.METRICS)
                continue
            item, sample = build_item(row), build_sample(read_answer(row))
            try:
                grade = grade_sample(self._grader, item, sample)
            except MissingFieldError as error:
                raise build_missing_error(error, row, self._where) from None
            yield build_scored_row(row, grade, self.PRIMARY, self.METRICS, self._form)

    def failing(self, rows: Iterable[ScoringInput], options: Options) -> Iterator[tuple[str, str]]:
        """Yield nothing, but raise if a row lacks a field of `item`, before there are answers.

        Raises:
            DataError: a template names such a field.
        """
        check_items(self._grader.templates, rows, self._where)
        return iter(())

    def doubts(self, rows: Sequence[ScoringInput]) -> list[str]:
        """Return warnings: references without full marks, and graders that are code."""
        warnings = []
        if isinstance(self._grader, PythonGrader):
            warnings.append(
                f"{self._where.name}: this grader is Python code; it runs in tuneoff's own "
                "process, without limits."
            )
        tried, least = rows[:MAX_TRIED], self._form.pass_threshold
        answers = [replace(row, prediction=row.reference) for row in tried]
        less = [
            row for row in self.score_rows(answers, Options())
            if float(row.scores[self.PRIMARY]) < (1 if least is None else least)
        ]  # fmt: skip
        if less:
            warnings.append(
                f"{self._where.name}: the grader {self.PRIMARY} gives {len(less)} of {len(tried)} "
                f"references themselves less than {1 if least is None else least:g}, "
                f"{less[0].id} for one ({less[0].verdict}); an answer that is the reference should "
                "be right."
            )
        return warnings


def name_metrics(name: str, kind: MetricKind, form: forms.GraderForm) -> dict[str, MetricKind]:
    """Return the metrics of a grader with their kinds."""
    passed: dict[str, MetricKind] = {f"{name}_passed": "yes/no"}
    return {name: kind, **(passed if form.pass_threshold is not None else {})}


def build_scored_row(
    row: ScoringInput,
    grade: Grade,
    name: str,
    metrics: Mapping[str, MetricKind],
    form: forms.GraderForm,
) -> ScoredRow:
    """Return a grade as a scored row.

    The verdict is right if the grade passes; without a threshold, if it is 1 or more.
    """
    passed = is_passed(grade, form)
    value = bool(grade.score) if _is_yes_no(metrics[name], grade) else grade.score
    scores: dict[str, bool | float] = {name: value}
    if form.pass_threshold is not None:
        scores[f"{name}_passed"] = passed
    fault = None if grade.fault is None else f"wrong: {shorten_text(grade.fault)}"
    return ScoredRow(row.id, scores, fault or ("right" if passed else "wrong"))


def is_passed(grade: Grade, form: forms.GraderForm) -> bool:
    """Return whether a grade reaches the threshold; without a threshold, 1."""
    return grade.score >= (1 if form.pass_threshold is None else form.pass_threshold)


def check_items(
    templates: Sequence[GraderTemplate], rows: Iterable[ScoringInput], where: Path
) -> None:
    """Raise if a template names a field of `item` that a row lacks.

    Raises:
        DataError: there is such a row.
    """
    fields = [f for template in templates for f in template.fields if f.namespace == "item"]
    for row in rows if fields else ():
        item = build_item(row)
        for field in fields:
            try:
                field.look_up(item, {})
            except MissingFieldError as error:
                raise build_missing_error(error, row, where) from None


def explain_missing(error: MissingFieldError, sample: Values) -> str:
    """Return which field of the answer is missing."""
    if "output_json" in error.field.path and sample["output_json"] is None:
        return "the answer is no JSON"
    return str(error)


def build_missing_error(error: MissingFieldError, row: ScoringInput, where: Path) -> DataError:
    """Return the error for a row that lacks a field of `item`."""
    return DataError(
        f"{where}: example {row.id!r} has no field for the template: {error}; give every test "
        "example the field (in its meta.item), or correct the template."
    )


def build_grader(form: forms.AnyForm, where: str) -> Grader:
    """Return a grader that is computed in this process.

    Raises:
        ConfigError: its template, source or formula cannot be used.
        MissingExtraError: it needs a library that is not installed.
    """
    match form:
        case forms.StringCheckForm():
            return StringCheckGrader(form, where)
        case forms.TextSimilarityForm():
            return TextSimilarityGrader(form, where)
        case forms.PythonForm():
            return PythonGrader(form, where)
        case forms.MultiForm():
            return MultiGrader(form, where)
    raise AssertionError("graders that ask a model are built elsewhere")


def _build_part(name: str, value: Values, where: str) -> Grader:
    form = forms.check_grader(value, f"{where}: grader {name}")
    if isinstance(form, forms.MultiForm | forms.ModelGraderForm):
        raise ConfigError(
            f"{where}: grader {name} is a {form.type}, which cannot be a part of a multi grader "
            "here; give it a file of its own."
        )
    return build_grader(form, f"{where}: grader {name}")


def grade_sample(grader: Grader, item: Values, sample: Values) -> Grade:
    """Return the grade; 0 if the answer lacks a field that a template names.

    Raises:
        MissingFieldError: the item lacks the field, which is no answer's fault.
    """
    try:
        return grader.grade(item, sample)
    except MissingFieldError as error:
        if error.field.namespace == "item":
            raise
        return Grade(0.0, explain_missing(error, sample))


def _is_yes_no(kind: MetricKind, grade: Grade) -> bool:
    return kind == "yes/no" and grade.score in (0, 1)


def _describe_error(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error) or 'no message').splitlines()[0]}"
