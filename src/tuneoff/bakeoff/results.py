"""From a run directory to `Results`: aggregate, compare, price, recommend.

Reads only what earlier stages wrote, so it can be repeated at any time without training or
answering. The seeds of a contender are aggregated here (see `ContenderResult`). A contender whose
seeds are not all done has no scores yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tuneoff import environment
from tuneoff.bakeoff.baselines import collect_baselines
from tuneoff.bakeoff.latency_stats import build_latency
from tuneoff.bakeoff.outcomes import (
    TrainingOutcome,
    average_known,
    average_rows,
    average_training,
    count_answers,
    drop_unusable,
    find_unread,
    load_outcomes,
    select_whole,
    sum_trainings,
)
from tuneoff.bakeoff.prepare import ResolvedBakeOff
from tuneoff.contenders.base import load_contender
from tuneoff.contenders.samples import compute_disagreement
from tuneoff.contenders.variants import find_way
from tuneoff.costs.accounting import Measurements, PricedContender, RunPricing, find_hosting
from tuneoff.costs.break_even import compute_break_evens
from tuneoff.costs.contender_prices import is_hosted
from tuneoff.prompts import hash_content
from tuneoff.records import (
    SPLITS,
    Example,
    PromptRecord,
    ScoredRow,
    Split,
)
from tuneoff.report.recommendation import recommend
from tuneoff.results import (
    TESTS_RULE,
    Comparison,
    ContenderResult,
    CurvePoint,
    Results,
    Score,
)
from tuneoff.scoring.aggregate import (
    Breakdown,
    aggregate,
    build_learning_curve,
    compute_seed_values,
    count_error_classes,
)
from tuneoff.scoring.base import Options, ScoringInput
from tuneoff.scoring.intervals import compute_wilson_interval
from tuneoff.scoring.pairs import TESTS_VERSION, compare_all
from tuneoff.scoring.parity import list_not_worse
from tuneoff.scoring.selection import find_allowance
from tuneoff.storage.databases import hash_databases
from tuneoff.storage.resume import dump_resolved
from tuneoff.storage.run_dir import ContenderDir, RunDir


def collect_results(
    parts: ResolvedBakeOff,
    run: RunDir,
    examples: Mapping[Split, Sequence[Example]],
    options: Options,
    command: str,
) -> Results:
    """Return the results of a run, from its directory."""
    metric = parts.get_deciding_metric(options)
    test = examples["test"]
    clusters, pricing = _find_clusters(parts, test), RunPricing(parts.bakeoff, run)
    outcomes, left_out = drop_unusable(
        {s.name: load_outcomes(s, run.contender(s.name)) for s in parts.bakeoff.contenders},
        options,
    )
    known = _find_known_groups(parts, [e for e in test if e.id not in left_out], options)
    run.write_groups(known)
    groups = {e.id: {**e.meta, **known.get(e.id, {})} for e in test}
    results = [
        _build_contender(
            parts,
            settings,
            run.contender(settings.name),
            outcomes[settings.name],
            groups,
            metric,
            clusters,
            pricing,
        )
        for settings in parts.bakeoff.contenders
    ]
    contenders = tuple(contender for contender, _ in results)
    priced = {contender.name: money for contender, money in results if contender.error is None}
    finished = {c.name: outcomes[c.name] for c in contenders if c.error is None}
    means = {name: _get_values(average_rows(found), metric) for name, found in finished.items()}
    seeds = {
        name: [_get_values(each.rows, metric) for each in select_whole(of)]
        for name, of in finished.items()
    }
    comparisons = _compare_contenders(parts, means, seeds, metric, clusters)
    baselines = collect_baselines(parts, run, metric, means, seeds, clusters, left_out)
    places = {c.name: c.place for c in contenders}
    leaving = parts.bakeoff.migrating_from
    margin = parts.bakeoff.requirements.margin_points / 100
    crossings = compute_break_evens(priced, places, parts.bakeoff.serving.utilization)
    return Results(
        schema=1,
        name=parts.bakeoff.name,
        task=parts.bakeoff.task.id,
        source=parts.settings.source or str(parts.settings.train),
        primary_metric=metric,
        settings=dump_resolved(parts.bakeoff),
        requirements=parts.bakeoff.requirements.model_dump(mode="json"),
        created=environment.now().isoformat(timespec="seconds"),
        command=command,
        split_sizes={split: len(examples[split]) for split in SPLITS},
        content_sha256=hash_content(test),
        database_sha256=_hash_databases(options, test),
        versions=environment.read_versions(),
        machine=environment.describe_machine(),
        contenders=contenders,
        comparisons=comparisons,
        judge_usd=pricing.judge_usd(),
        judge_unread=find_unread(
            parts, run, [each for found in finished.values() for each in found]
        ),
        left_out={e.id: left_out[e.id] for e in test if e.id in left_out},
        rules={
            **_find_common_rules([found[0] for found in outcomes.values()]),
            TESTS_RULE: TESTS_VERSION,
        },
        baselines=baselines,
        break_even=crossings,
        recommendation=recommend(
            contenders,
            comparisons,
            metric,
            parts.bakeoff.requirements,
            crossings,
            pricing.day,
            allowance=lambda name, best, names: find_allowance(
                name, best, {n: means[n] for n in names}, clusters
            ),
            kind=parts.scorer.METRICS[metric],
            leaving=leaving,
            not_worse=list_not_worse(means, seeds, leaving, metric, clusters, margin)
            if leaving
            else (),
            baselines=baselines,
        ),
    )


def _build_contender(
    parts: ResolvedBakeOff,
    settings: Any,
    directory: ContenderDir,
    outcomes: Sequence[TrainingOutcome],
    groups: Mapping[str, Mapping[str, Any]],
    metric: str,
    clusters: Mapping[str, str] | None,
    pricing: RunPricing,
) -> tuple[ContenderResult, PricedContender]:
    """Return the results of one contender, and its costs."""
    whole, rows = select_whole(outcomes), average_rows(outcomes)
    first = whole[0]
    training, scores = (
        average_training(whole),
        _build_scores(parts, settings, rows, whole, clusters),
    )
    planned, decisive = directory.planned(), scores.get(metric)
    measured = Measurements(
        training=training,
        answering_seconds=average_known([o.answering_seconds() for o in whole]),
        serving=build_latency(settings, first, [p for o in whole for p in o.answers]),
        record=None if is_hosted(settings) else first.directory.serving(),
        times_answered=count_answers(first),
        correct=decisive.value if decisive else None,
        planned_usd=planned.training_usd if planned else None,
    )
    money = pricing.priced(settings, measured)
    prompt = first.directory.prompt() or PromptRecord(None)
    result = ContenderResult(
        name=settings.name,
        id=settings.id,
        model=load_contender(settings.id).model_name(settings),
        prompt_sha256=prompt.prompt_sha256,
        rendered_sha256=prompt.rendered_sha256,
        rendering_notes=prompt.rendering_notes,
        error=directory.error(),
        place=find_hosting(settings),
        data=getattr(settings, "data", None),
        ends=pricing.ends(settings),
        scores=scores,
        rules=first.directory.scoring_rules(),
        breakdowns=_build_breakdowns(
            parts, groups, rows, metric, clusters, len(whole), len(first.samples)
        ),
        error_classes=count_error_classes(
            first.samples[0].values(), metric, getattr(parts.scorer, "ERROR_CLASSES", None)
        ),
        training=training,
        samples=len(first.samples),
        samples_disagree=compute_disagreement(first.samples, metric),
        seeds=tuple(o.training.seed for o in whole if o.training.seed is not None),
        all_trainings=sum_trainings(pricing, settings, outcomes),
        learning_curve=_build_curve(parts, outcomes, metric, clusters),
        loss=first.directory.loss(),
        cost=money.cost,
        serving=measured.serving,
    )
    return result, money


def _find_common_rules(outcomes: Sequence[TrainingOutcome]) -> dict[str, int]:
    """Return each scoring rule's lowest version among the outcomes that were scored here."""
    scored = [outcome.directory.scoring_rules() for outcome in outcomes if outcome.rows]
    if not all(scored):  # some were scored before rules were counted
        return {}
    names = scored[0] if scored else {}
    return {name: min(rules.get(name, 1) for rules in scored) for name in names}


