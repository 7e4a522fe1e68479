"""From a run directory to `Results`: aggregate, compare, price, recommend.

Reads only what earlier stages wrote, so it can be repeated at any time without training or
answering. The seeds of a contender are aggregated here (see `ContenderResult`). A contender whose
seeds are not all done has no scores yet.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from tuneoff import environment
from tuneoff.bakeoff.baselines import collect_baselines
from tuneoff.bakeoff.budget import list_judges
from tuneoff.bakeoff.prepare import ResolvedBakeOff, load_model_graders
from tuneoff.contenders.base import load_contender
from tuneoff.contenders.latency import drop_warm_up, split_by_load, summarize_latency
from tuneoff.contenders.samples import compute_disagreement, list_scored
from tuneoff.contenders.variants import TrainingVariant, find_way, list_variants
from tuneoff.costs.accounting import Measurements, PricedContender, RunPricing, find_hosting
from tuneoff.costs.break_even import compute_break_evens
from tuneoff.costs.contender_prices import is_hosted
from tuneoff.costs.token_costs import sum_usd
from tuneoff.prompts import hash_content
from tuneoff.records import (
    SPLITS,
    Example,
    Prediction,
    PromptRecord,
    ScoredRow,
    Split,
    TrainingRecord,
)
from tuneoff.report.recommendation import recommend
from tuneoff.results import (
    TESTS_RULE,
    AllTrainings,
    Comparison,
    ContenderResult,
    CurvePoint,
    LatencyStats,
    Results,
    Score,
    UnreadReplies,
)
from tuneoff.scoring.aggregate import (
    Breakdown,
    aggregate,
    average_samples,
    average_seeds,
    build_learning_curve,
    compute_seed_values,
    count_error_classes,
)
from tuneoff.scoring.base import Options, ScoringInput, find_reason_left_out
from tuneoff.scoring.intervals import compute_wilson_interval
from tuneoff.scoring.llm_judge import Judge, find_unread_reply
from tuneoff.scoring.pairs import TESTS_VERSION, compare_all
from tuneoff.scoring.parity import list_not_worse
from tuneoff.scoring.selection import find_allowance
from tuneoff.storage.databases import hash_databases
from tuneoff.storage.resume import dump_resolved
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
    outcomes, left_out = _drop_unusable(
        {s.name: _load_outcomes(s, run.contender(s.name)) for s in parts.bakeoff.contenders},
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
    means = {name: _get_values(_average_rows(found), metric) for name, found in finished.items()}
    seeds = {
        name: [_get_values(each.rows, metric) for each in _select_whole(of)]
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
        judge_unread=_find_unread(
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


def _load_outcomes(settings: Any, contender: ContenderDir) -> list[TrainingOutcome]:
    outcomes = []
    for training in list_variants(settings):
        folder = training.directory(contender)
        samples, answers = list_scored(settings, folder), folder.answers()
        used = [answer for (_, sample), answer in answers.items() if sample < len(samples)]
        record, rows = folder.training(), average_samples(samples)
        outcomes.append(
            TrainingOutcome(training, folder, record, used, len(answers), samples, rows)
        )
    return outcomes


def _find_unread(
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


def _drop_unusable(
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


def _select_whole(outcomes: Sequence[TrainingOutcome]) -> list[TrainingOutcome]:
    """Return the outcomes of trainings on all examples: one, or one per seed."""
    return [outcome for outcome in outcomes if outcome.training.fraction == 1]


def _average_rows(outcomes: Sequence[TrainingOutcome]) -> dict[str, ScoredRow]:
    return average_seeds([outcome.rows for outcome in _select_whole(outcomes)])


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
    whole, rows = _select_whole(outcomes), _average_rows(outcomes)
    first = whole[0]
    training, scores = (
        _average_training(whole),
        _build_scores(parts, settings, rows, whole, clusters),
    )
    planned, decisive = directory.planned(), scores.get(metric)
    measured = Measurements(
        training=training,
        answering_seconds=_average_known([o.answering_seconds() for o in whole]),
        serving=_build_latency(settings, first, [p for o in whole for p in o.answers]),
        record=None if is_hosted(settings) else first.directory.serving(),
        times_answered=_count_answers(first),
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
        all_trainings=_sum_trainings(pricing, settings, outcomes),
        learning_curve=_build_curve(parts, outcomes, metric, clusters),
        loss=first.directory.loss(),
        cost=money.cost,
        serving=measured.serving,
    )
    return result, money


def _count_answers(outcome: TrainingOutcome) -> float:
    """Return the mean number of answers per example, with samples that no longer count: all of them
    were paid for."""
    firsts = sum(answer.sample == 0 for answer in outcome.answers)
    return outcome.answers_held / firsts if firsts else 1.0


def _find_common_rules(outcomes: Sequence[TrainingOutcome]) -> dict[str, int]:
    """Return each scoring rule's lowest version among the outcomes that were scored here."""
    scored = [outcome.directory.scoring_rules() for outcome in outcomes if outcome.rows]
    if not all(scored):  # some were scored before rules were counted
        return {}
    names = scored[0] if scored else {}
    return {name: min(rules.get(name, 1) for rules in scored) for name in names}


