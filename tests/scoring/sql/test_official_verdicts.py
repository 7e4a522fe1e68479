"""Spider itself: the official evaluator's verdicts one by one, and references that are right."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tuneoff.scoring.base import Options, ScoringInput, ScoringMode
from tuneoff.scoring.sql.official import (
    is_ordered,
    is_same_result,
    prepare_executed,
    prepare_prediction,
)
from tuneoff.scoring.sql.sandbox import QueryStopped, connect, select
from tuneoff.scoring.sql.scorer import METRICS, score_rows
from tuneoff.scoring.sql.set_match import classify_hardness
from tuneoff.scoring.sql.spider_parser import parse_spider


@pytest.fixture(scope="module")
def sample(data_dir: Path) -> list[dict[str, Any]]:
    path = data_dir / "spider" / "official_verdicts_sample.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def options(data_dir: Path, mode: ScoringMode) -> Options:
    return Options(data_dir / "spider" / "databases", mode=mode, time_limit_seconds=30)


def database(data_dir: Path, db_id: str) -> str:
    return str(data_dir / "spider" / "databases" / db_id / f"{db_id}.sqlite")


def test_official_mode_agrees_with_every_official_verdict(
    data_dir: Path, sample: list[dict[str, Any]]
) -> None:
    rows = [
        ScoringInput(str(v["index"]), v["gold"], v["pred"], {"db_id": v["db_id"]}) for v in sample
    ]
    found = list(score_rows(rows, options(data_dir, "official")))
    assert len(found) == 1034
    for metric, key in (
        ("execution_accuracy", "official_exec"),
        ("exact_set_match", "official_exact_set_match"),
    ):
        ours = [row.scores[metric] for row in found]
        theirs = [verdict[key] for verdict in sample]
        assert [
            i for i, pair in enumerate(zip(ours, theirs, strict=True)) if len({*pair}) > 1
        ] == []


def test_results_also_agree_when_distinct_is_kept(
    data_dir: Path, sample: list[dict[str, Any]]
) -> None:
    for verdict in sample:
        opened = connect(database(data_dir, verdict["db_id"]), drop_undecodable=True)
        gold = prepare_executed(verdict["gold"], keep_distinct=True)
        answer = prepare_executed(prepare_prediction(verdict["pred"]), keep_distinct=True)
        expected = select(opened, gold, 30, 100_000).rows
        try:
            given = select(opened, answer, 30, 100_000).rows
            same = is_same_result(expected, given, is_ordered(gold))
        except QueryStopped:
            same = False
        assert same is verdict["official_exec_keep_distinct"], verdict["index"]


def test_hardness_agrees(data_dir: Path, sample: list[dict[str, Any]]) -> None:
    for verdict in sample:
        columns = connect(database(data_dir, verdict["db_id"])).columns.by_table
        assert classify_hardness(parse_spider(verdict["gold"], columns)) == verdict["hardness"], (
            verdict["index"]
        )


def test_foreign_keys_are_those_of_the_schema_file_but_in_four(data_dir: Path) -> None:
    """docs/scoring.md names the four; none is one of the development set's."""
    differ = []
    for schema in json.loads((data_dir / "spider" / "tables.json").read_text(encoding="utf-8")):
        path = Path(database(data_dir, schema["db_id"]))
        if not path.is_file():
            continue
        tables = schema["table_names_original"]
        names = [
            f"{tables[table]}.{name}".lower() for table, name in schema["column_names_original"]
        ]
        expected = {frozenset((names[a], names[b])) for a, b in schema["foreign_keys"]}
        if expected != {frozenset(pair) for pair in connect(str(path)).columns.foreign_keys}:
            differ.append(schema["db_id"])
    assert sorted(differ) == ["cre_Drama_Workshop_Groups", "loan_1", "musical", "store_product"]


def test_a_strict_verdict_is_never_milder_than_the_official_one(
    data_dir: Path, sample: list[dict[str, Any]]
) -> None:
    rows = [
        ScoringInput(str(v["index"]), v["gold"], v["pred"], {"db_id": v["db_id"]}) for v in sample
    ]
    found = list(score_rows(rows, options(data_dir, "strict")))
    for metric, key in (
        ("execution_accuracy", "official_exec"),
        ("exact_set_match", "official_exact_set_match"),
    ):
        ours = [bool(row.scores[metric]) for row in found]
        milder = [v["pred"] for v, o in zip(sample, ours, strict=True) if o and not v[key]]
        assert milder == []
        assert sum(ours) > 300


def _create_context_golds(data_dir: Path) -> Iterator[tuple[str, str]]:
    path = data_dir / "spider_create_context" / "validation.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        yield row["answer"], row["db_id"]


def _dev_golds(data_dir: Path) -> Iterator[tuple[str, str]]:
    for line in (data_dir / "spider" / "dev_gold.tsv").read_text(encoding="utf-8").splitlines():
        sql, _, db_id = line.rpartition("\t")
        yield sql, db_id.strip()


@pytest.mark.parametrize("golds", [_create_context_golds, _dev_golds])
@pytest.mark.parametrize("mode", ["strict", "official"])
def test_every_reference_scores_one_by_every_metric(
    data_dir: Path, golds: Any, mode: ScoringMode
) -> None:
    rows = [
        ScoringInput(str(i), sql, sql, {"db_id": db}) for i, (sql, db) in enumerate(golds(data_dir))
    ]
    found = list(score_rows(rows, options(data_dir, mode)))
    assert len(found) == (568 if golds is _create_context_golds else 1034)
    expected = {metric: True for metric in METRICS if metric != "test_suite_accuracy"}
    assert [(row, rows[int(row.id)].reference) for row in found if row.scores != expected] == []
    assert {row.verdict for row in found} == {"right"}
