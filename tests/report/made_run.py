"""A whole made-up run of SQL: five contenders, one of them failed, answers that are wrong in
several ways, result tables, breakdowns, losses, seeds, a learning curve, money."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from made_results import METRIC, contender, recommend, results, training

from tuneoff.records import LossRow, Prediction, ScoredRow
from tuneoff.results import (
    AllTrainings,
    BreakEven,
    ContenderResult,
    Cost,
    CurvePair,
    CurvePoint,
    LatencyStats,
    Score,
    Sensitivity,
)
from tuneoff.scoring.intervals import compute_wilson_interval
from tuneoff.scoring.pairs import compare_all
from tuneoff.storage.run_dir import RunDir

N = 60
LEVELS = ("easy", "medium", "hard", "extra")
SCHEMA = "CREATE TABLE hut (id INTEGER, name TEXT, height INTEGER, stove INTEGER);\n" * 3
RIGHT = {"full": 0.85, "lora-all-linear": 0.8, "lora-seed": 0.6, "prompted": 0.05}


def make(folder: Path, names: Sequence[str] = tuple(RIGHT)) -> RunDir:
    """Writes all but the reports."""
    run, rng = RunDir(folder), random.Random(1)
    run.write_examples("test", [_example(i) for i in range(N)])
    run.write_groups({f"huts-{i}": {"hardness": LEVELS[i % 4]} for i in range(N)})
    made = []
    rights = {}
    for place, name in enumerate(names):
        right = [rng.random() < RIGHT.get(name, 0.5) for _ in range(N)]
        _answers(run, name, right, tuned=name != "prompted")
        made.append(_contender(name, place, right))
        rights[name] = {f"huts-{i}": float(ok) for i, ok in enumerate(right)}
    failed = contender("hosted-broken", id="hosted", error="openai refused the key (401).")
    pairs = compare_all(rights, METRIC)
    crossings = (_break_even(names[0], names[-1]),) if len(names) > 1 else ()
    found = recommend([*made, failed], pairs, METRIC, None, crossings)
    run.write_results(
        results(
            [*made, failed],
            comparisons=pairs,
            break_even=crossings,
            recommendation=found,
            split_sizes={"train": 6_400, "validation": 20, "test": N},
        )
    )
    return run


def _example(i: int) -> dict[str, object]:
    inputs = {"question": f"How many huts above {i * 7} metres have a stove?", "context": SCHEMA}
    query = f"SELECT count(*) FROM hut WHERE height > {i * 7} AND stove = 1"
    meta = {"db_id": f"huts_{i % 3}"}
    return {"id": f"huts-{i}", "inputs": inputs, "completion": query, "meta": meta}


def _answers(run: RunDir, name: str, right: Sequence[bool], tuned: bool) -> None:
    folder = run.contender(name).seed(3) if name == "lora-seed" else run.contender(name)
    wrong = "SELECT count(*) FROM hut WHERE hight > {} OR stove = 1" if tuned else "How many? {}"
    verdict = "no such column: hight" if tuned else "syntax error"
    folder.append_predictions(
        Prediction(f"huts-{i}", str(_example(i)["completion"]) if ok else wrong.format(i * 7))
        for i, ok in enumerate(right)
    )
    folder.write_scores(
        ScoredRow(
            f"huts-{i}",
            {METRIC: ok, "exact_match": ok and i % 5 > 0, "valid_format": tuned or ok},
            "right" if ok else verdict,
        )
        for i, ok in enumerate(right)
    )
    folder.write_details([_details(i, i % 2 == 0) for i, ok in enumerate(right) if not ok])


def _details(i: int, ran: bool) -> dict[str, object]:
    reference = {"columns": ["count(*)"], "rows": [[i]], "column_count": 1, "row_count": 1}
    rows = [[j, f"Hut {j}", None, 1.5, *range(4)] for j in range(10)]
    wide = {"columns": list("abcdefgh"), "rows": rows, "column_count": 8, "row_count": 23}
    return {"id": f"huts-{i}", "reference": reference, "prediction": wide if ran else None}


def _contender(name: str, place: int, right: Sequence[bool]) -> ContenderResult:
    tuned = name != "prompted"
    count = sum(right)
    scores = {
        METRIC: _score(count),
        "exact_match": _score(sum(ok and i % 5 > 0 for i, ok in enumerate(right))),
        "valid_format": _score(N if tuned else count),
    }
    if name == "lora-seed":
        value = count / N
        scores[METRIC] = replace(scores[METRIC], by_seed=(value, value - 0.05, value + 0.05))
    return contender(
        name,
        id="local" if tuned else "prompted",
        place="own" if tuned else "provider",
        prompt_sha256="a" * 64,
        ends="2027-01-14" if not tuned else None,
        scores=scores,
        breakdowns={
            "hardness": _by(right, lambda i: LEVELS[i % 4]),
            "db_id": _by(right, lambda i: f"huts_{i % 3}"),
        },
        error_classes={"unknown column" if tuned else "does not parse": N - count},
        training=_training(place) if tuned else None,
        seeds=(3, 1, 2) if name == "lora-seed" else (),
        all_trainings=AllTrainings(3, 3_720.0, 60.0, 0.498) if name == "lora-seed" else None,
        learning_curve=_curve(count / N) if name == "full" else (),
        loss=_losses(place) if tuned else (),
        cost=_cost(place, tuned),
        serving=LatencyStats(0.0413 * (place + 1), 0.09, 24.3, 121.4, 19.8),
    )


def _score(count: int) -> Score:
    return Score(count / N, *compute_wilson_interval(count, N), N)


def _by(right: Sequence[bool], group: Callable[[int], str]) -> dict[str, dict[str, Score]]:
    found = {}
    for name in dict.fromkeys(group(i) for i in range(N)):
        of = [ok for i, ok in enumerate(right) if group(i) == name]
        found[name] = {
            METRIC: Score(sum(of) / len(of), *compute_wilson_interval(sum(of), len(of)), len(of))
        }
    return found


def _training(place: int) -> object:
    overfits = 200 if place == 1 else None
    made = training(verdict="still improving" if place == 0 else "converged")
    tokens = 104_729 * (place + 1)
    return replace(made, tokens_templated=tokens, best_step=150, overfitting_step=overfits)


def _losses(place: int) -> tuple[LossRow, ...]:
    def loss(step: int) -> float:
        rising = 0.004 * (step - 150) if place == 1 and step > 150 else 0.0
        return 2 / (1 + step / 50) + 0.1 * place + rising

    return tuple(LossRow(step, 32 * step, loss(step), loss(step)) for step in range(0, 301, 50))


def _curve(value: float) -> tuple[CurvePoint, ...]:
    return (
        CurvePoint(0.25, 1_600, value - 0.3, value - 0.4, value - 0.2),
        CurvePoint(0.5, 3_200, value - 0.2, value - 0.3, value - 0.1, 0.001),
        CurvePoint(1.0, 6_400, value, value - 0.1, value + 0.05, 0.0123),
    )


def _cost(place: int, tuned: bool) -> Cost:
    if not tuned:
        return Cost(None, None, None, 0.031, 0.42, None, 0.0004, "list price", ("a list",))
    usd = 0.0213 * (place + 1)
    basis = "134.2 s at 0.475 USD an hour"
    return Cost(usd, usd * 1.1, basis, 0.0041, 0.083, 12.5, 0.0001, basis, ("a price list",))


def _break_even(own: str, hosted: str) -> BreakEven:
    curve = tuple(CurvePair(10.0**n, 347.0, 0.00042 * 10.0**n) for n in range(3, 8))
    otherwise = (
        Sensitivity("utilization", 0.25, 1_650_000.0),
        Sensitivity("usd_per_hour", 2, None),
    )
    return BreakEven(own, hosted, 826_190.0, 0.5, 826_190.0, None, None, curve, otherwise)
