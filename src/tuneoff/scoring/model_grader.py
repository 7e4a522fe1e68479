"""Graders that call a model: `score_model` and `label_model`.

Each answer is one question, the grader's turns with their templates filled in. It is paid for and
stored like a judge's (`questions.py`). OpenAI asks for a structured reply, `{"steps": [..],
"result": ..}`. Here a last turn asks for the same in words, which every server understands. A score
outside `range` becomes its nearest end, as at OpenAI. An unreadable reply is no score (OpenAI gives
it 0).
"""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from tuneoff.config.base import PriceConfig
from tuneoff.config.schema import GraderConfig
from tuneoff.errors import ConfigError
from tuneoff.providers.base import Provider
from tuneoff.records import ScoredRow
from tuneoff.scoring import grader_forms as forms
from tuneoff.scoring.base import (
    MetricKind,
    Options,
    QuestionBudget,
    ScoringInput,
    build_unanswered,
    explain_no_answer,
)
from tuneoff.scoring.grader_templates import (
    GraderTemplate,
    MissingFieldError,
    build_item,
    build_sample,
    read_answer,
)
from tuneoff.scoring.graders import (
    Grade,
    build_missing_error,
    build_scored_row,
    check_items,
    explain_missing,
    name_metrics,
)
from tuneoff.scoring.questions import (
    ReplyStore,
    ScoringQuestion,
    ask,
    connect_to,
    count_max_tokens,
    hash_question,
    score_in_order,
)
from tuneoff.storage.files import read_lines

UNREAD_VERDICT = "the grader did not say"
_TEXT_PARTS = ("input_text", "output_text", "text")
_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?([eE][-+]?\d+)?")


