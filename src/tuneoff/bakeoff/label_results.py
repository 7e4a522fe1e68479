"""Adds people's labels to a run's results: the judge's agreement, and corrected scores."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

from tuneoff.bakeoff.labels import (
    VERDICT_VALUES,
    JudgedRun,
    Label,
    LabelQuestion,
    find_judged_run,
    read_labels,
)
from tuneoff.results import Comparison, ContenderResult, LabelStats, Results, Score
from tuneoff.scoring.corrected import correct_mean
from tuneoff.scoring.intervals import compute_score_interval
from tuneoff.scoring.llm_judge import Judge
from tuneoff.storage.run_dir import RunDir, lock_run_dir

# People's labels of each answer, by (row id, hash).
LabelsByAnswer = Mapping[tuple[str, str], Sequence[Label]]


def update_results(run: RunDir) -> None:
    """Write results.json again if there are labels that it does not contain.

    Raises:
        RunDirectoryError: another process works in the run directory.
    """
    if run.labels.exists():
        with lock_run_dir(run.path):
            before = run.results()
            after = add_labels(run, before)
            if after != before:
                run.write_results(after)


def add_labels(run: RunDir, results: Results) -> Results:
    """Return the results with people's labels.

    They are unchanged without labels, or without a judge.
    """
    judged = find_judged_run(run, results) if run.labels.exists() else None
    if judged is None:
        return results
    labels = read_labels(run)
    current = {
        (question.id, question.sha256): question
        for questions in judged.questions().values()
        for question in questions
    }
    by_answer: dict[tuple[str, str], list[Label]] = {}
    for label in labels:
        if label.verdict in VERDICT_VALUES and (label.id, label.sha256) in current:
            by_answer.setdefault((label.id, label.sha256), []).append(label)
    values = {
        name: _collect_values(judged.scores[name], answers, by_answer)
        for name, answers in judged.answers.items()
    }
    return replace(
        results,
        labels=_summarize_labels(judged, labels, current, by_answer),
        contenders=tuple(_correct_contender(c, judged, values) for c in results.contenders),
        comparisons=tuple(
            _correct_pair(pair, results, judged, values) for pair in results.comparisons
        ),
    )


def _collect_values(
    rows: Iterable[str], answers: Sequence[Mapping[str, LabelQuestion]], by_answer: LabelsByAnswer
) -> dict[str, float]:
    """Return people's value of each row whose answers all have labels.

    It is the mean over people, then over a contender's seeds or samples.
    """
    values = {}
    for id in rows:
        labels = [
            by_answer.get((id, questions[id].sha256), ())
            for questions in answers
            if id in questions
        ]
        if labels and all(labels):
            values[id] = math.fsum(map(_average_labels, labels)) / len(labels)
    return values


def _average_labels(labels: Sequence[Label]) -> float:
    return math.fsum(VERDICT_VALUES[label.verdict] for label in labels) / len(labels)


def _correct_contender(
    contender: ContenderResult, judged: JudgedRun, values: Mapping[str, Mapping[str, float]]
) -> ContenderResult:
    if contender.name not in values:
        return contender
    corrected = correct_mean(
        judged.scores[contender.name],
        values[contender.name],
        judged.clusters,
        [_get_seed_scores(contender)],
    )
    return replace(contender, corrected={Judge.PRIMARY: corrected})


def _correct_pair(
    pair: Comparison,
    results: Results,
    judged: JudgedRun,
    values: Mapping[str, Mapping[str, float]],
) -> Comparison:
    if pair.metric != Judge.PRIMARY or not {pair.a, pair.b} <= values.keys():
        return pair
    corrected = correct_mean(
        _subtract_scores(judged.scores[pair.a], judged.scores[pair.b]),
        _subtract_scores(values[pair.a], values[pair.b]),
        judged.clusters,
        [_get_seed_scores(c) for c in results.contenders if c.name in (pair.a, pair.b)],
        of_differences=True,
    )
    return replace(pair, corrected=corrected)


def _get_seed_scores(contender: ContenderResult) -> tuple[float, ...]:
    score = contender.scores.get(Judge.PRIMARY)
    return score.by_seed if score else ()


def _subtract_scores(a: Mapping[str, float], b: Mapping[str, float]) -> dict[str, float]:
    return {id: value - b[id] for id, value in a.items() if id in b}


def _summarize_labels(
    judged: JudgedRun,
    labels: Sequence[Label],
    current: Mapping[tuple[str, str], LabelQuestion],
    by_answer: LabelsByAnswer,
) -> LabelStats:
    """Return how many answers people labelled, and how far the judge agrees."""
    asked = {key: people for key, people in by_answer.items() if current[key].known is None}
    clusters = judged.clusters or {}
    agreements = [
        (
            clusters.get(key[0], f"id {key[0]}"),
            1 - abs(current[key].judged - _average_labels(people)),
        )
        for key, people in asked.items()
    ]
    table: dict[str, Counter[str]] = {}
    for key, people in asked.items():
        table.setdefault(_name_reading(current[key].judged), Counter()).update(
            x.verdict for x in people
        )
    between = [
        (clusters.get(key[0], f"id {key[0]}"), _compute_agreement(people))
        for key, people in asked.items()
        if len(people) > 1
    ]
    by_people = [
        label for label in labels if label.verdict in VERDICT_VALUES and label.known is None
    ]
    skipped = {
        (x.id, x.sha256)
        for x in labels
        if x.verdict == "skipped" and (x.id, x.sha256) in current.keys() - by_answer.keys()
    }
    return LabelStats(
        rows=len({id for id, _ in by_answer}),
        answers=len(asked),
        people=len({label.by for people in asked.values() for label in people}),
        agreement=_average_shares(agreements),
        kappa=_compute_kappa(
            [(current[key].judged, _average_labels(people)) for key, people in asked.items()]
        ),
        table=table,
        between_people=_average_shares(between),
        changed=sum((label.id, label.sha256) not in current for label in by_people),
        skipped=len(skipped),
    )


def _name_reading(judged: float) -> str:
    """Return the judge's two readings of an answer as a word."""
    if judged == 1:
        return "not worse"
    return "worse" if judged == 0 else "undecided"


def _compute_agreement(labels: Sequence[Label]) -> float:
    """Return the share of pairs of people who agree whether an answer is worse."""
    pairs = list(combinations((VERDICT_VALUES[label.verdict] for label in labels), 2))
    return sum(a == b for a, b in pairs) / len(pairs)


def _average_shares(values: Sequence[tuple[str, float]]) -> Score | None:
    """Return the mean of shares with its cluster-robust interval; None without any."""
    if not values:
        return None
    sums, sizes = Counter[str](), Counter[str]()
    for cluster, value in values:
        sums[cluster] += value  # type: ignore[assignment]
        sizes[cluster] += 1
    n = len(values)
    by_cluster = [(sums[cluster], size) for cluster, size in sizes.items()]
    bounds = compute_score_interval(Counter(value for _, value in values), True, by_cluster)
    low, high = bounds or (None, None)
    return Score(math.fsum(value for _, value in values) / n, low, high, n)


def _compute_kappa(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Return Cohen's kappa of judge and people: agreement beyond chance.

    None where one of them always says the same.
    """
    if not pairs:
        return None
    n = len(pairs)
    judge, people = (math.fsum(values) / n for values in zip(*pairs, strict=True))
    agreement = math.fsum(1 - abs(a - b) for a, b in pairs) / n
    chance = judge * people + (1 - judge) * (1 - people)
    if 1e-12 < judge < 1 - 1e-12 and 1e-12 < people < 1 - 1e-12:
        return (agreement - chance) / (1 - chance)
    return None
