"""Constructed records for the report's tests, and hostile text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tuneoff.records import Prediction, ScoredRow, TrainingRecord
from tuneoff.report.recommendation import recommend as made_recommendation
from tuneoff.results import Comparison, ContenderResult, Recommendation, Results, Score
from tuneoff.storage.run_dir import RunDir

METRIC = "execution_accuracy"
HOSTILE = "<script>alert(1)</script>\n```\n# heading | cell\n~~~\n\x00\x1b[31m \u202e <img src=http://x.y/z>"


def score(value: float | None, n: int = 40) -> Score:
    if value is None:
        return Score(None, None, None, n)
    return Score(value, round(value - 0.05, 4), round(value + 0.05, 4), n, errors=3)


def contender(name: str, value: float | None = None, **fields: object) -> ContenderResult:
    made = ContenderResult(name, "local", "base/model")
    if value is not None:
        made = replace(made, scores={METRIC: score(value), "exact_match": score(value / 2)})
    return replace(made, **fields)  # type: ignore[arg-type]


def training(parameters: int | None = 1_000, verdict: str = "converged") -> TrainingRecord:
    return TrainingRecord(
        examples=6_400,
        epochs=1.5,
        steps=300,
        tokens_raw=800_001,
        tokens_templated=1_650_321,
        tokens_billed=None,
        tokens_computed=532_110,
        seconds=134.2,
        peak_memory_bytes=734 * 2**20,
        best_step=2,
        overfitting_step=None,
        verdict=verdict,
        trainable_parameters=parameters,  # type: ignore[arg-type]
    )


def pair(a: str, b: str, verdict: str, difference: float = 0.125, p: float = 0.0003) -> Comparison:
    return Comparison(
        a,
        b,
        METRIC,
        difference,
        difference - 0.044,
        difference + 0.044,
        p / 2,
        p,
        "exact McNemar",
        None,
        verdict,  # type: ignore[arg-type]
    )


def results(contenders: Sequence[ContenderResult], **fields: object) -> Results:
    made = Results(
        schema=1,
        name="demo",
        task="text_to_sql",
        source="sample",
        primary_metric=METRIC,
        settings={
            "contenders": [
                {
                    "name": "lora",
                    "id": "local",
                    "method": "lora",
                    "lora": {"r": 16, "target_modules": "all-linear"},
                }
            ]
        },
        requirements={},
        created="2026-11-23T20:59:02+00:00",
        command="tuneoff run bakeoff.yaml",
        split_sizes={"train": 6_400, "validation": 20, "test": 40},
        content_sha256="c" * 64,
        database_sha256={"db": "d" * 64},
        versions={"tuneoff": "0.1.0"},
        machine="2 cores",
        contenders=tuple(contenders),
    )
    return replace(made, **fields)  # type: ignore[arg-type]


def write_answers(run: RunDir, name: str, right: Sequence[bool], wrong: str = HOSTILE) -> None:
    """Predictions and scores of one contender; `right` has one flag for each test example."""
    folder = run.contender(name)
    folder.append_predictions(
        Prediction(f"e{i}", f"SELECT {i}" if ok else wrong) for i, ok in enumerate(right)
    )
    folder.write_scores(
        ScoredRow(f"e{i}", {METRIC: ok}, "right" if ok else "unknown column")
        for i, ok in enumerate(right)
    )


def recommend(
    contenders: Sequence[ContenderResult], pairs: Sequence[Comparison], *given: Any, **named: Any
) -> Recommendation:
    """The recommendation where the best may be ahead by the one-sided 10% bound of the pair alone:
    1.28 standard errors, of which its interval is twice 1.96 wide."""

    def allow(name: str, best: str, names: Sequence[str]) -> float:
        (pair,) = (p for p in pairs if {p.a, p.b} == {name, best})
        assert {name, best} <= set(names)
        assert pair.low is not None
        assert pair.high is not None
        return (pair.high - pair.low) * 1.2816 / (2 * 1.96)

    return made_recommendation(contenders, pairs, *given, allowance=allow, **named)
