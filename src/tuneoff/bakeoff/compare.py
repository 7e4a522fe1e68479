"""Compares finished runs: how the same contenders did in each, and whether any got worse.

The first run is the baseline. A contender is compared with the one of the same name there, on the
test examples that are the same in both (by their content), with the tests that compare contenders
of one run. p-values are adjusted over all of them. Runs that share no name are compared by their
recommended contenders.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tuneoff.contenders.samples import list_scored
from tuneoff.contenders.variants import find_way, list_variants
from tuneoff.errors import ConfigError, DataError
from tuneoff.records import from_dict
from tuneoff.report import comparisons
from tuneoff.report.parity import describe_change
from tuneoff.results import TESTS_RULE, ContenderResult, Results, SeedSpread
from tuneoff.scoring.aggregate import average_samples, average_seeds
from tuneoff.scoring.equivalence import DEFAULT_MARGIN
from tuneoff.scoring.paired import KnownSeeds, Pair
from tuneoff.scoring.parity import judge_parity
from tuneoff.scoring.training_variance import Way, find_seeds
from tuneoff.storage.resume import load_stored_bakeoff
from tuneoff.storage.run_dir import ContenderDir, RunDir
from tuneoff.tasks.base import load_task

Values = dict[str, float]
# The verdict on a contender now (a), compared with itself before (b).
VERDICTS = {"better": "better", "worse": "worse", "same": "tie", "cannot be told": "tie"}


@dataclass(frozen=True, slots=True)
class ScoredRun:
    """A finished run with the scores of its examples."""

    label: str
    results: Results
    values: Mapping[str, Values]
    """The primary metric by contender, then by example id."""
    seeds: Mapping[str, Sequence[Values]]
    """The same of each training."""
    ways: Mapping[str, Way | None]
    """How each contender was trained, by name."""
    hashes: Mapping[str, str]
    """The content hash of each test example."""
    clusters: Mapping[str, str] | None
    """The cluster of each test example; None without clusters."""
    cluster: str
    """The key of `meta` that clusters are by; empty without clusters."""


def compare_runs(folders: Sequence[Path | str]) -> dict[str, Any]:
    """Compare finished runs with the first of them, the baseline.

    Returns:
        `metric`; `runs` (`run`, `name`, `created`, `examples`, `rules`); `warnings`; `contenders`
            (`name`, `runs`: for each run its scores and costs, or null); `changes` (`contender`,
            `before`, `run`, `verdict` better, worse, tie or failed, `difference` now minus before,
            its bounds and test, null where it failed, `training` as in `Comparison`, `is_not_worse`
            and `p_not_worse` as in `Parity`, `sentence`); `notes` on new trainings; `worse`,
            whether one of them is worse or failed.

    Raises:
        ConfigError, RunDirectoryError: a folder holds no finished run, or they cannot be compared.
        DataError: they have no test example in common.
    """
    if len(folders) < 2:
        raise ConfigError("compare takes two run directories or more, the baseline first.")
    runs = [read_scored_run(Path(folder)) for folder in folders]
    baseline, metric = runs[0], runs[0].results.primary_metric
    for run in runs[1:]:
        if run.results.primary_metric != metric:
            raise ConfigError(
                f"{run.label} is judged by {run.results.primary_metric}, {baseline.label} by "
                f"{metric}; name the same metric first in task.metrics, and run them again."
            )
    names = dict.fromkeys(c.name for run in runs for c in run.results.contenders)
    between = find_known_seeds(runs)
    pairs_and_failures = [
        each for run in runs[1:] for each in _find_changes(baseline, run, between)
    ]
    changes = list(_judge_changes(pairs_and_failures, runs))
    return {
        "metric": metric,
        "runs": [
            {"run": run.label, "name": run.results.name, "created": run.results.created,
             "examples": len(run.hashes), "rules": dict(run.results.rules)}
            for run in runs
        ],
        "contenders": [
            {"name": name, "runs": [_build_cell(run.results, name) for run in runs]}
            for name in names
        ],
        "changes": changes,
        "notes": _list_training_notes(runs, changes, between),
        "warnings": _find_warnings(baseline, runs[1:]),
        "worse": any(change["verdict"] in ("worse", "failed") for change in changes),
    }  # fmt: skip


def _find_warnings(baseline: ScoredRun, others: Sequence[ScoredRun]) -> list[str]:
    """Return a warning for each run that was scored by other rules than the baseline."""
    return [
        f"{run.label} and {baseline.label} were scored by different rules (docs/scoring.md): run "
        "the older one again, which only scores what it has."
        for run in others
        if _select_scoring_rules(run.results) != _select_scoring_rules(baseline.results)
    ]


def _select_scoring_rules(results: Results) -> dict[str, int]:
    """Return the rules that made the scores. Those of tests do not count, which are made again
    here."""
    return {name: version for name, version in results.rules.items() if name != TESTS_RULE}


def read_scored_run(folder: Path, metric: str | None = None) -> ScoredRun:
    """Return a finished run with its scores by a metric. Default: its primary one.

    Raises:
        RunDirectoryError: the folder holds none.
    """
    run = RunDir(folder)
    results = run.results()
    bakeoff, metric = load_stored_bakeoff(folder), metric or results.primary_metric
    cluster = bakeoff.task.cluster or load_task(bakeoff.task.id, bakeoff.folder).CLUSTER
    test = run.examples("test")
    values, seeds, ways = {}, {}, {}
    for settings in bakeoff.contenders:
        scored = (
            average_samples(list_scored(settings, each)) for each in list_whole_dirs(run, settings)
        )
        used = ({id: r for id, r in of.items() if id not in results.left_out} for of in scored)
        rows = [found for found in used if found]
        ways[settings.name] = find_way(settings, bakeoff.folder)
        seeds[settings.name] = [_get_values(each, metric) for each in rows]
        values[settings.name] = _get_values(average_seeds(rows), metric) if rows else {}
    return ScoredRun(
        label=str(folder),
        results=results,
        values=values,
        seeds=seeds,
        ways=ways,
        hashes={example.id: example.sha256() for example in test},
        clusters={e.id: str(e.meta.get(cluster)) for e in test} if cluster else None,
        cluster=cluster or "",
    )


def list_whole_dirs(run: RunDir, settings: Any) -> list[ContenderDir]:
    """Return the directories of a contender's trainings on all examples."""
    return [
        each.get_dir(run.contender(settings.name))
        for each in list_variants(settings)
        if each.fraction == 1
    ]


