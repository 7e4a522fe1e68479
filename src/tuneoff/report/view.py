"""Results → the strings that both report formats show, as plain dicts.

Nothing is measured or computed here: every number is formatted from `results.json`. The templates
only place the strings. Contenders come best first, failed ones last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml

from tuneoff.records import TrainingRecord
from tuneoff.report import comparisons
from tuneoff.report import format as f
from tuneoff.report.baselines import render_baselines
from tuneoff.report.headline import render_headline
from tuneoff.report.labels import build_label_view, list_contradictions
from tuneoff.report.money import build_money_view
from tuneoff.report.tables import build_ladder, build_table, describe_methods, format_seeds
from tuneoff.results import AllTrainings, Comparison, ContenderResult, LatencyStats, Results

View = dict[str, Any]
MAX_CLASSES = 20
STEP_DOWN_NOTE = (
    "p is adjusted for the number of pairs (step-down). The interval in brackets belongs to "
    "it: it leaves out 0 exactly where p is under 0.05."
)
# For results of an earlier version.
HOLM_NOTE = (
    "p is adjusted for the number of pairs (Holm), and the verdict goes by it; the interval in "
    "brackets is the 95% one of that pair alone."
)
MAX_REPLY_LETTERS = 200
MAX_LEFT_OUT = 3
Column = tuple[str, Callable[[Any], str]]
SEEDS_NOTE = (
    "Of a contender with several seeds, training time and costs are the mean of one seed; the "
    "other figures of training, and the loss, are the first seed's."
)
VERDICT_NOTE = (
    "A training has converged when validation loss fell by less than 1% over the last tenth of it, "
    "each step counted by its learning rate: a curve that is flat only because the rate went to "
    "zero has not."
)
TIMED_NOTE = (
    "Times are of test prompts, one request at a time, the same prompts for every contender, "
    "unless a number says how many were asked at once. Under load: how a provider's model answered "
    "what was left of the test set."
)
END_VERDICTS = ("converged", "still improving")

TRAINING_ROWS: tuple[Column, ...] = (
    ("Trainable parameters", lambda t: f.count(t.trainable_parameters)),
    ("Examples", lambda t: f.count(t.examples)),
    ("Epochs", lambda t: f.number(t.epochs)),
    ("Steps", lambda t: f.count(t.steps)),
    ("Best step", lambda t: f.count(t.best_step)),
    ("Learning rate", lambda t: f.MISSING if t.learning_rate is None else f"{t.learning_rate:g}"),
    ("Tokens templated", lambda t: f.count(t.tokens_templated)),
    ("Tokens computed", lambda t: f.count(t.tokens_computed)),
    ("Tokens billed", lambda t: f.count(t.tokens_billed)),
    ("Training time", lambda t: f.seconds(t.seconds)),
    ("Peak memory", lambda t: f.size(t.peak_memory_bytes)),
    ("Verdict", lambda t: t.verdict or f.MISSING),
)
ALL_TRAININGS_ROWS: tuple[Column, ...] = (
    ("Trainings", lambda a: f.count(a.trainings)),
    ("Training time of all", lambda a: f.seconds(a.training_seconds)),
)
SERVING_ROWS: tuple[Column, ...] = (
    ("Median time to answer", lambda s: f.seconds(s.seconds_p50)),
    ("95% answered within", lambda s: f.seconds(s.seconds_p95)),
    ("Timed on", lambda s: _describe_timed_on(s)),
    ("Median under load", lambda s: _format_under_load(s, s.loaded_seconds_p50)),
    ("95% within, under load", lambda s: _format_under_load(s, s.loaded_seconds_p95)),
    ("Requests per second, saturated", lambda s: f.number(s.requests_per_second)),
    ("Mean tokens in", lambda s: f.number(s.tokens_in_mean)),
    ("Mean tokens out", lambda s: f.number(s.tokens_out_mean)),
    ("Answered with", lambda s: s.backend or f.MISSING),
    ("Same answers as transformers", lambda s: _format_agreement(s)),
)


def rank_contenders(results: Results) -> list[ContenderResult]:
    """Return the contenders, best first by the primary metric; those without a score last."""

    def rank(contender: ContenderResult) -> tuple[bool, float]:
        score = contender.scores.get(results.primary_metric)
        known = contender.error is None and score is not None and score.value is not None
        return (not known, -(score.value or 0.0) if score else 0.0)

    return sorted(results.contenders, key=rank)


def build_view(results: Results) -> View:
    """Return the whole report but charts and examples."""
    contenders = rank_contenders(results)
    return {
        "name": results.name,
        "subtitle": _build_subtitle(results),
        "answer": _build_answer(results),
        "metric": f.words(results.primary_metric),
        "names": [c.name for c in contenders],
        "scores": _build_scores(results, contenders),
        "baselines": describe_baselines(results),
        "repeated": describe_repeated_answers(contenders),
        "judge_unread": describe_unread_replies(results),
        "labels": build_label_view(results, contenders),
        "table": build_table(results, contenders, _find_shares(results)),
        "facts": _build_facts(results, contenders),
        "money": build_money_view(results, contenders),
        "pairs": _build_pairs(results),
        "ladder": build_ladder(contenders),
        "errors": _build_errors(contenders),
        "overfitting": any(_has_overfitting(c) for c in contenders),
        "how": _build_provenance(results),
        "prompts": [(c.name, c.prompt_sha256) for c in contenders if c.prompt_sha256],
        "rendered": [(c.name, c.rendered_sha256) for c in contenders if c.rendered_sha256],
        "templates": [(c.name, _describe_template(c)) for c in contenders if c.rendering_notes],
        "settings": yaml.safe_dump(dict(results.settings), sort_keys=False, allow_unicode=True)
        if results.settings
        else "",
    }


def _describe_template(contender: ContenderResult) -> str:
    """Return what was changed for a contender's chat template, as a sentence."""
    text = "; ".join(contender.rendering_notes)
    return f"{text[:1].upper()}{text[1:]}."


