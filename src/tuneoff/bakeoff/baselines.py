"""The baselines of a run: answers without a model, scored like a contender's and never recommended.

`scoring/baselines.py` computes the answers. The run directory holds them like a contender's, under
`baselines/NAME/`. A judge costs money and does not score them.
"""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Callable, Mapping, Sequence
from itertools import chain

from tuneoff.bakeoff.prepare import ResolvedBakeOff, build_free_scorer
from tuneoff.progress import Progress
from tuneoff.records import BaselineRecord, Example, Prediction, ScoredRow, Split
from tuneoff.results import Baseline
from tuneoff.scoring.aggregate import aggregate
from tuneoff.scoring.base import RULES, Options, ScoringInput
from tuneoff.scoring.baselines import (
    MOST_FREQUENT,
    NEAREST,
    find_most_frequent,
    find_nearest_answers,
)
from tuneoff.scoring.paired import Pair, Values
from tuneoff.scoring.pairs import compare_pairs
from tuneoff.storage.run_dir import BaselineDir, RunDir

Examples = Sequence[Example]
# A baseline's record and its answer to each test example; None if it does not apply.
BaselineAnswers = tuple[BaselineRecord, list[str]] | None
# The characters of the most frequent answer that a report shows.
MAX_SHOWN_CHARACTERS = 200


def score_baselines(
    parts: ResolvedBakeOff,
    run: RunDir,
    examples: Mapping[Split, Sequence[Example]],
    options: Options,
    progress: Progress,
) -> None:
    """Answer every baseline that has no answers yet, and score it again.

    One that fails is left out, with a warning.
    """
    test = [example for example in examples["test"] if example.id not in options.left_out]
    key = _hash_examples(examples["train"], test)
    for name, answer_all in BASELINES.items():
        folder = run.baseline(name)
        try:
            answered = _read_stored(folder, key, test) or answer_all(examples["train"], test, key)
            folder.clear()
            if answered is not None:
                record, answers = answered
                rows = _score_answers(parts, test, answers, options)
                predictions = map(Prediction, (example.id for example in test), answers)
                folder.write(record, predictions, rows, RULES)
        except Exception as error:  # contenders' results do not need a baseline
            progress.say(f"warning: {name}: this baseline was not scored: {error}")
            run.event("baseline failed", baseline=name, traceback=traceback.format_exc())


def _read_stored(folder: BaselineDir, key: str, test: Examples) -> BaselineAnswers:
    """Return the stored answers to the same examples, or None."""
    record, answers = folder.record(), folder.answers()
    if record is None or record.data_sha256 != key:
        return None
    return record, [answers[example.id] for example in test]


def _hash_examples(train: Examples, test: Examples) -> str:
    digest = hashlib.sha256()
    for example in chain(train, test):
        digest.update(f"{example.id}\0{example.sha256()}\n".encode())
    return digest.hexdigest()


def _answer_most_frequent(train: Examples, test: Examples, key: str) -> BaselineAnswers:
    most_frequent = find_most_frequent(train)
    if most_frequent is None:
        return None
    answer, share = most_frequent
    return BaselineRecord(MOST_FREQUENT, key, answer, share), [answer] * len(test)


def _answer_nearest(train: Examples, test: Examples, key: str) -> BaselineAnswers:
    answers = find_nearest_answers(train, test)
    return None if answers is None else (BaselineRecord(NEAREST, key), answers)


BASELINES: dict[str, Callable[[Examples, Examples, str], BaselineAnswers]] = {
    MOST_FREQUENT: _answer_most_frequent,
    NEAREST: _answer_nearest,
}


def _score_answers(
    parts: ResolvedBakeOff, test: Sequence[Example], answers: Sequence[str], options: Options
) -> list[ScoredRow]:
    rows = [
        ScoringInput(example.id, example.completion, answer, example.meta, None, example.inputs)
        for example, answer in zip(test, answers, strict=True)
    ]
    return list(build_free_scorer(parts).score_rows(rows, options))


def collect_baselines(
    parts: ResolvedBakeOff,
    run: RunDir,
    metric: str,
    means: Mapping[str, Values],
    seeds: Mapping[str, Sequence[Values]],
    clusters: Mapping[str, str] | None,
    left_out: Mapping[str, str],
) -> tuple[Baseline, ...]:
    """Return every baseline with its scores, and each contender's test against it.

    Args:
        metric: the primary metric.
        means: contender → the score of each example.
        seeds: contender → the scores of each seed, where there are several.
        left_out: example id → why its reference cannot be used.
    """
    margin = parts.bakeoff.requirements.margin_points / 100
    kinds, baselines = parts.scorer.METRICS, []
    for folder in map(run.baseline, BASELINES):
        record = folder.record()
        if record is None:
            continue
        rows = [row for row in folder.scores().values() if row.id not in left_out and row.scores]
        scores = aggregate(rows, kinds, clusters=clusters)
        values = {row.id: float(row.scores[metric]) for row in rows if metric in row.scores}
        pairs = [
            Pair(name, record.name, own, values, seeds.get(name, ()))
            for name, own in means.items()
            if any(id in values for id in own)
        ]
        # Each pair by itself: a baseline is not another contender to adjust p-values for.
        tested = (compare_pairs([p], metric, clusters, parts.cluster or "", margin) for p in pairs)
        baselines.append(
            Baseline(
                name=record.name,
                answer=None if record.answer is None else record.answer[:MAX_SHOWN_CHARACTERS],
                share=record.share,
                scores={name: scores[name] for name in parts.metrics or kinds if scores[name].n},
                comparisons=tuple(comparison for (comparison,) in tested),
            )
        )
    return tuple(baselines)
