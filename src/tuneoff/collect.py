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

from tuneoff import machine
from tuneoff.baselines import collect_baselines
from tuneoff.contenders import load_contender
from tuneoff.contenders.measuring import counted, divided, times
from tuneoff.contenders.samples import find_disagreement, list_scored
from tuneoff.contenders.trainings import Training, find_way, trainings
from tuneoff.costs.arithmetic import total_usd
from tuneoff.databases import database_hashes
from tuneoff.opening import resolved
from tuneoff.prepare import Parts, load_model_graders
from tuneoff.pricing import Measured, Priced, Pricing, place_of
from tuneoff.pricing.breakeven import break_evens
from tuneoff.prompts import content_sha256
from tuneoff.records import (
    SPLITS,
    Example,
    Prediction,
    PromptRecord,
    ScoredRow,
    Split,
    TrainingRecord,
)
from tuneoff.report.recommend import recommend
from tuneoff.results import (
    TESTS_RULE,
    AllTrainings,
    Comparison,
    ContenderResult,
    CurvePoint,
    Results,
    Score,
    Serving,
    UnreadReplies,
)
from tuneoff.rundir import ContenderDir, RunDir
from tuneoff.scoring import Options, Row
from tuneoff.scoring.aggregate import (
    Breakdown,
    aggregate,
    error_classes,
    over_samples,
    over_seeds,
    values_by_seed,
)
from tuneoff.scoring.curve import learning_curve
from tuneoff.scoring.intervals import wilson
from tuneoff.scoring.judge import Judge, unread_reply
from tuneoff.scoring.pairs import TESTS_VERSION, compare_all
from tuneoff.scoring.parity import list_not_worse
from tuneoff.scoring.rows import find_reason_left_out
from tuneoff.scoring.selection import find_allowance
from tuneoff.spending import judges, paid

# Max characters of a judge's reply that are stored for the report.
MOST_OF_A_REPLY = 500


@dataclass(frozen=True, slots=True)
class Outcome:
    """The stored results of one training of a contender.

    `samples` are the scored rows of each sample by example id, `rows` their means; `answers` are
    those of the samples that count, of `answers_held` in all.
    """

    training: Training
    directory: ContenderDir
    record: TrainingRecord | None
    answers: Sequence[Prediction]
    answers_held: int
    samples: Sequence[Mapping[str, ScoredRow]]
    rows: Mapping[str, ScoredRow]

    def answering_seconds(self) -> float | None:
        return _sum(p.seconds for p in self.answers)