def _build_subtitle(results: Results) -> str:
    """Return the line under the title: task, source, test set and day."""
    test = results.split_sizes.get("test")
    tested = f"{f.count(test)} test examples" if test else ""
    parts = (f.words(results.task), results.source, tested, results.created[:10])
    return " · ".join(part for part in parts if part)


def _build_answer(results: Results) -> View:
    """Return the view of the recommendation."""
    recommendation = results.recommendation
    return {
        "headline": build_headline(results),
        "because": recommendation.because,
        "when_not": (*list_contradictions(results), *recommendation.when_not),
    }


def build_headline(results: Results) -> str:
    """Return the report's first sentence."""
    metric = results.primary_metric
    return render_headline(results.recommendation, metric, _is_share(results), results.baselines)


def describe_baselines(results: Results) -> str:
    """Return the sentence about answers without a model; empty without baselines."""
    return render_baselines(results.baselines, results.primary_metric, _is_share(results))


def _is_share(results: Results) -> bool:
    """Return whether the primary metric reads as percent."""
    return _find_shares(results).get(results.primary_metric, True)


def _find_shares(results: Results) -> dict[str, bool]:
    """Return the run's metrics, the primary one first, and whether each reads as percent."""
    scored = [c.scores for c in results.contenders if c.error is None]
    names = dict.fromkeys([results.primary_metric, *(m for scores in scored for m in scores)])
    return {
        m: f.is_share(*(scores[m].value for scores in scored if m in scores))
        for m in names
        if any(m in scores for scores in scored)
    }


def _build_scores(results: Results, contenders: Sequence[ContenderResult]) -> View:
    """Return the view of the table of scores."""
    shares = _find_shares(results)
    return {
        "metrics": [f.words(metric) for metric in shares],
        "there": bool(shares) or any(c.error for c in contenders),
        "seeds": any(c.seeds for c in contenders if not c.error),
        "rows": [_build_score_row(c, shares, results.recommendation.choice) for c in contenders],
    }


def describe_unread_replies(results: Results) -> str:
    """Return how many of a judge's replies could not be read, and quote one; empty if all could."""
    unread = results.judge_unread
    if unread is None:
        return ""
    counted = f"{f.count(unread.answers)} of {f.count(unread.of)}"
    quoted = ""
    if unread.reply is not None:
        reply = f.shorten(" ".join(f.clean(unread.reply).split()), MAX_REPLY_LETTERS)
        quoted = f" About {f.clean(unread.id or '')} it said: “{reply}”"
    if unread.grader is not None:
        return (
            f"The replies to the grader {f.words(unread.grader)} about {counted} answers gave no "
            f"result, so they are missing from its metrics.{quoted}"
        )
    return (
        f"The judge's replies about {counted} answers could not be read as A, B or TIE, so they "
        f"are missing from its metrics.{quoted}"
    )