def find_known_seeds(runs: Sequence[ScoredRun]) -> dict[str, KnownSeeds]:
    """Return the seeds that show each contender's variation between trainings, by label.

    A run's own test set decides, whether or not another run has the same.
    """
    return find_seeds(
        {format_label(run, name): way for run in runs for name, way in run.ways.items()},
        {format_label(run, name): of for run in runs for name, of in run.seeds.items()},
    )


def format_label(run: ScoredRun, name: str) -> str:
    """Return a name that is different for contenders of different runs."""
    return f"{name} ({run.label})"


def _get_values(rows: Mapping[str, Any], metric: str) -> Values:
    """Return the values of one metric by example id."""
    return {id: float(row.scores[metric]) for id, row in rows.items() if metric in row.scores}


def _build_cell(results: Results, name: str) -> dict[str, Any] | None:
    """Return the score and costs of a contender in one run; None where it has none."""
    contender = _find_contender(results, name)
    if contender is None:
        return None
    score = contender.scores.get(results.primary_metric)
    return {
        "value": score.value if score else None,
        "low": score.low if score else None,
        "high": score.high if score else None,
        "training_seconds": contender.training.seconds if contender.training else None,
        "training_usd": contender.cost.training_usd,
        "error": contender.error,
    }


def _find_contender(results: Results, name: str | None) -> ContenderResult | None:
    """Return the contender of a name; None where there is none."""
    return next((c for c in results.contenders if c.name == name), None)


def _list_training_notes(
    runs: Sequence[ScoredRun],
    changes: Sequence[Mapping[str, Any]],
    between: Mapping[str, KnownSeeds],
) -> list[str]:
    """Return sentences on the variation between trainings, known and unknown."""
    known: dict[str, SeedSpread] = {}
    unknown: dict[str, Way] = {}
    by_label = {run.label: run for run in runs}
    for change in changes:
        if change["verdict"] == "failed":
            continue
        for key, run, name in (
            ("seeds_a", by_label[change["run"]], change["contender"]),
            ("seeds_b", runs[0], change["before"]),
        ):
            way, spread = run.ways.get(name), (change.get("training") or {}).get(key)
            if spread is not None:
                known[format_label(run, name)] = from_dict(SeedSpread, spread)
            elif way and between[format_label(run, name)] is None:
                unknown[name] = way
    notes = comparisons.describe_spreads(known)
    if unknown:
        seeds = any(kind == "local" for kind, *_ in unknown.values())
        notes.append(comparisons.describe_unknown(list(unknown), seeds))
    return notes


