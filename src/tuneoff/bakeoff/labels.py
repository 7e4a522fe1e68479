"""People's labels of answers that a judge scored.

Rows are ordered by a hash of seed and id. The first 30 are therefore a random sample, and stay the
first 30 when more are labelled. A person gets the judge's question (`scoring/llm_judge.py`), and
sees neither which contender answered nor which text is the reference. If several seeds or samples
answered a row, each different answer is one question. Questions with a known result are recorded
when their row is complete: a missing answer is worse than the reference, and an answer equal to the
reference is equal.

`labels.jsonl` grows by one line per label; a person's last label of an answer counts. A label keeps
a hash of everything that was shown, so it is ignored once the answer or the rubric changes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from tuneoff.config.schema import JudgeConfig
from tuneoff.contenders.samples import list_scored, split_by_sample
from tuneoff.contenders.variants import list_variants
from tuneoff.errors import ConfigError, RunDirectoryError
from tuneoff.records import Example, Prediction, ScoredRow
from tuneoff.results import Results
from tuneoff.scoring.added_metrics import list_judges
from tuneoff.scoring.aggregate import average_samples, average_seeds
from tuneoff.scoring.base import ScoringInput, build_scoring_inputs, explain_no_answer
from tuneoff.scoring.llm_judge import Judge, render_inputs
from tuneoff.storage.files import append_lines, read_lines
from tuneoff.storage.resume import load_stored_bakeoff
from tuneoff.storage.run_dir import RunDir
from tuneoff.tasks.base import load_task

# An answer compared with the reference. A skipped answer has no label; an undone label is asked
# again.
LabelVerdict = Literal["better", "equal", "worse", "skipped", "undone"]
VERDICT_VALUES: Mapping[str, float] = {"better": 1.0, "equal": 1.0, "worse": 0.0}


@dataclass(frozen=True, slots=True)
class Label:
    """One line of `labels.jsonl`."""

    id: str
    sha256: str
    verdict: LabelVerdict
    by: str = ""
    """The person who labelled."""
    known: str | None = None
    """Why nobody had to be asked, or None."""


@dataclass(frozen=True, slots=True)
class LabelQuestion:
    """One answer to a test row, as a person sees it."""

    id: str
    sha256: str
    task: str
    reference: str
    answer: str
    judged: float
    """The judge's score of the answer."""
    known: str | None = None
    """Why there is nothing to ask, or None."""

    @property
    def verdict(self) -> LabelVerdict:
        """Return the verdict on an answer whose result is known."""
        return "worse" if self.known == "no answer" else "equal"

    def texts(self, seed: int) -> tuple[str, str, bool]:
        """Return the texts A and B, and whether A is the answer; the seed draws the order."""
        is_first = int(_hash_values(seed, "order", self.sha256), 16) % 2 == 0
        pair = (self.answer, self.reference)
        return (*(pair if is_first else pair[::-1]), is_first)


@dataclass(frozen=True, slots=True)
class JudgedRun:
    """A run whose answers a judge scored."""

    rubric: str
    answers: Mapping[str, Sequence[Mapping[str, LabelQuestion]]]
    """Contender → the questions by row id, of each of its seeds and samples."""
    scores: Mapping[str, Mapping[str, float]]
    """Contender → the judge's mean over seeds and samples, by row id."""
    clusters: Mapping[str, str] | None
    """The cluster of each row; None if rows are independent."""

    def questions(self, seed: int = 0) -> dict[str, list[LabelQuestion]]:
        """Return the different answers to each row; rows and answers in the seed's order."""
        by_row: dict[str, dict[str, LabelQuestion]] = {}
        for several in self.answers.values():
            for answers in several:
                for id, question in answers.items():
                    by_row.setdefault(id, {})[question.sha256] = question
        rows = sorted(by_row, key=partial(_hash_values, seed))
        return {
            id: sorted(by_row[id].values(), key=lambda q: _hash_values(seed, q.sha256))
            for id in rows
        }


def read_labels(run: RunDir) -> list[Label]:
    """Return the labels of a run that count: each person's last one of each answer."""
    last: dict[tuple[str, str, str], Label] = {}
    for row in read_lines(run.labels):
        label = Label(**row)
        last[label.id, label.sha256, label.by] = label
    return [label for label in last.values() if label.verdict != "undone"]