class ModelGrader:
    """The scorer of a grader that calls a model."""

    def __init__(
        self, form: forms.ScoreModelForm | forms.LabelModelForm, settings: GraderConfig, where: Path
    ) -> None:
        """Parse the turns of the grader.

        Raises:
            ConfigError: they hold images or audio, or a template that cannot be filled in.
        """
        kind: MetricKind = "yes/no" if isinstance(form, forms.LabelModelForm) else "fraction"
        self.PRIMARY = forms.name_metric(form, where.stem)
        self.METRICS: Mapping[str, MetricKind] = name_metrics(self.PRIMARY, kind, form)
        self._form, self._settings, self._where = form, settings, where
        self._turns = [
            (turn.role, GraderTemplate(_join_content(turn.content, str(where)), str(where)))
            for turn in form.input
        ]
        self._alone = threading.Lock()

    @property
    def model(self) -> str:
        """Return the model to call: the bake-off file's, else the grader's own."""
        return self._settings.model or self._form.model

    @property
    def provider(self) -> str:
        return self._settings.provider

    @property
    def base_url(self) -> str | None:
        return self._settings.base_url

    @property
    def price(self) -> PriceConfig | None:
        return self._settings.price

    def score_rows(self, rows: Iterable[ScoringInput], options: Options) -> Iterator[ScoredRow]:
        """Yield the metrics of each row, in order; several rows are graded concurrently.

        Raises:
            DataError: a row lacks a field of `item` that a template names.
            ProviderError: the model cannot be called. Earlier replies are kept.
            BudgetError: the next question could exceed the budget. Earlier replies are kept.
        """
        # Contenders that are scored concurrently may have the same answer: the lock makes sure that
        # it is paid for once.
        with self._alone, closing(connect_to(self)) as provider:
            memory, purse = ReplyStore(options.judgements), options.grader_budgets.get(self.PRIMARY)
            yield from score_in_order(
                rows,
                lambda row: self._score(row, provider, memory, purse),
                self._settings.concurrency,
            )

    def failing(self, rows: Iterable[ScoringInput], options: Options) -> Iterator[tuple[str, str]]:
        """Yield nothing, but raise if a row lacks a field of `item`, before anything is paid.

        Raises:
            DataError: a template names such a field.
        """
        check_items([template for _, template in self._turns], rows, self._where)
        return iter(())

    def doubts(self, rows: Sequence[ScoringInput]) -> list[str]:
        """Return a warning about sampling parameters that are not sent."""
        sampling = self._form.sampling_params
        named = {"seed": sampling.seed is not None, "top_p": sampling.top_p not in (None, 1)}
        unsent = [name for name, is_given in named.items() if is_given]
        if not unsent:
            return []
        return [f"{self._where.name}: {' and '.join(unsent)} of its sampling_params is not sent."]

    def most_tokens(self, row: ScoringInput, answer_bytes: int | None = None) -> tuple[int, int]:
        """Return the most input and output tokens that grading an answer can bill.

        Args:
            answer_bytes: the maximum length of an answer that does not exist yet.
        """
        try:
            turns = self._fill_in(row)
        except MissingFieldError:
            turns = ()
        # Each field of the sample may insert the answer once more.
        fields = [field for _, template in self._turns for field in template.fields]
        times = sum(field.namespace == "sample" for field in fields)
        more = times * (answer_bytes or 0)
        return count_max_tokens(turns) + more, self._form.sampling_params.get_max_reply_tokens()

    def find_unread(self, judgements: Path, ids: Container[str]) -> tuple[str, str] | None:
        """Return the example id and the text of an unreadable reply, or None.

        Args:
            ids: the examples that are searched.
        """
        for row in read_lines(judgements):
            is_about_them = row.get("grader") == self.PRIMARY and row["id"] in ids
            if is_about_them and self._read(str(row["reply"])) is None:
                return str(row["id"]), str(row["reply"])
        return None

    def _score(
        self,
        row: ScoringInput,
        provider: Provider,
        memory: ReplyStore,
        purse: QuestionBudget | None,
    ) -> ScoredRow:
        missing = explain_no_answer(row)
        if missing is not None:
            return build_unanswered(row, missing, self.METRICS)
        try:
            turns = self._fill_in(row)
        except MissingFieldError as error:
            if error.field.namespace == "item":
                raise build_missing_error(error, row, self._where) from None
            grade = Grade(0.0, explain_missing(error, build_sample(read_answer(row))))
            return build_scored_row(row, grade, self.PRIMARY, self.METRICS, self._form)
        sampling = self._form.sampling_params
        how = (sampling.get_max_reply_tokens(), sampling.reasoning_effort, sampling.temperature)
        key = hash_question("grader", self.base_url, self.model, turns, *how)
        question = ScoringQuestion(row.id, key, turns, *how, more={"grader": self.PRIMARY})
        value = self._read(ask(question, self.model, provider, memory, purse))
        if value is None:
            return ScoredRow(row.id, {}, UNREAD_VERDICT)
        return build_scored_row(row, Grade(value), self.PRIMARY, self.METRICS, self._form)

    def _fill_in(self, row: ScoringInput) -> tuple[Mapping[str, str], ...]:
        item, sample = build_item(row), build_sample(read_answer(row))
        turns = [
            {"role": role, "content": template.render(item, sample)}
            for role, template in self._turns
        ]
        return (*turns, {"role": "user", "content": self._describe_reply()})

    def _describe_reply(self) -> str:
        """Return the turn that describes the form of the reply."""
        steps = '"steps": [{"description": "...", "conclusion": "..."}]'
        if isinstance(self._form, forms.LabelModelForm):
            labels = ", ".join(json.dumps(label, ensure_ascii=False) for label in self._form.labels)
            return f'Reply with JSON alone: {{{steps}, "result": LABEL}}. LABEL is one of {labels}.'
        low, high = self._form.range
        return (
            f'Reply with JSON alone: {{{steps}, "result": SCORE}}. SCORE is a number from {low:g} '
            f"to {high:g}."
        )

    def _read(self, reply: str) -> float | None:
        """Return the score of a reply; None if it is unreadable."""
        result = parse_result(reply)
        if isinstance(self._form, forms.LabelModelForm):
            if not isinstance(result, str) or result not in self._form.labels:
                return None
            return float(result in self._form.passing_labels)
        if isinstance(result, str) and _NUMBER.fullmatch(result.strip()):
            result = float(result)
        if isinstance(result, bool) or not isinstance(result, (int, float)):
            return None
        low, high = self._form.range
        return min(max(float(result), low), high) if math.isfinite(result) else None


def parse_result(reply: str) -> Any:
    """Return the `result` of a reply, or the whole reply as a number or a word."""
    text = reply.strip()
    for begin, end in ((text.find("{"), text.rfind("}")), (text.rfind("{"), text.rfind("}"))):
        if 0 <= begin < end:
            try:
                value = json.loads(text[begin : end + 1])
            except (ValueError, RecursionError):
                continue
            if isinstance(value, dict) and "result" in value:
                return value["result"]
    return text.strip("\"'`*. \n")


def _join_content(content: Any, where: str) -> str:
    """Return a turn's text; its parts are put on separate lines."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    texts = []
    for part in parts:
        text = part.get("text") if isinstance(part, Mapping) else part
        kind = part.get("type") if isinstance(part, Mapping) else "text"
        if not isinstance(text, str) or kind not in _TEXT_PARTS:
            raise ConfigError(
                f"{where}: the grader's input holds {kind or type(part).__name__}, and answers "
                f"here are texts; allowed: texts, and parts of the type {', '.join(_TEXT_PARTS)}."
            )
        texts.append(text)
    return "\n".join(texts)
