"""Metrics of functional representation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tuneoff.records import ScoredRow
from tuneoff.scoring.base import Options, ScoringInput, find_reason_left_out
from tuneoff.scoring.functional import METRICS, REORDERED, failing, score_rows

GOLD = "inform(name[Dirt: Showdown], genres[sport, racing], has_mac_release[no])"


def score(prediction: str, reference: str = GOLD) -> ScoredRow:
    (row,) = score_rows([ScoringInput("1", reference, prediction)], Options())
    assert set(row.scores) == set(METRICS)
    return row


@pytest.mark.parametrize(
    ("prediction", "verdict"),
    [
        (GOLD, "right"),
        (f" {GOLD}\n", "right"),
        (GOLD.upper(), "right but for form"),
        (f"```\n{GOLD}\n```", "right but for form"),
        (GOLD.replace(", ", " , "), "right but for form"),
        ("inform(genres[sport, racing], name[Dirt: Showdown], has_mac_release[no])", REORDERED),
        ("inform(name[Dirt: Showdown], genres[racing, sport], has_mac_release[no])", REORDERED),
        (GOLD.replace("inform", "suggest"), "wrong function"),
        ("inform(name[Dirt: Showdown], genres[sport, racing])", "missing slot"),
        (GOLD[:-1] + ", esrb[M])", "extra slot"),
        (GOLD.replace("[no]", "[yes]"), "wrong value"),
        (GOLD.replace("sport, ", ""), "wrong value"),
        (GOLD[:-1], "does not parse"),
        ("The game is Dirt.", "does not parse"),
        ("", "no answer"),
    ],
)  # fmt: skip
def test_verdict(prediction: str, verdict: str) -> None:
    row = score(prediction)
    assert row.verdict == verdict
    assert row.scores["exact_match"] is (verdict == "right")


def test_items_of_a_list_are_slots() -> None:
    row = score(
        "inform(name[Dirt: Showdown], genres[sport], esrb[M])"
    )  # 2 of 3 right, 2 of 4 found
    assert row.scores["slot_precision"] == pytest.approx(2 / 3)
    assert row.scores["slot_recall"] == pytest.approx(2 / 4)
    assert row.scores["slot_f1"] == pytest.approx(4 / 7)
    assert row.scores["order_insensitive_match"] is False


def test_slots_are_a_multiset() -> None:
    row = score("f(a[x], a[x])", reference="f(a[x])")
    assert (row.scores["slot_precision"], row.scores["slot_recall"]) == (0.5, 1.0)
    assert row.scores["order_insensitive_match"] is False
    assert row.verdict == "extra slot"


def test_order_does_not_matter_where_it_must_not() -> None:
    row = score("inform(has_mac_release[no], genres[racing, sport], name[Dirt: Showdown])")
    assert row.scores["order_insensitive_match"] is True
    assert row.scores["slot_f1"] == 1.0
    assert row.scores["exact_match"] is False


def test_the_function_is_judged_apart_from_its_slots() -> None:
    row = score(GOLD.replace("inform", "suggest"))
    assert row.scores["function_accuracy"] is False
    assert row.scores["slot_f1"] == 1.0
    assert row.scores["order_insensitive_match"] is False


def test_no_slots() -> None:
    nothing = score("f()", reference="f( )")
    assert [nothing.scores[m] for m in ("slot_precision", "slot_recall", "slot_f1")] == [1, 1, 1]
    missing = score("f()", reference="f(a[x])")
    assert [missing.scores[m] for m in ("slot_precision", "slot_recall", "slot_f1")] == [0, 0, 0]
    extra = score("f(a[x])", reference="f()")
    assert [extra.scores[m] for m in ("slot_precision", "slot_recall", "slot_f1")] == [0, 0, 0]
    assert score("f(a)", reference="f(a[])").scores["slot_f1"] == 1.0


def test_an_unparsable_answer_scores_nothing() -> None:
    scores = score("inform(name[Dirt").scores
    assert not any(scores.values())
    assert {type(value) for value in scores.values()} == {bool, float}


def test_an_unparsable_reference_costs_its_own_row() -> None:
    rows = [
        ScoringInput("7", "no call", "f()"),
        ScoringInput("8", "f()", "f()"),
        ScoringInput("9", "f(a[b)", "", {}, "lost"),
    ]
    first, second, third = score_rows(rows, Options())
    assert (first.scores, second.verdict, third.scores) == ({}, "right", {})
    reasons = {row.id: find_reason_left_out(row) for row in (first, third)}
    assert dict(failing(rows, Options())) == reasons
    assert "not of the form function(attribute[value]): expected" in (reasons["7"] or "")


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_every_reference_of_viggo_scores_one_by_every_metric(data_dir: Path, split: str) -> None:
    lines = (data_dir / "viggo" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    golds = [json.loads(line)["meaning_representation"] for line in lines]
    rows = score_rows((ScoringInput(str(i), gold, gold) for i, gold in enumerate(golds)), Options())
    wrong = [row for row in rows if row.verdict != "right" or set(row.scores.values()) != {1}]
    assert len(golds) == {"train": 5103, "validation": 714, "test": 1083}[split]
    assert wrong == []