def collect(
    parts: Parts,
    run: RunDir,
    examples: Mapping[Split, Sequence[Example]],
    options: Options,
    command: str,
) -> Results:
    """Return the results of a run, from its directory."""
    metric = parts.deciding_metric(options)
    test = examples["test"]
    clusters, pricing = _clusters(parts, test), Pricing(parts.bakeoff, run)
    outcomes, left_out = _used(
        {s.name: _outcomes(s, run.contender(s.name)) for s in parts.bakeoff.contenders}, options
    )
    known = _known_groups(parts, [e for e in test if e.id not in left_out], options)
    run.write_groups(known)
    groups = {e.id: {**e.meta, **known.get(e.id, {})} for e in test}
    results = [
        _contender(
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
    means = {name: _values(_rows(found), metric) for name, found in finished.items()}
    seeds = {
        name: [_values(each.rows, metric) for each in _whole(of)] for name, of in finished.items()
    }
    comparisons = _comparisons(parts, means, seeds, metric, clusters)
    baselines = collect_baselines(parts, run, metric, means, seeds, clusters, left_out)
    places = {c.name: c.place for c in contenders}
    leaving = parts.bakeoff.migrating_from
    margin = parts.bakeoff.requirements.margin_points / 100
    crossings = break_evens(priced, places, parts.bakeoff.serving.utilization)
    return Results(
        schema=1,
        name=parts.bakeoff.name,
        task=parts.bakeoff.task.id,
        source=parts.settings.source or str(parts.settings.train),
        primary_metric=metric,
        settings=resolved(parts.bakeoff),
        requirements=parts.bakeoff.requirements.model_dump(mode="json"),
        created=machine.now().isoformat(timespec="seconds"),
        command=command,
        split_sizes={split: len(examples[split]) for split in SPLITS},
        content_sha256=content_sha256(test),
        database_sha256=_databases(options, test),
        versions=machine.versions(),
        machine=machine.describe(),
        contenders=contenders,
        comparisons=comparisons,
        judge_usd=pricing.judge_usd(),
        judge_unread=_unread(parts, run, [each for found in finished.values() for each in found]),
        left_out={e.id: left_out[e.id] for e in test if e.id in left_out},
        rules={
            **_common_rules([found[0] for found in outcomes.values()]),
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


def _outcomes(settings: Any, contender: ContenderDir) -> list[Outcome]:
    outcomes = []
    for training in trainings(settings):
        folder = training.directory(contender)
        samples, answers = list_scored(settings, folder), folder.answers()
        used = [answer for (_, sample), answer in answers.items() if sample < len(samples)]
        record, rows = folder.training(), over_samples(samples)
        outcomes.append(Outcome(training, folder, record, used, len(answers), samples, rows))
    return outcomes


def _unread(parts: Parts, run: RunDir, outcomes: Sequence[Outcome]) -> UnreadReplies | None:
    """Return the unread replies of a judge, or else of a grader's model; None if all were read."""
    rows = [row for each in outcomes for sample in each.samples for row in sample.values()]
    asked = [(Judge.PRIMARY, None, partial(unread_reply, run.judgements, judge.model))
             for judge in judges(parts.bakeoff)]  # fmt: skip
    graders = [(grader.PRIMARY, grader.PRIMARY, partial(grader.find_unread, run.judgements))
               for grader in load_model_graders(parts.bakeoff)]  # fmt: skip
    for metric, grader, find in (*asked, *graders):
        unread = [row.id for row in rows if metric not in row.scores]
        if unread:
            id, reply = find(set(unread)) or (None, None)
            shown = None if reply is None else reply[:MOST_OF_A_REPLY]
            return UnreadReplies(len(unread), len(rows), id, shown, grader)
    return None


def _used(
    outcomes: Mapping[str, Sequence[Outcome]], options: Options
) -> tuple[dict[str, list[Outcome]], dict[str, str]]:
    """Return the outcomes without unusable rows, and why these rows are unusable. A reference that
    did not run for one contender counts for none."""
    left_out = dict(options.left_out)
    for outcome in (each for found in outcomes.values() for each in found):
        rows = (pair for sample in outcome.samples for pair in sample.items())
        reasons = {id: why for id, row in rows if (why := find_reason_left_out(row))}
        left_out |= {id: why for id, why in reasons.items() if id not in left_out}
    used = {name: [_without(each, left_out) for each in found] for name, found in outcomes.items()}
    return used, left_out


def _without(outcome: Outcome, left_out: Collection[str]) -> Outcome:
    samples = [
        {id: row for id, row in sample.items() if id not in left_out} for sample in outcome.samples
    ]
    return replace(outcome, samples=samples, rows=over_samples(samples))


def _whole(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return the outcomes of trainings on all examples: one, or one per seed."""
    return [outcome for outcome in outcomes if outcome.training.fraction == 1]


def _rows(outcomes: Sequence[Outcome]) -> dict[str, ScoredRow]:
    return over_seeds([outcome.rows for outcome in _whole(outcomes)])


def _contender(
    parts: Parts,
    settings: Any,
    directory: ContenderDir,
    outcomes: Sequence[Outcome],
    groups: Mapping[str, Mapping[str, Any]],
    metric: str,
    clusters: Mapping[str, str] | None,
    pricing: Pricing,
) -> tuple[ContenderResult, Priced]:
    """Return the results of one contender, and its costs."""
    whole, rows = _whole(outcomes), _rows(outcomes)
    first = whole[0]
    training, scores = _one_training(whole), _scores(parts, settings, rows, whole, clusters)
    planned, decisive = directory.planned(), scores.get(metric)
    measured = Measured(
        training=training,
        answering_seconds=_mean([o.answering_seconds() for o in whole]),
        serving=_serving(settings, first, [p for o in whole for p in o.answers]),
        record=None if paid(settings) else first.directory.serving(),
        times_answered=_times_answered(first),
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
        place=place_of(settings),
        data=getattr(settings, "data", None),
        ends=pricing.ends(settings),
        scores=scores,
        rules=first.directory.scoring_rules(),
        breakdowns=_breakdowns(
            parts, groups, rows, metric, clusters, len(whole), len(first.samples)
        ),
        error_classes=error_classes(
            first.samples[0].values(), metric, getattr(parts.scorer, "ERROR_CLASSES", None)
        ),
        training=training,
        samples=len(first.samples),
        samples_disagree=find_disagreement(first.samples, metric),
        seeds=tuple(o.training.seed for o in whole if o.training.seed is not None),
        all_trainings=_all_trainings(pricing, settings, outcomes),
        learning_curve=_curve(parts, outcomes, metric, clusters),
        loss=first.directory.loss(),
        cost=money.cost,
        serving=measured.serving,
    )
    return result, money


def _times_answered(outcome: Outcome) -> float:
    """Return the mean number of answers per example, with samples that no longer count: all of them
    were paid for."""
    firsts = sum(answer.sample == 0 for answer in outcome.answers)
    return outcome.answers_held / firsts if firsts else 1.0


def _common_rules(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """Return each scoring rule's lowest version among the outcomes that were scored here."""
    scored = [outcome.directory.scoring_rules() for outcome in outcomes if outcome.rows]
    if not all(scored):  # some were scored before rules were counted
        return {}
    names = scored[0] if scored else {}
    return {name: min(rules.get(name, 1) for rules in scored) for name in names}


def _one_training(whole: Sequence[Outcome]) -> TrainingRecord | None:
    """Return the first seed's record with the mean seconds of one training."""
    record = whole[0].record
    if record is None or len(whole) == 1:
        return record
    return replace(record, seconds=_mean([o.record.seconds for o in whole if o.record]))


def _all_trainings(
    pricing: Pricing, settings: Any, outcomes: Sequence[Outcome]
) -> AllTrainings | None:
    """Return the total of several trainings so far; None with one training."""
    records = [outcome.record for outcome in outcomes if outcome.record]
    if len(outcomes) == 1 or not records:
        return None
    training = _sum(record.seconds for record in records)
    answering = _sum(outcome.answering_seconds() for outcome in outcomes)
    cost = pricing.hours(settings, training, answering)
    return AllTrainings(len(records), training, answering, total_usd(cost))


def _curve(
    parts: Parts, outcomes: Sequence[Outcome], metric: str, clusters: Mapping[str, str] | None
) -> tuple[CurvePoint, ...]:
    """Return the learning curve: each fraction, and all examples with the same seed."""
    points = [o for o in outcomes if o.training.fraction < 1]
    measured = [
        (o.training.fraction, o.record.examples, o.rows)
        for o in (*points, outcomes[0])
        if points and o.record
    ]
    return learning_curve(measured, metric, parts.scorer.METRICS[metric], clusters)


def _scores(
    parts: Parts,
    settings: Any,
    rows: Mapping[str, ScoredRow],
    whole: Sequence[Outcome],
    clusters: Mapping[str, str] | None,
) -> dict[str, Score]:
    """Return a contender's scores by metric, measured or reported."""
    reported = getattr(settings, "scores", None)
    if reported is not None:
        return {metric: _reported(figure.value, figure.n) for metric, figure in reported.items()}
    if not rows:
        return {}
    errors = {p.id for o in whole for p in o.answers if p.error is not None and p.id in rows}
    trainings = [outcome.rows for outcome in whole]
    metrics = parts.scorer.METRICS
    seeds = {metric: values_by_seed(trainings, rows, metric) for metric in metrics}
    answers = len(whole[0].samples)
    found = aggregate(rows.values(), metrics, len(errors), clusters, seeds, answers)
    return {metric: found[metric] for metric in parts.metrics or tuple(found) if found[metric].n}


def _reported(value: float, n: int | None) -> Score:
    """Return a published score. It has bounds only where the number of examples is known."""
    if n is None:
        return Score(value=value, low=None, high=None, n=0)
    low, high = wilson(round(value * n), n)
    return Score(value=value, low=low, high=high, n=n)


def _known_groups(
    parts: Parts, test: Sequence[Example], options: Options
) -> dict[str, dict[str, str]]:
    """Return what the scorer knows of each test example beside its `meta`: a query's hardness."""
    known = getattr(parts.scorer, "groups", None)
    if known is None:
        return {}
    by_id = {e.id: known(Row(e.id, e.completion, "", e.meta), options) for e in test}
    return {id: groups for id, groups in by_id.items() if groups}


def _breakdowns(
    parts: Parts,
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


def _comparisons(
    parts: Parts,
    means: Mapping[str, Mapping[str, float]],
    seeds: Mapping[str, Sequence[Mapping[str, float]]],
    metric: str,
    clusters: Mapping[str, str] | None,
) -> tuple[Comparison, ...]:
    scored = {name: found for name, found in means.items() if found}
    margin = parts.bakeoff.requirements.margin_points / 100
    ways = {s.name: find_way(s, parts.bakeoff.folder) for s in parts.bakeoff.contenders}
    return compare_all(scored, metric, clusters, parts.cluster or "", seeds, margin, ways)


def _values(rows: Mapping[str, ScoredRow], metric: str) -> dict[str, float]:
    return {id: float(row.scores[metric]) for id, row in rows.items() if metric in row.scores}


def _clusters(parts: Parts, test: Sequence[Example]) -> dict[str, str] | None:
    """Return the cluster of each test example, for instance its database; None without clusters."""
    key = parts.cluster
    return {example.id: str(example.meta[key]) for example in test} if key else None


def _serving(settings: Any, first: Outcome, predictions: Iterable[Prediction]) -> Serving:
    """Return a contender's latency, throughput and token counts."""
    answered = [p for p in predictions if p.error is None]
    timed = [p for p in answered if p.sample == 0]  # later samples find their prompts in a cache
    latency = _provider_serving(settings, timed) if paid(settings) else _own(first, timed)
    return replace(
        latency,
        tokens_in_mean=_mean([p.tokens_in for p in answered]),
        tokens_out_mean=_mean([p.tokens_out for p in answered]),
    )


def _own(first: Outcome, answered: Iterable[Prediction]) -> Serving:
    """Return an own model's measured latency; without one, the throughput of its answers."""
    record = first.directory.serving()
    if record is None:
        seconds = [p.seconds for p in answered if p.seconds is not None]
        rate = len(seconds) / (math.fsum(seconds) or 1) if seconds else None
        return Serving(requests_per_second=rate)
    return Serving(
        seconds_p50=record.seconds_p50,
        seconds_p95=record.seconds_p95,
        requests=record.alone or None,
        concurrency=1 if record.alone else None,
        requests_per_second=record.requests_per_second,
        backend=record.backend,
        agreement=record.agreement,
        compared=record.compared,
    )


def _provider_serving(settings: Any, answered: Iterable[Prediction]) -> Serving:
    """Return a provider's latency, one request at a time and under the run's own load. The latter
    stands for both if no request was timed alone, or only the one that opens the connection."""
    alone, loaded = divided(answered, settings.concurrency)
    under_load = times([row.seconds or 0.0 for row in loaded])
    most = max((row.concurrency or settings.concurrency for row in loaded), default=None)
    latency, concurrency = under_load, most
    if len(alone) > 1 or not loaded:
        latency = times(counted(row.seconds or 0.0 for row in alone))
        concurrency = 1 if alone else None
    return Serving(
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


def _databases(options: Options, test: Sequence[Example]) -> dict[str, str]:
    if options.databases is None:
        return {}
    ids = {str(example.meta["db_id"]) for example in test}
    return database_hashes(options.databases, ids, options.derived)


def _sum(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