def _average_training(whole: Sequence[TrainingOutcome]) -> TrainingRecord | None:
    """Return the first seed's record with the mean seconds of one training."""
    record = whole[0].record
    if record is None or len(whole) == 1:
        return record
    return replace(record, seconds=_average_known([o.record.seconds for o in whole if o.record]))


def _sum_trainings(
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


def _build_latency(
    settings: Any, first: TrainingOutcome, predictions: Iterable[Prediction]
) -> LatencyStats:
    """Return a contender's latency, throughput and token counts."""
    answered = [p for p in predictions if p.error is None]
    timed = [p for p in answered if p.sample == 0]  # later samples find their prompts in a cache
    latency = (
        _build_provider_latency(settings, timed)
        if is_hosted(settings)
        else _load_own_latency(first, timed)
    )
    return replace(
        latency,
        tokens_in_mean=_average_known([p.tokens_in for p in answered]),
        tokens_out_mean=_average_known([p.tokens_out for p in answered]),
    )


def _load_own_latency(first: TrainingOutcome, answered: Iterable[Prediction]) -> LatencyStats:
    """Return an own model's measured latency; without one, the throughput of its answers."""
    record = first.directory.serving()
    if record is None:
        seconds = [p.seconds for p in answered if p.seconds is not None]
        rate = len(seconds) / (math.fsum(seconds) or 1) if seconds else None
        return LatencyStats(requests_per_second=rate)
    return LatencyStats(
        seconds_p50=record.seconds_p50,
        seconds_p95=record.seconds_p95,
        requests=record.alone or None,
        concurrency=1 if record.alone else None,
        requests_per_second=record.requests_per_second,
        backend=record.backend,
        agreement=record.agreement,
        compared=record.compared,
    )


def _build_provider_latency(settings: Any, answered: Iterable[Prediction]) -> LatencyStats:
    """Return a provider's latency, one request at a time and under the run's own load. The latter
    stands for both if no request was timed alone, or only the one that opens the connection."""
    alone, loaded = split_by_load(answered, settings.concurrency)
    under_load = summarize_latency([row.seconds or 0.0 for row in loaded])
    most = max((row.concurrency or settings.concurrency for row in loaded), default=None)
    latency, concurrency = under_load, most
    if len(alone) > 1 or not loaded:
        latency = summarize_latency(drop_warm_up(row.seconds or 0.0 for row in alone))
        concurrency = 1 if alone else None
    return LatencyStats(
        seconds_p50=latency.p50,
        seconds_p95=latency.p95,
        requests=latency.count or None,
        concurrency=concurrency,
        loaded_seconds_p50=under_load.p50,
        loaded_seconds_p95=under_load.p95,
        loaded_requests=under_load.count or None,
        loaded_concurrency=most,
        batch=settings.batch,
    )


def _hash_databases(options: Options, test: Sequence[Example]) -> dict[str, str]:
    if options.databases is None:
        return {}
    ids = {str(example.meta["db_id"]) for example in test}
    return hash_databases(options.databases, ids, options.derived)


def _sum_known(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _average_known(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