def _build_curve(
    parts: ResolvedBakeOff,
    outcomes: Sequence[TrainingOutcome],
    metric: str,
    clusters: Mapping[str, str] | None,
) -> tuple[CurvePoint, ...]:
    """Return the learning curve: each fraction, and all examples with the same seed."""
    points = [o for o in outcomes if o.training.fraction < 1]
    measured = [
        (o.training.fraction, o.record.examples, o.rows)
        for o in (*points, outcomes[0])
        if points and o.record
    ]
    return build_learning_curve(measured, metric, parts.scorer.METRICS[metric], clusters)


def _build_scores(
    parts: ResolvedBakeOff,
    settings: Any,
    rows: Mapping[str, ScoredRow],
    whole: Sequence[TrainingOutcome],
    clusters: Mapping[str, str] | None,
) -> dict[str, Score]:
    """Return a contender's scores by metric, measured or reported."""
    reported = getattr(settings, "scores", None)
    if reported is not None:
        return {
            metric: _build_reported(figure.value, figure.n) for metric, figure in reported.items()
        }
    if not rows:
        return {}
    errors = {p.id for o in whole for p in o.answers if p.error is not None and p.id in rows}
    trainings = [outcome.rows for outcome in whole]
    metrics = parts.scorer.METRICS
    seeds = {metric: compute_seed_values(trainings, rows, metric) for metric in metrics}
    answers = len(whole[0].samples)
    found = aggregate(rows.values(), metrics, len(errors), clusters, seeds, answers)
    return {metric: found[metric] for metric in parts.metrics or tuple(found) if found[metric].n}