def describe_repeated_answers(contenders: Sequence[ContenderResult]) -> list[str]:
    """Return a sentence per contender that answered several times: how much its answers differ."""
    sentences = []
    for c in contenders:
        if c.samples > 1 and c.error is None:
            sentence = (
                f"{f.clean(c.name)} answered each test example {c.samples} times: an example's "
                "score is the mean, and where one answer is shown, it is the first."
            )
            if c.samples_disagree is not None:
                share = f.percent(c.samples_disagree)
                sentence += f" For {share} of the examples the answers differ in their score."
            lacking = max((score.errors for score in c.scores.values()), default=0)
            if lacking:
                counted = f"{f.count(lacking)} example{'' if lacking == 1 else 's'}"
                sentence += f" For {counted} an answer is missing, which counts as wrong."
            sentences.append(sentence)
    return sentences


def _build_score_row(c: ContenderResult, shares: Mapping[str, bool], choice: str | None) -> View:
    """Return a contender's row of the table of scores."""
    cells: list[View] = []
    for metric, share in shares.items():
        score = c.scores.get(metric)
        cells.append(
            {
                "value": f.score(score.value, share) if score else f.MISSING,
                "interval": f.interval(score.low, score.high, share) if score else "",
                # Only with the first metric: the table would be too wide for a page.
                "seeds": format_seeds(score, share) if score and not cells else "",
            }
        )
    first = next((c.scores[metric] for metric in shares if metric in c.scores), None)
    return {
        "name": c.name,
        "chosen": c.name == choice,
        "error": c.error,
        "cells": cells,
        "n": f.count(first.n or None) if first else f.MISSING,
        "errors": f.count(first.errors) if first and first.n else f.MISSING,
    }


def _build_facts(results: Results, contenders: Sequence[ContenderResult]) -> list[View]:
    """Return tables of facts × contenders: training, answering. Empty rows are left out."""
    about = describe_methods(results)
    head = [
        ("Model", [c.model for c in contenders]),
        ("Method", [about[c.name] for c in contenders]),
    ]
    training = _build_rows(TRAINING_ROWS, [c.training for c in contenders])
    every = [c.all_trainings for c in contenders]
    groups = [
        ("Training", head + training + _build_rows(ALL_TRAININGS_ROWS, every)),
        ("Answering", _build_rows(SERVING_ROWS, [c.serving for c in contenders])),
    ]
    judged = any(c.training and c.training.verdict in END_VERDICTS for c in contenders)
    notes = [SEEDS_NOTE] * any(c.seeds for c in contenders) + [VERDICT_NOTE] * judged
    timed = any(c.serving.concurrency is not None for c in contenders)
    about_groups = {"Training": " ".join(notes), "Answering": TIMED_NOTE if timed else ""}
    return [
        {"title": title, "rows": rows, "note": about_groups[title]}
        for title, rows in groups
        if rows
    ]


def _build_rows(
    columns: Sequence[Column],
    records: Sequence[TrainingRecord | AllTrainings | LatencyStats | None],
) -> list[tuple[str, list[str]]]:
    """Return the rows of a table of facts."""
    rows = [(label, [show(r) if r else f.MISSING for r in records]) for label, show in columns]
    return [(label, cells) for label, cells in rows if set(cells) != {f.MISSING}]


def _describe_timed_on(serving: LatencyStats) -> str:
    """Return the requests that latency was measured on."""
    if serving.batch:
        return "nothing: it answered in batches"
    if not serving.requests or serving.concurrency is None:
        return f.MISSING
    how = f.at_once(serving.concurrency) or "one at a time"
    return f"{f.requests(serving.requests)}, {how}"


def _format_under_load(serving: LatencyStats, seconds: float | None) -> str:
    """Return a latency with its load."""
    if seconds is None:
        return f.MISSING
    return f"{f.seconds(seconds)} ({f.at_once(serving.loaded_concurrency)})"


def _format_agreement(serving: LatencyStats) -> str:
    """Return how many answers transformers gives too."""
    if serving.agreement is None or not serving.compared:
        return f.MISSING
    return f"{round(serving.agreement * serving.compared)} of {serving.compared}"