def append_label(run: RunDir, label: Label) -> None:
    """Append a label to the file at once."""
    row: dict[str, Any] = {"id": label.id, "sha256": label.sha256, "verdict": label.verdict}
    if label.by:
        row["by"] = label.by
    if label.known is not None:
        row["known"] = label.known
    append_lines(run.labels, [row])


def load_judged_run(run: RunDir, results: Results) -> JudgedRun:
    """Return the judged answers of a finished run.

    Raises:
        RunDirectoryError: the folder is not a run directory, or no answer has a judge's score.
        ConfigError: the run has no judge.
    """
    judged = find_judged_run(run, results)
    if judged is not None:
        return judged
    if not list_judges(load_stored_bakeoff(run.path)):
        raise ConfigError(
            f"{run.path}: this run has no judge whose scores people could check; add one to "
            "task.metrics, {id: judge, model: …, rubric: …}, and run the bake-off again, which "
            "only asks the judge."
        )
    raise RunDirectoryError(
        f"{run.path}: no answer in it has a judge's score; run the bake-off again, which asks the "
        "judge what is missing."
    )


def find_judged_run(run: RunDir, results: Results) -> JudgedRun | None:
    """Return the judged answers of a finished run; None without a judge or any score."""
    bakeoff = load_stored_bakeoff(run.path)
    asked = list_judges(bakeoff)
    if not asked:
        return None
    test = run.examples("test")
    usable = [example for example in test if example.id not in results.left_out]
    finished = {contender.name for contender in results.contenders if contender.error is None}
    answers: dict[str, list[dict[str, LabelQuestion]]] = {}
    scores = {}
    for settings in bakeoff.contenders:
        if settings.name not in finished:
            continue
        directory = run.contender(settings.name)
        whole = [
            training.get_dir(directory)
            for training in list_variants(settings)
            if training.fraction == 1
        ]
        scored = [list_scored(settings, folder) for folder in whole]
        means = _average_scores(usable, scored)
        if means:
            scores[settings.name] = means
            answers[settings.name] = [
                _read_answers(asked[0], usable, predictions, rows, means)
                for folder, samples in zip(whole, scored, strict=True)
                # A recorded contender may have new answers that are not scored yet.
                for predictions, rows in zip(
                    split_by_sample(settings, folder), samples, strict=False
                )
            ]
    if not scores:
        return None
    key = bakeoff.task.cluster or load_task(bakeoff.task.id, bakeoff.folder).CLUSTER
    clusters = {example.id: str(example.meta[key]) for example in test} if key else None
    return JudgedRun(asked[0].rubric, answers, scores, clusters)


def _average_scores(
    usable: Sequence[Example], scored: Sequence[Sequence[Mapping[str, ScoredRow]]]
) -> dict[str, float]:
    """Return the judge's score of each row: the mean over seeds and samples."""
    rows = average_seeds([average_samples(samples) for samples in scored])
    return {
        example.id: float(rows[example.id].scores[Judge.PRIMARY])
        for example in usable
        if example.id in rows and Judge.PRIMARY in rows[example.id].scores
    }


def _read_answers(
    settings: JudgeConfig,
    usable: Sequence[Example],
    predictions: Mapping[str, Prediction],
    scored: Mapping[str, ScoredRow],
    means: Mapping[str, float],
) -> dict[str, LabelQuestion]:
    """Return the judged answers by id, for rows that have a mean."""
    return {
        row.id: _build_question(settings, row, float(scored[row.id].scores[Judge.PRIMARY]))
        for row in build_scoring_inputs(
            usable, predictions
        )  # all rows: some show where thoughts end
        if row.id in means and Judge.PRIMARY in scored[row.id].scores
    }


def _build_question(settings: JudgeConfig, row: ScoringInput, judged: float) -> LabelQuestion:
    missing = explain_no_answer(row) is not None
    answer, reference = "" if missing else row.prediction.strip(), row.reference.strip()
    task = render_inputs(row.inputs)
    known = "no answer" if missing else "the reference" if answer == reference else None
    sha256 = _hash_values(settings.rubric, task, reference, answer)
    return LabelQuestion(row.id, sha256, task, reference, answer, judged, known)


def _hash_values(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()
