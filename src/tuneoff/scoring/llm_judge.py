"""An LLM judge for free text: is an answer as good as the reference?

Judges prefer the answer that they read first (Zheng et al., NeurIPS 2023, "Judging
LLM-as-a-Judge"). So each answer is judged twice, once before the reference and once after it.
`judge` is the share of the two readings in which the answer is not worse; `judge_agreement` is
whether they agree. If agreement is low, the judge or the rubric measures nothing. A reply that is
none of the three words is no score, and the row is missing from both metrics' n. Replies are stored
and paid for as in `questions.py`.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

from tuneoff.config.schema import JudgeConfig
from tuneoff.records import ScoredRow
from tuneoff.scoring.base import (
    MetricKind,
    Options,
    QuestionBudget,
    ScoringInput,
    build_unanswered,
    explain_no_answer,
)
from tuneoff.scoring.questions import (
    MAX_REPLY_TOKENS,
    TURN_OVERHEAD_TOKENS,
    ReplyStore,
    ScoringModel,
    ScoringQuestion,
    ask,
    connect_to,
    hash_question,
    score_in_order,
)
from tuneoff.storage.files import read_lines

AGREEMENT = "judge_agreement"
# Bytes between the parts of a question, and around all of it.
_FRAME_BYTES = 64 + TURN_OVERHEAD_TOKENS
_TASK = (
    "You compare two answers to the same task by a rubric. Do not let their order or length "
    "sway you. Reply with one word: A if answer A is better, B if answer B is better, TIE if "
    "they are equally good."
)
# The word alone, or with the words that models like to put around it.
_REPLY = re.compile(r"\W*(?:(?:answer|it is|a|the)\W+)*?(A|B|TIE)\W*", re.IGNORECASE)
JudgeOutcome = Literal["better", "equal", "worse"]


def check_ready(asked: ScoringModel) -> None:
    """Raise if a scoring model cannot be called, before anything is trained or paid.

    Raises:
        ConfigError: the SDK or the key is missing.
    """
    connect_to(asked).close()


def compute_max_tokens(
    settings: JudgeConfig, row: ScoringInput, answer_bytes: int | None = None
) -> tuple[int, int]:
    """Return the most input and output tokens that judging an answer can bill (two questions).

    Args:
        answer_bytes: the maximum length of an answer that does not exist yet.
    """
    texts = (_TASK, settings.rubric, render_inputs(row.inputs), row.reference)
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    if answer_bytes is None:
        answer_bytes = len(row.prediction.encode("utf-8", "surrogatepass"))
    return 2 * (_FRAME_BYTES + size + answer_bytes), 2 * MAX_REPLY_TOKENS


def parse_outcome(reply: str) -> JudgeOutcome | None:
    """Return how answer A compares with B; None if the reply is none of the words."""
    match = _REPLY.fullmatch(reply.strip().split("\n", 1)[0])
    outcomes: dict[str, JudgeOutcome] = {"A": "better", "B": "worse", "TIE": "equal"}
    return outcomes[match[1].upper()] if match else None


def find_unread_reply(judgements: Path, model: str, ids: Container[str]) -> tuple[str, str] | None:
    """Return the example id and the text of a judge's unreadable reply, or None.

    Args:
        ids: the examples that are searched.
    """
    for row in read_lines(judgements):
        # A grader (`grader`) may call the same model and expect other words.
        of_these = row.get("model") == model and row.get("id") in ids and "grader" not in row
        if of_these and parse_outcome(str(row["reply"])) is None:
            return str(row["id"]), str(row["reply"])
    return None


class Judge:
    """The scorer of `{id: judge, model: .., rubric: ..}`."""

    PRIMARY = "judge"
    METRICS: Mapping[str, MetricKind] = {"judge": "fraction", AGREEMENT: "yes/no"}

    def __init__(self, settings: JudgeConfig) -> None:
        self._settings = settings
        # Contenders that are scored concurrently may have the same answer: the lock makes sure that
        # it is paid for once.
        self._alone = threading.Lock()

    def score_rows(self, rows: Iterable[ScoringInput], options: Options) -> Iterator[ScoredRow]:
        """Yield both metrics of each row, in order; several rows are judged concurrently.

        Raises:
            ProviderError: the judge cannot be called. Earlier replies are kept.
            BudgetError: the next question could exceed the budget. Earlier replies are kept.
        """
        with self._alone, closing(connect_to(self._settings)) as self._provider:
            memory = ReplyStore(options.judgements)
            yield from score_in_order(
                rows,
                lambda row: self._score(row, memory, options.budget),
                self._settings.concurrency,
            )

    def _score(
        self, row: ScoringInput, memory: ReplyStore, purse: QuestionBudget | None
    ) -> ScoredRow:
        missing = explain_no_answer(row)
        if missing is not None:
            return build_unanswered(row, missing, {self.PRIMARY: "fraction"})
        # The key of a stored reply is a hash of these texts; without outer blanks, so that they are
        # not paid for twice.
        answer, reference = row.prediction.strip(), row.reference.strip()
        first = self._ask(row, (answer, reference), memory, purse)
        second = _swap_outcome(self._ask(row, (reference, answer), memory, purse))
        if first is None or second is None:  # no score
            return ScoredRow(row.id, {}, "the judge did not say")
        value = sum(outcome in ("better", "equal") for outcome in (first, second)) / 2
        scores = {self.PRIMARY: value, AGREEMENT: first == second}
        return ScoredRow(row.id, scores, "right" if value == 1 else "worse")

    def _ask(
        self,
        row: ScoringInput,
        answers: tuple[str, str],
        memory: ReplyStore,
        purse: QuestionBudget | None,
    ) -> JudgeOutcome | None:
        """Return how the first answer compares with the second; None if the reply is unreadable."""
        text = (
            f"{_TASK}\n\nRubric:\n{self._settings.rubric}\n\nTask:\n{render_inputs(row.inputs)}\n\n"
            f"Answer A:\n{answers[0]}\n\nAnswer B:\n{answers[1]}"
        )
        key = hash_question(self._settings.base_url, self._settings.model, text)
        question = ScoringQuestion(row.id, key, ({"role": "user", "content": text},))
        return parse_outcome(ask(question, self._settings.model, self._provider, memory, purse))


def _swap_outcome(outcome: JudgeOutcome | None) -> JudgeOutcome | None:
    """Return the outcome from the other answer's side."""
    other: dict[JudgeOutcome, JudgeOutcome] = {
        "better": "worse",
        "worse": "better",
        "equal": "equal",
    }
    return other[outcome] if outcome is not None else None


def render_inputs(inputs: Mapping[str, Any]) -> str:
    """Return an example's inputs as text: its chat turns, or its fields."""
    turns = inputs.get("messages")
    if isinstance(turns, list):
        return "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)
    return "\n\n".join(f"{name}: {value}" for name, value in inputs.items())
