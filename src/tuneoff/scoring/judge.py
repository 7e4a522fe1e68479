"""A judge for free text: a model says whether an answer is as good as the reference.

Judges prefer what they read first (Zheng et al., NeurIPS 2023, "Judging LLM-as-a-Judge"), so
each answer is judged twice, once before the reference and once after it. `judge` is the share
of the two readings in which the answer is not worse; `judge_agreement` says whether they
agree: if it is low, the judge or the rubric is no measure of anything. A reply that is none of
the three words is no score: such rows are missing from both metrics' n. What the judge said is
paid for, so it is written down at once (`judgements.jsonl`) and not asked again; each question
needs leave of the run's ledger, and what was billed is noted there.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import deque
from collections.abc import Container, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

from tuneoff.config import JudgeSettings
from tuneoff.errors import ProviderError
from tuneoff.files import append_lines, read_lines
from tuneoff.providers import Provider, Reply, connect
from tuneoff.providers.calls import repeated
from tuneoff.records import ScoredRow
from tuneoff.scoring.rows import Kind, Options, Purse, Row, no_answer, unanswered

AGREEMENT = "judge_agreement"
# Tokens around a question, and of a reply at most: one that thinks aloud before its word.
AROUND, MOST_REPLY = 16, 4096
# What stands between the parts of a question, as bytes, and what is around all of it.
_FRAME = 64 + AROUND
_TASK = (
    "You compare two answers to the same task by a rubric. Do not let their order or length "
    "sway you. Reply with one word: A if answer A is better, B if answer B is better, TIE if "
    "they are equally good."
)
# The word alone, or with a few that models like to put around it.
_REPLY = re.compile(r"\W*(?:(?:answer|it is|a|the)\W+)*?(A|B|TIE)\W*", re.IGNORECASE)
Outcome = Literal["better", "equal", "worse"]


def ready(settings: JudgeSettings) -> None:
    """Before anything is trained or spent.

    Raises:
        ConfigError: the SDK or the key is missing.
    """
    _connected(settings).close()


def most_tokens(
    settings: JudgeSettings, row: Row, answer_bytes: int | None = None
) -> tuple[int, int]:
    """Return the most tokens, in and out, that judging an answer can bill: two questions.

    Args:
        answer_bytes: how long the answer may be, where it is not there yet.
    """
    texts = (_TASK, settings.rubric, show_inputs(row.inputs), row.reference)
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    if answer_bytes is None:
        answer_bytes = len(row.prediction.encode("utf-8", "surrogatepass"))
    return 2 * (_FRAME + size + answer_bytes), 2 * MOST_REPLY


def _connected(settings: JudgeSettings) -> Provider:
    return connect(settings.provider, settings.base_url)


def outcome_of(reply: str) -> Outcome | None:
    """Reads a reply: how answer A is, compared with B; None where it is none of the words."""
    said = _REPLY.fullmatch(reply.strip().split("\n", 1)[0])
    outcomes: dict[str, Outcome] = {"A": "better", "B": "worse", "TIE": "equal"}
    return outcomes[said[1].upper()] if said else None


def unread_reply(judgements: Path, model: str, ids: Container[str]) -> tuple[str, str] | None:
    """Finds a reply of a judge that could not be read, about one of these examples; the example's
    id comes with it."""
    for row in read_lines(judgements):
        of_these = row.get("model") == model and row.get("id") in ids
        if of_these and outcome_of(str(row["reply"])) is None:
            return str(row["id"]), str(row["reply"])
    return None


class Judge:
    """The scorer that `{id: judge, model: .., rubric: ..}` makes."""

    PRIMARY = "judge"
    METRICS: Mapping[str, Kind] = {"judge": "fraction", AGREEMENT: "yes/no"}

    def __init__(self, settings: JudgeSettings) -> None:
        self._settings = settings
        # Contenders that are scored at once may have given the same answer: it is paid for once.
        self._alone = threading.Lock()

    def score_rows(self, rows: Iterable[Row], options: Options) -> Iterator[ScoredRow]:
        """Both metrics of each row, in order; a few are asked about at once.

        Raises:
            ProviderError: the judge cannot be asked. What it said before is kept.
            BudgetError: the next question could pass the budget; the same holds.
        """
        waiting: deque[Future[ScoredRow]] = deque()
        with (
            self._alone,
            closing(_connected(self._settings)) as self._provider,
            ThreadPoolExecutor(self._settings.concurrency) as threads,
        ):
            memory = _Memory(options.judgements)
            try:
                for row in rows:
                    waiting.append(threads.submit(self._score, row, memory, options.purse))
                    if len(waiting) >= 2 * self._settings.concurrency:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                threads.shutdown(wait=True, cancel_futures=True)

    def _score(self, row: Row, memory: _Memory, purse: Purse | None) -> ScoredRow:
        missing = no_answer(row)
        if missing is not None:
            return unanswered(row, missing, {self.PRIMARY: "fraction"})
        # The key of what the judge said holds these texts; blanks around them must not be paid for.
        answer, reference = row.prediction.strip(), row.reference.strip()
        first = self._ask(row, (answer, reference), memory, purse)
        second = _swapped(self._ask(row, (reference, answer), memory, purse))
        if first is None or second is None:  # nothing was measured
            return ScoredRow(row.id, {}, "the judge did not say")
        value = sum(outcome in ("better", "equal") for outcome in (first, second)) / 2
        scores = {self.PRIMARY: value, AGREEMENT: first == second}
        return ScoredRow(row.id, scores, "right" if value == 1 else "worse")

    def _ask(
        self, row: Row, answers: tuple[str, str], memory: _Memory, purse: Purse | None
    ) -> Outcome | None:
        """How the first answer is, compared with the second; None when the judge does not say."""
        text = (
            f"{_TASK}\n\nRubric:\n{self._settings.rubric}\n\nTask:\n{show_inputs(row.inputs)}\n\n"
            f"Answer A:\n{answers[0]}\n\nAnswer B:\n{answers[1]}"
        )
        key = hashlib.sha256(
            json.dumps([self._settings.base_url, self._settings.model, text]).encode()
        ).hexdigest()
        reply = memory.get(key)
        if reply is None:
            given = repeated(lambda: self._paid(text, purse))
            reply = given.text
            memory.add({
                "key": key, "id": row.id, "model": self._settings.model, "reply": reply,
                "tokens_in": given.tokens_in, "tokens_out": given.tokens_out,
            })  # fmt: skip
        return outcome_of(reply)

    def _paid(self, text: str, purse: Purse | None) -> Reply:
        """One try to get a reply; where it is lost, or the server counts no tokens, the leave
        stays in the ledger as money that may have been spent."""
        asked = [{"role": "user", "content": text}]
        if purse is None:
            return self._provider.chat(self._settings.model, asked, MOST_REPLY)
        # No tokenizer makes more tokens than a text has bytes.
        most = AROUND + len(text.encode("utf-8", "surrogatepass"))
        ticket = purse.authorize("judging", input=most, output=MOST_REPLY)
        try:
            given = self._provider.chat(self._settings.model, asked, MOST_REPLY)
        except ProviderError as error:
            if error.certain:
                ticket.give_back()
            raise
        if given.tokens_in is not None and given.tokens_out is not None:
            ticket.settle(
                input=given.tokens_in,
                output=given.tokens_out,
                cached=given.cached_tokens_in,
                written=given.written_tokens_in,
            )
        return given


class _Memory:
    """What the judge said, by a hash of everything it was asked; in a file if there is one."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._replies = {row["key"]: row["reply"] for row in (read_lines(path) if path else ())}

    def get(self, key: str) -> str | None:
        with self._lock:
            return self._replies.get(key)

    def add(self, row: dict[str, Any]) -> None:
        with self._lock:
            self._replies[row["key"]] = row["reply"]
            if self._path is not None:
                append_lines(self._path, [row])


def _swapped(outcome: Outcome | None) -> Outcome | None:
    """The same outcome seen from the other answer."""
    other: dict[Outcome, Outcome] = {"better": "worse", "worse": "better", "equal": "equal"}
    return other[outcome] if outcome is not None else None


def show_inputs(inputs: Mapping[str, Any]) -> str:
    """Return an example's content as text: its turns, or its fields."""
    turns = inputs.get("messages")
    if isinstance(turns, list):
        return "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)
    return "\n\n".join(f"{name}: {value}" for name, value in inputs.items())
