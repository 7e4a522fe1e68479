"""Repeated answers: with `samples: K` each test example is asked K times and counts once.

An answer is identified by its example's id and its sample, 0 to K - 1. Every example is asked once
before any is asked again, so an interrupted run leaves complete samples. Answers beyond K, from a
file that asked for more before, stay on disk and are not used.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from typing import Any

from tuneoff.config.base import Sampling
from tuneoff.config.contenders import RecordedConfig
from tuneoff.contenders.base import ContenderContext
from tuneoff.contenders.latency import order_timed_first
from tuneoff.errors import DataError
from tuneoff.records import Example, Prediction, ScoredRow
from tuneoff.storage.run_dir import ContenderDir

Question = tuple[Example, int]
_LATER_SAMPLE = re.compile(r"sample-(\d+)/(.*)", re.DOTALL)


def count_samples(settings: Any, answered: Iterable[tuple[str, int]]) -> int:
    """Return how often each example is answered; for recorded answers, the maximum found.

    Args:
        answered: ids and samples that have an answer.
    """
    if isinstance(settings, RecordedConfig):
        return 1 + max((sample for _, sample in answered), default=0)
    return settings.samples if isinstance(settings, Sampling) else 1


def list_unanswered(
    settings: Any, answered: Collection[tuple[str, int]], test: Sequence[Example]
) -> list[Question]:
    """Return the examples and samples without an answer, first samples before later ones."""
    samples = count_samples(settings, answered)
    return [(e, k) for k in range(samples) for e in test if (e.id, k) not in answered]


def split_by_sample(settings: Any, directory: ContenderDir) -> list[dict[str, Prediction]]:
    """Return, for each sample, the answers that count by example id."""
    answers = directory.answers()
    samples: list[dict[str, Prediction]] = [{} for _ in range(count_samples(settings, answers))]
    for (id, sample), answer in answers.items():
        if sample < len(samples):
            samples[sample][id] = answer
    return samples


def is_answered(settings: Any, work: ContenderContext) -> bool:
    """Return whether every question has an answer."""
    return not list_unanswered(settings, work.directory.answers(), work.test)


def list_questions(
    settings: Any, work: ContenderContext, examples: Sequence[Example]
) -> list[Question]:
    """Return a provider's questions: timed examples, other first samples, later samples."""
    left = list_unanswered(settings, work.directory.answers(), examples)
    if settings.batch:
        return left
    first = order_timed_first(work, [example for example, sample in left if sample == 0])
    later = (question for question in left if question[1] > 0)
    return [*((example, 0) for example in first), *later]


def name_requests(questions: Sequence[Question]) -> dict[str, Question]:
    """Return questions by the names of their requests in a batch.

    A first sample's request is named after its example's id.

    Raises:
        DataError: two requests would have the same name.
    """
    named = {name_request(example.id, sample): (example, sample) for example, sample in questions}
    if len(named) < len(questions):
        raise DataError(
            "two requests of a batch would have one name, for a test example has an id of the form "
            "sample-K/ID; give it another id, or leave `batch` out."
        )
    return named


def name_request(id: str, sample: int) -> str:
    """Return the name of a batch's request about an example."""
    return f"sample-{sample}/{id}" if sample else id


def read_request(name: str, ids: Container[str]) -> tuple[str, int] | None:
    """Return the example's id and sample of a later sample's request; None for any other name."""
    match = _LATER_SAMPLE.fullmatch(name)
    return (match[2], int(match[1])) if match and match[2] in ids else None


def list_scored(settings: Any, directory: ContenderDir) -> list[dict[str, ScoredRow]]:
    """Return, for each sample, the scored rows by example id."""
    scores = directory.all_scores()
    samples: list[dict[str, ScoredRow]] = [{} for _ in range(count_samples(settings, scores))]
    for (id, sample), row in scores.items():
        if sample < len(samples):
            samples[sample][id] = row
    return samples


def compute_disagreement(samples: Sequence[Mapping[str, ScoredRow]], metric: str) -> float | None:
    """Return the share of examples whose samples differ in their score.

    None with fewer than two samples, or where none is scored.
    """
    if len(samples) < 2:
        return None
    values = [
        {float(rows[id].scores[metric]) for rows in samples}
        for id in samples[0]
        if all(id in rows and metric in rows[id].scores for rows in samples)
    ]
    return sum(len(scores) > 1 for scores in values) / len(values) if values else None