def _find_changes(
    baseline: ScoredRun, run: ScoredRun, between: Mapping[str, KnownSeeds]
) -> Iterator[dict[str, Any]]:
    """Yield the change of each contender that both runs have, or of their choices."""
    same = [id for id, digest in run.hashes.items() if baseline.hashes.get(id) == digest]
    if not same:
        raise DataError(
            f"{run.label} and {baseline.label} have no test example in common; compare runs on the "
            "same test set."
        )
    both = [c for c in run.results.contenders if c.name in baseline.values or c.error]
    names = [(c.name, c.name) for c in both]
    chosen = (baseline.results.recommendation.choice, run.results.recommendation.choice)
    if not names:
        if chosen[0] is None or chosen[1] is None:
            raise ConfigError(
                f"{run.label} and {baseline.label} have no contender of the same name, and not "
                "both recommend one; there is nothing to compare."
            )
        names = [(chosen[0], chosen[1])]
    for before, now in names:
        change = _find_change(baseline, run, before, now, same, between)
        if change is not None:
            yield {"contender": now, "before": before, "run": run.label, **change}


def _find_change(
    baseline: ScoredRun,
    run: ScoredRun,
    before: str,
    now: str,
    same: Sequence[str],
    between: Mapping[str, KnownSeeds],
) -> dict[str, Any] | None:
    """Return one contender's change; None where there was nothing before."""
    old, new = baseline.values.get(before, {}), run.values.get(now, {})
    common = [id for id in same if id in old and id in new]
    contender = _find_contender(run.results, now)
    if contender is not None and contender.error:
        return {"pair": None, "error": contender.error}
    if old and not new:
        return {"pair": None, "error": f"it has no answers in {run.label}"}
    if not common:
        return None
    pair = Pair(
        now,
        before,
        {id: new[id] for id in common},
        {id: old[id] for id in common},
        keep_complete(run.seeds[now], common),
        keep_complete(baseline.seeds[before], common),
        between[format_label(run, now)],
        between[format_label(baseline, before)],
    )
    return {"pair": pair, "examples": len(common)}


def keep_complete(seeds: Sequence[Values], ids: Sequence[str]) -> list[Values]:
    """Return the trainings that answered all of these examples."""
    return [scores for scores in seeds if all(id in scores for id in ids)]


def _judge_changes(
    changes: Sequence[dict[str, Any]], runs: Sequence[ScoredRun]
) -> Iterator[dict[str, Any]]:
    """Yield the changes with verdicts and sentences, their p-values adjusted over all of them."""
    clusters: dict[str, str] | None = None
    for run in runs:
        if run.clusters is not None:
            clusters = {**run.clusters, **(clusters or {})}
    compared = [change["pair"] for change in changes if change["pair"]]
    cluster = next((run.cluster for run in runs if run.cluster), "")
    metric = runs[0].results.primary_metric
    margin = runs[0].results.requirements.get("margin_points", 100 * DEFAULT_MARGIN) / 100
    judged = iter(judge_parity(compared, metric, clusters, cluster, margin))
    for change in changes:
        who = change["contender"]
        if change["before"] != who:
            who = f"{who} (before: {change['before']})"
        kept = {k: v for k, v in change.items() if k not in ("pair", "error")}
        if change["pair"] is None:
            sentence = f"{who} failed: {change['error']}"
            yield {**kept, "verdict": "failed", "sentence": sentence}
            continue
        parity = next(judged)
        figures = {k: v for k, v in asdict(parity.pair).items() if k not in ("a", "b", "metric")}
        yield {
            **kept,
            **figures,
            "is_not_worse": parity.is_not_worse,
            "p_not_worse": parity.p_not_worse,
            "verdict": VERDICTS[parity.outcome],
            "sentence": f"{who}: {describe_change(parity)}",
        }
