"""Tests whether new answers are as good as old ones: `tuneoff parity` and `tuneoff.parity`.

It compares two or more files of answers, or contenders of finished runs, the reference first.
`sides` finds what is compared, `references` the examples that the answers belong to; `answers`
scores files, `runs` reads the scores of runs. The test is that of `compare` and `migrate --parity`
(`scoring/parity.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tuneoff.bakeoff.parity.answers import score_answers
from tuneoff.bakeoff.parity.flips import count_flips, find_flip_examples
from tuneoff.bakeoff.parity.sides import (
    AnswerSet,
    AnswerSource,
    ParityOptions,
    RunContender,
    ScoredAnswers,
    find_clusters,
    resolve_sources,
)
from tuneoff.errors import ConfigError, DataError
from tuneoff.progress import Progress, SilentProgress
from tuneoff.records import to_dict
from tuneoff.report.parity import describe_parity
from tuneoff.results import TESTS_RULE
from tuneoff.scoring.added_metrics import is_metric_file
from tuneoff.scoring.aggregate import aggregate, average_seeds, compute_seed_values
from tuneoff.scoring.base import RULES, MetricKind
from tuneoff.scoring.equivalence import DEFAULT_MARGIN
from tuneoff.scoring.paired import Pair
from tuneoff.scoring.pairs import TESTS_VERSION
from tuneoff.scoring.parity import judge_parity

__all__ = ["ParityOptions", "check_parity", "parity"]

# The number of left-out ids that are named.
MAX_NAMED = 5
# Fields of a comparison that are elsewhere in the result.
OMITTED_FIELDS = ("a", "b", "metric", "verdict", "outcome", "flips", "corrected")


def parity(
    reference: Path | str,
    *candidates: Path | str,
    task: str | None = None,
    metrics: Sequence[str] = (),
    references: Path | str | None = None,
    databases: Path | str | None = None,
    source: str | None = None,
    margin: float = DEFAULT_MARGIN,
    cluster: str | None = None,
) -> dict[str, Any]:
    """Compare candidates with a reference; return what `tuneoff parity --json` prints.

    Each is a JSONL file of answers (`id`, `prediction`), a run directory (its recommended choice),
    or RUN:CONTENDER.

    Raises:
        ConfigError: a task, metric or contender is unknown, or does not fit.
        DataError: a file cannot be used, or nothing is in common.
    """
    how = ParityOptions(
        task=task,
        source=source,
        metrics=tuple(metrics),
        references=None if references is None else Path(references),
        databases=None if databases is None else Path(databases),
        cluster=cluster,
        margin=margin,
    )
    return check_parity(reference, candidates, how)


def check_parity(
    reference: Path | str,
    candidates: Sequence[Path | str],
    how: ParityOptions,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Compare candidates with a reference; return the result as plain values.

    Returns:
        `metric`, `margin`, `cluster`, `reference` (`name`, `scores`), `candidates` (`name`,
            `scores`, `outcome`, `is_not_worse`, `p_not_worse`, `n`, `needed` as in `Parity`; the
            figures of `Comparison`; `flips`, `examples`, `left_out`, `sentence`), `worse`, whether
            one of them is, `warnings` and `rules`.

    Raises:
        ConfigError, DataError: as for `parity`.
        BudgetError: the judge's next question could exceed the budget; its answers so far are kept.
    """
    if not candidates:
        raise ConfigError("parity takes two files or runs, or more: the reference first.")
    if not 0 <= how.margin <= 1:
        raise ConfigError(f"--margin: {how.margin:g} is no share; give 0.03 for 3 points.")
    if how.budget_usd is not None and how.judge is None:
        raise ConfigError("--budget-usd: only a judge is paid; give --judge FILE, or drop it.")
    places = resolve_sources([reference, *candidates], how.contenders)
    scored = _load_sides(places, how, progress or SilentProgress())
    first, *others = scored.sides
    clusters = find_clusters(scored.examples, scored.cluster, how.cluster is not None)
    pairs = [_build_pair(side, first, scored.metric) for side in others]
    judged = judge_parity(pairs, scored.metric, clusters, scored.cluster or "", how.margin)
    return {
        "metric": scored.metric,
        "margin": how.margin,
        "cluster": scored.cluster if clusters else None,
        "reference": {"name": first.name, **_measure_side(first, scored, others, clusters)},
        "candidates": [
            {
                "name": side.name,
                "sentence": f"{describe_parity(each)}.",
                "outcome": each.outcome,
                "is_not_worse": each.is_not_worse,
                "p_not_worse": each.p_not_worse,
                "n": each.n,
                "needed": each.needed,
                **{k: v for k, v in asdict(each.pair).items() if k not in OMITTED_FIELDS},
                "flips": count_flips(pair),
                "examples": find_flip_examples(pair, side, first, scored.examples),
                "left_out": _count_left_out(side, first, scored.metric),
                **_measure_side(side, scored, [first], clusters),
            }
            for side, pair, each in zip(others, pairs, judged, strict=True)
        ],
        "worse": any(each.outcome == "worse" for each in judged),
        "warnings": scored.warnings,
        "rules": {**RULES, TESTS_RULE: TESTS_VERSION},
    }