def _build_reported(value: float, n: int | None) -> Score:
    """Return a published score. It has bounds only where the number of examples is known."""
    if n is None:
        return Score(value=value, low=None, high=None, n=0)
    low, high = compute_wilson_interval(round(value * n), n)
    return Score(value=value, low=low, high=high, n=n)


def _find_known_groups(
    parts: ResolvedBakeOff, test: Sequence[Example], options: Options
) -> dict[str, dict[str, str]]:
    """Return what the scorer knows of each test example beside its `meta`: a query's hardness."""
    known = getattr(parts.scorer, "groups", None)
    if known is None:
        return {}
    by_id = {e.id: known(ScoringInput(e.id, e.completion, "", e.meta), options) for e in test}
    return {id: groups for id, groups in by_id.items() if groups}


def _build_breakdowns(
    parts: ResolvedBakeOff,
    groups: Mapping[str, Mapping[str, Any]],
    rows: Mapping[str, ScoredRow],
    metric: str,
    clusters: Mapping[str, str] | None,
    trainings: int,
    answers: int,
) -> dict[str, dict[str, dict[str, Score]]]:
    """Return the primary metric by every key that has a handful of values."""
    breakdown = Breakdown(metric, parts.scorer.METRICS[metric], trainings, answers)
    for id, row in rows.items():
        breakdown.add(row, groups[id], clusters[id] if clusters else None)
    return breakdown.scores()


def _compare_contenders(
    parts: ResolvedBakeOff,
    means: Mapping[str, Mapping[str, float]],
    seeds: Mapping[str, Sequence[Mapping[str, float]]],
    metric: str,
    clusters: Mapping[str, str] | None,
) -> tuple[Comparison, ...]:
    scored = {name: found for name, found in means.items() if found}
    margin = parts.bakeoff.requirements.margin_points / 100
    ways = {s.name: find_way(s, parts.bakeoff.folder) for s in parts.bakeoff.contenders}
    return compare_all(scored, metric, clusters, parts.cluster or "", seeds, margin, ways)


def _get_values(rows: Mapping[str, ScoredRow], metric: str) -> dict[str, float]:
    return {id: float(row.scores[metric]) for id, row in rows.items() if metric in row.scores}


def _find_clusters(parts: ResolvedBakeOff, test: Sequence[Example]) -> dict[str, str] | None:
    """Return the cluster of each test example, for instance its database; None without clusters."""
    key = parts.cluster
    return {example.id: str(example.meta[key]) for example in test} if key else None


def _hash_databases(options: Options, test: Sequence[Example]) -> dict[str, str]:
    if options.databases is None:
        return {}
    ids = {str(example.meta["db_id"]) for example in test}
    return hash_databases(options.databases, ids, options.derived)
