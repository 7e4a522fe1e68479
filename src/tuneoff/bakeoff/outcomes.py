"""What each training of a contender left: its record, answers and scores."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from tuneoff.bakeoff.prepare import ResolvedBakeOff
from tuneoff.contenders.samples import list_scored
from tuneoff.contenders.variants import TrainingVariant, list_variants
from tuneoff.costs.accounting import RunPricing
from tuneoff.costs.token_costs import sum_usd
from tuneoff.records import (
    Prediction,
    ScoredRow,
    TrainingRecord,
)
from tuneoff.results import (
    AllTrainings,
    UnreadReplies,
)
from tuneoff.scoring.added_metrics import list_judges, load_model_graders
from tuneoff.scoring.aggregate import (
    average_samples,
    average_seeds,
)
from tuneoff.scoring.base import Options, find_reason_left_out
from tuneoff.scoring.llm_judge import Judge, find_unread_reply
from tuneoff.storage.run_dir import ContenderDir, RunDir

# Max characters of a judge's reply that are stored for the report.
MAX_REPLY_LETTERS = 500


@dataclass(frozen=True, slots=True)
class TrainingOutcome:
    """The stored results of one training of a contender.

    `samples` are the scored rows of each sample by example id, `rows` their means; `answers` are
    those of the samples that count, of `answers_held` in all.
    """

    training: TrainingVariant
    directory: ContenderDir
    record: TrainingRecord | None
    answers: Sequence[Prediction]
    answers_held: int
    samples: Sequence[Mapping[str, ScoredRow]]
    rows: Mapping[str, ScoredRow]

    def answering_seconds(self) -> float | None:
        return _sum_known(p.seconds for p in self.answers)


def load_outcomes(settings: Any, contender: ContenderDir) -> list[TrainingOutcome]:
    outcomes = []
    for training in list_variants(settings):
        folder = training.get_dir(contender)
        samples, answers = list_scored(settings, folder), folder.answers()
        used = [answer for (_, sample), answer in answers.items() if sample < len(samples)]
        record, rows = folder.training(), average_samples(samples)
        outcomes.append(
            TrainingOutcome(training, folder, record, used, len(answers), samples, rows)
        )
    return outcomes


def find_unread(
    parts: ResolvedBakeOff, run: RunDir, outcomes: Sequence[TrainingOutcome]
) -> UnreadReplies | None:
    """Return the unread replies of a judge, or else of a grader's model; None if all were read."""
    rows = [row for each in outcomes for sample in each.samples for row in sample.values()]
    asked = [(Judge.PRIMARY, None, partial(find_unread_reply, run.judgements, judge.model))
             for judge in list_judges(parts.bakeoff)]  # fmt: skip
    graders = [(grader.PRIMARY, grader.PRIMARY, partial(grader.find_unread, run.judgements))
               for grader in load_model_graders(parts.bakeoff)]  # fmt: skip
    for metric, grader, find in (*asked, *graders):
        unread = [row.id for row in rows if metric not in row.scores]
        if unread:
            id, reply = find(set(unread)) or (None, None)
            shown = None if reply is None else reply[:MAX_REPLY_LETTERS]
            return UnreadReplies(len(unread), len(rows), id, shown, grader)
    return None


def drop_unusable(
    outcomes: Mapping[str, Sequence[TrainingOutcome]], options: Options
) -> tuple[dict[str, list[TrainingOutcome]], dict[str, str]]:
    """Return the outcomes without unusable rows, and why these rows are unusable. A reference that
    did not run for one contender counts for none."""
    left_out = dict(options.left_out)
    for outcome in (each for found in outcomes.values() for each in found):
        rows = (pair for sample in outcome.samples for pair in sample.items())
        reasons = {id: why for id, row in rows if (why := find_reason_left_out(row))}
        left_out |= {id: why for id, why in reasons.items() if id not in left_out}
    used = {
        name: [_drop_rows(each, left_out) for each in found] for name, found in outcomes.items()
    }
    return used, left_out


def _drop_rows(outcome: TrainingOutcome, left_out: Collection[str]) -> TrainingOutcome:
    samples = [
        {id: row for id, row in sample.items() if id not in left_out} for sample in outcome.samples
    ]
    return replace(outcome, samples=samples, rows=average_samples(samples))


def select_whole(outcomes: Sequence[TrainingOutcome]) -> list[TrainingOutcome]:
    """Return the outcomes of trainings on all examples: one, or one per seed."""
    return [outcome for outcome in outcomes if outcome.training.fraction == 1]


def average_rows(outcomes: Sequence[TrainingOutcome]) -> dict[str, ScoredRow]:
    return average_seeds([outcome.rows for outcome in select_whole(outcomes)])


def count_answers(outcome: TrainingOutcome) -> float:
    """Return the mean number of answers per example, with samples that no longer count: all of them
    were paid for."""
    firsts = sum(answer.sample == 0 for answer in outcome.answers)
    return outcome.answers_held / firsts if firsts else 1.0


def average_training(whole: Sequence[TrainingOutcome]) -> TrainingRecord | None:
    """Return the first seed's record with the mean seconds of one training."""
    record = whole[0].record
    if record is None or len(whole) == 1:
        return record
    return replace(record, seconds=average_known([o.record.seconds for o in whole if o.record]))


def sum_trainings(
    pricing: RunPricing, settings: Any, outcomes: Sequence[TrainingOutcome]
) -> AllTrainings | None:
    """Return the total of several trainings so far; None with one training."""
    records = [outcome.record for outcome in outcomes if outcome.record]
    if len(outcomes) == 1 or not records:
        return None
    training = _sum_known(record.seconds for record in records)
    answering = _sum_known(outcome.answering_seconds() for outcome in outcomes)
    cost = pricing.hours(settings, training, answering)
    return AllTrainings(len(records), training, answering, sum_usd(cost))


def _sum_known(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def average_known(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