def _build_pairs(results: Results) -> View:
    """Return the view of the comparisons."""
    shares = _find_shares(results)
    rows = []
    for pair in results.comparisons:
        share = shares.get(pair.metric, True)
        words = comparisons.describe_comparison(pair, share)
        rows.append(
            {
                "words": words[0].upper() + words[1:] if words.startswith("no ") else words,
                "anew": comparisons.describe_training(pair, share),
                "metric": f.words(pair.metric),
                "p": f.p_value(pair.p_adjusted),
                "difference": f.difference(pair.difference, share),
                "interval": f.interval(*comparisons.select_bounds(pair), share),
                "a": pair.a,
                "b": pair.b,
                "verdict": _describe_verdict(pair),
            }
        )
    tests = dict.fromkeys(
        pair.test + (f" ({f.words(pair.cluster)})" if pair.cluster else "")
        for pair in results.comparisons
    )
    old = any(pair.units is None for pair in results.comparisons)
    return {
        "rows": rows,
        "test": ", ".join(tests),
        "explained": HOLM_NOTE if old else STEP_DOWN_NOTE,
        "training": comparisons.list_training_notes(
            results, shares.get(results.primary_metric, True)
        ),
        "flips": _list_flips(results),
    }


def _list_flips(results: Results) -> list[tuple[str, list[str]]]:
    """Return of each pair how many examples only one, both and none of the two have right."""
    return [
        (
            f"{pair.a}, {pair.b}",
            [f.count(n) for n in (of.only_a, of.only_b, of.both, of.none)],
        )
        for pair in results.comparisons
        if (of := pair.flips) is not None
    ]


def _describe_verdict(pair: Comparison) -> str:
    """Return the outcome of a pair in a few words."""
    if pair.verdict != "tie":
        return f"{pair.a if pair.verdict == 'a better' else pair.b} is better"
    if pair.outcome is None:
        return "tie"
    return comparisons.describe_same(pair) if pair.outcome == "same" else "cannot be told"


def _build_errors(contenders: Sequence[ContenderResult]) -> View:
    """Return the table of error classes × contenders, the most frequent first."""
    shown = [c for c in contenders if c.error_classes]
    total: dict[str, int] = {}
    for contender in shown:
        for name, times in contender.error_classes.items():
            total[name] = total.get(name, 0) + times
    classes = sorted(total, key=lambda name: (-total[name], name))
    return {
        "names": [c.name for c in shown],
        "rows": [
            (name, [f.count(c.error_classes.get(name, 0)) for c in shown])
            for name in classes[:MAX_CLASSES]
        ],
        "left_out": max(len(classes) - MAX_CLASSES, 0),
    }


def _has_overfitting(contender: ContenderResult) -> bool:
    """Return whether the chart of losses shows the onset of overfitting."""
    step = contender.training.overfitting_step if contender.training else None
    return any(row.step == step and row.validation is not None for row in contender.loss)


def _describe_left_out(results: Results) -> str:
    """Return which test examples no contender's scores have, and why."""
    if not results.left_out:
        return ""
    shown = [f"{id}: {why}" for id, why in list(results.left_out.items())[:MAX_LEFT_OUT]]
    more = ["…"] * (len(results.left_out) > MAX_LEFT_OUT)
    count, of = len(results.left_out), results.split_sizes.get("test")
    return (
        f"{f.count(count)} of {f.count(of)} test examples, for their references cannot be used: "
        + "; ".join([*shown, *more])
    )


def _build_provenance(results: Results) -> list[tuple[str, str]]:
    """Return what is needed to repeat the run."""
    databases = len(results.database_sha256)
    rows = [
        ("Task", results.task),
        ("Source", results.source),
        ("Examples", ", ".join(f"{k} {f.count(n)}" for k, n in results.split_sizes.items())),
        ("Left out", _describe_left_out(results)),
        ("Primary metric", results.primary_metric),
        ("Scoring rules", ", ".join(f"{f.words(name)} {n}" for name, n in results.rules.items())),
        ("Content SHA-256", results.content_sha256),
        ("Databases", f"{f.count(databases)}, hashes in results.json" if databases else ""),
        ("Versions", ", ".join(f"{name} {v}" for name, v in results.versions.items())),
        ("Machine", results.machine),
        ("Created", results.created),
        ("To repeat it", results.command),
    ]
    return [(label, value) for label, value in rows if value]