def _load_sides(
    places: Sequence[AnswerSource], how: ParityOptions, progress: Progress
) -> ScoredAnswers:
    """Return the sides with their scores: those stored in runs, unless an option needs others."""
    chosen = [each for each in places if isinstance(each, RunContender)]
    others = (how.judge, how.references, how.mode, how.databases, how.source)
    is_stored = len(chosen) == len(places) and others == (None,) * len(others)
    if chosen:
        from tuneoff.bakeoff.parity import runs

        runs.check_task(chosen, how.task)
    if is_stored and not any(map(is_metric_file, how.metrics)):
        stored = runs.read_stored(chosen, how.metrics, how.cluster)
        if stored is not None:
            return stored
    return score_answers(places, how, progress)


def _build_pair(side: AnswerSet, reference: AnswerSet, metric: str) -> Pair:
    """Return the pair of a candidate and the reference, over the examples that both have.

    Raises:
        DataError: there are none.
    """
    ours, theirs = _get_values(side, metric), _get_values(reference, metric)
    common = [id for id in theirs if id in ours]
    if not common:
        raise DataError(
            f"{reference.name} and {side.name} have no example in common that has a {metric}; "
            "nothing can be compared."
        )
    return Pair(
        side.name,
        reference.name,
        {id: ours[id] for id in common},
        {id: theirs[id] for id in common},
        _group_by_training(side, metric, common),
        _group_by_training(reference, metric, common),
        side.between,
        reference.between,
    )


def _get_values(side: AnswerSet, metric: str) -> dict[str, float]:
    """Return a side's values of one metric by example id."""
    rows = average_seeds(side.scored)
    return {id: float(row.scores[metric]) for id, row in rows.items() if metric in row.scores}


def _group_by_training(side: AnswerSet, metric: str, ids: Sequence[str]) -> list[dict[str, float]]:
    """Return the scores of each training that has all of these examples."""
    return [
        {id: float(rows[id].scores[metric]) for id in ids}
        for rows in side.scored
        if all(id in rows and metric in rows[id].scores for id in ids)
    ]


def _measure_side(
    side: AnswerSet,
    scored: ScoredAnswers,
    others: Sequence[AnswerSet],
    clusters: Mapping[str, str] | None,
) -> dict[str, Any]:
    """Return a side's scores over the examples that at least one of the others has too."""
    there = {id for other in others for id in average_seeds(other.scored)}
    rows = {id: row for id, row in average_seeds(side.scored).items() if id in there}
    names = dict.fromkeys(name for row in rows.values() for name in row.scores)
    kinds: dict[str, MetricKind] = {name: scored.kinds.get(name, "yes/no") for name in names}
    by_seed = {name: compute_seed_values(side.scored, rows, name) for name in kinds}
    errors = len(set(side.errors) & set(rows))
    scores = aggregate(rows.values(), kinds, errors, clusters, by_seed, side.samples)
    deciding = {scored.metric: scores[scored.metric]}
    return {
        "scores": {name: to_dict(score) for name, score in {**deciding, **scores}.items()},
        "samples": side.samples,
    }


def _count_left_out(side: AnswerSet, reference: AnswerSet, metric: str) -> dict[str, Any]:
    """Return the number of ids that are not compared, by reason, with the first few."""
    only = {
        "reference_only": [id for id in reference.ids if id not in side.ids],
        "candidate_only": [id for id in side.ids if id not in reference.ids],
    }
    unusable = {**reference.left_out, **side.left_out}
    both = [id for id in reference.ids if id in side.ids and id not in unusable]
    ours, theirs = _get_values(side, metric), _get_values(reference, metric)
    unscored = [id for id in both if id not in ours or id not in theirs]
    kinds = {**only, "no_score": unscored}
    return {
        **{name: {"n": len(ids), "first": ids[:MAX_NAMED]} for name, ids in kinds.items()},
        "unusable_reference": {
            "n": len(unusable),
            "first": dict(list(unusable.items())[:MAX_NAMED]),
        },
    }
