"""From a run directory to `Results`: aggregate, compare, price, recommend.

Reads only what earlier stages wrote, so it can be done again at any time without training
or answering anything.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tuneoff import machine
from tuneoff.contenders import load_contender
from tuneoff.costs.arithmetic import own_cost
from tuneoff.databases import database_hashes
from tuneoff.prepare import Parts
from tuneoff.prompts import content_sha256
from tuneoff.records import (
    SPLITS,
    Comparison,
    ContenderResult,
    Example,
    Prediction,
    Results,
    Score,
    ScoredRow,
    Serving,
    Split,
)
from tuneoff.report.recommend import recommend
from tuneoff.rundir import ContenderDir, RunDir, resolved
from tuneoff.scoring import Options, primary_metric
from tuneoff.scoring.aggregate import aggregate, error_classes
from tuneoff.scoring.statistics import compare_all, wilson

MOST_GROUPS = 24


def collect(
    parts: Parts,
    run: RunDir,
    examples: Mapping[Split, Sequence[Example]],
    options: Options,
    command: str,
) -> Results:
    """Everything about a run, from its directory."""
    metric = parts.settings.metrics[0] if parts.settings.metrics else None
    metric = metric or primary_metric(parts.scorer, options)
    test = examples["test"]
    contenders = tuple(
        _contender(parts, settings, run.contender(settings.name), test, metric)
        for settings in parts.bakeoff.contenders
    )
    comparisons = _comparisons(parts, run, test, metric)
    return Results(
        schema=1,
        name=parts.bakeoff.name,
        task=parts.bakeoff.task.id,
        source=parts.settings.source or str(parts.settings.train),
        primary_metric=metric,
        settings=resolved(parts.bakeoff),
        requirements=parts.bakeoff.requirements.model_dump(mode="json"),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        command=command,
        split_sizes={split: len(examples[split]) for split in SPLITS},
        content_sha256=content_sha256(test),
        database_sha256=_databases(options, test),
        versions=machine.versions(),
        machine=machine.describe(),
        contenders=contenders,
        comparisons=comparisons,
        recommendation=recommend(contenders, comparisons, metric),
    )


def _contender(
    parts: Parts,
    settings: Any,
    directory: ContenderDir,
    test: Sequence[Example],
    metric: str,
) -> ContenderResult:
    kind = load_contender(settings.id)
    predictions, rows = directory.predictions(), directory.scores()
    training = directory.training()
    answering_seconds = _sum(p.seconds for p in predictions.values())
    return ContenderResult(
        name=settings.name,
        id=settings.id,
        model=kind.model_name(settings),
        prompt_sha256=directory.prompt_sha256(),
        error=directory.error(),
        scores=_scores(parts, settings, rows, predictions),
        breakdowns=_breakdowns(parts, test, rows, metric),
        error_classes=error_classes(rows.values()),
        training=training,
        loss=directory.loss(),
        cost=own_cost(
            getattr(settings, "hardware", None),
            training.seconds if training else None,
            answering_seconds,
        ),
        serving=_serving(predictions),
    )


def _scores(
    parts: Parts,
    settings: Any,
    rows: Mapping[str, ScoredRow],
    predictions: Mapping[str, Prediction],
) -> dict[str, Score]:
    reported = getattr(settings, "scores", None)
    if reported is not None:
        return {metric: _reported(figure.value, figure.n) for metric, figure in reported.items()}
    if not rows:
        return {}
    errors = sum(prediction.error is not None for prediction in predictions.values())
    found = aggregate(rows.values(), parts.scorer.METRICS, errors)
    wanted = parts.settings.metrics or tuple(found)
    return {metric: found[metric] for metric in wanted if found[metric].n}


def _reported(value: float, n: int | None) -> Score:
    """A published figure; bounds only where it says over how many examples."""
    if n is None:
        return Score(value=value, low=None, high=None, n=0)
    low, high = wilson(round(value * n), n)
    return Score(value=value, low=low, high=high, n=n)


def _breakdowns(
    parts: Parts, test: Sequence[Example], rows: Mapping[str, ScoredRow], metric: str
) -> dict[str, dict[str, dict[str, Score]]]:
    """The primary metric by every `meta` key that has a handful of values."""
    if not rows:
        return {}
    found: dict[str, dict[str, dict[str, Score]]] = {}
    kinds = {metric: parts.scorer.METRICS[metric]}
    for key in sorted({key for example in test for key in example.meta}):
        groups = Counter(str(example.meta[key]) for example in test if key in example.meta)
        if not 1 < len(groups) <= MOST_GROUPS:
            continue
        found[key] = {
            group: aggregate(
                [rows[e.id] for e in test if str(e.meta.get(key)) == group and e.id in rows], kinds
            )
            for group in sorted(groups)
        }
    return found


def _comparisons(
    parts: Parts, run: RunDir, test: Sequence[Example], metric: str
) -> tuple[Comparison, ...]:
    values = {}
    for settings in parts.bakeoff.contenders:
        directory = run.contender(settings.name)
        rows = directory.scores() if directory.error() is None else {}
        scored = {id: float(row.scores[metric]) for id, row in rows.items() if metric in row.scores}
        if scored:
            values[settings.name] = scored
    key = parts.task.CLUSTER
    clusters = {example.id: str(example.meta[key]) for example in test} if key else None
    return compare_all(values, metric, clusters, key or "")


def _serving(predictions: Mapping[str, Prediction]) -> Serving:
    """Throughput and answer lengths. Latency is not measured while answering in batches."""
    answered = [p for p in predictions.values() if p.error is None]
    seconds = _sum(p.seconds for p in answered)
    return Serving(
        requests_per_second=len(answered) / seconds if seconds else None,
        tokens_in_mean=_mean([p.tokens_in for p in answered]),
        tokens_out_mean=_mean([p.tokens_out for p in answered]),
    )


def _databases(options: Options, test: Sequence[Example]) -> dict[str, str]:
    if options.databases is None:
        return {}
    return database_hashes(options.databases, sorted({str(e.meta["db_id"]) for e in test}))


def _sum(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _mean(values: Sequence[int | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
