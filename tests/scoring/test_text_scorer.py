"""Exact and normalized match."""

from __future__ import annotations

import pytest

from tuneoff.scoring.base import Options, ScoringInput
from tuneoff.scoring.text import METRICS, normalize_text, score_rows


def scored(reference: str, prediction: str, error: str | None = None) -> tuple[bool, bool, str]:
    (row,) = score_rows([ScoringInput("1", reference, prediction, error=error)], Options())
    assert set(row.scores) == set(METRICS)
    return bool(row.scores["exact_match"]), bool(row.scores["normalized_match"]), row.verdict


@pytest.mark.parametrize(
    ("reference", "prediction", "expected"),
    [
        ("Paris", "Paris", (True, True, "right")),
        ("Paris", " Paris\n", (True, True, "right")),
        ("a  b", "a b", (False, True, "right but for form")),
        ("Paris", "PARIS.", (False, True, "right but for form")),
        ("SELECT 1", "```sql\nselect 1;\n```", (False, True, "right but for form")),
        ("ﬁle ２", "FILE 2", (False, True, "right but for form")),
        ("Straße", "STRASSE", (False, True, "right but for form")),
        ("Paris", "Lyon", (False, False, "wrong")),
        ("Paris", "It is Paris", (False, False, "wrong")),
        ("1.5", "15", (False, False, "wrong")),
    ],
)
def test_matches(reference: str, prediction: str, expected: tuple[bool, bool, str]) -> None:
    assert scored(reference, prediction) == expected


@pytest.mark.parametrize("prediction", ["", " \n\t"])
def test_empty_answer_is_wrong_even_when_the_reference_is_empty(prediction: str) -> None:
    assert scored("x", prediction) == (False, False, "no answer")
    assert scored("", prediction) == (False, False, "no answer")


def test_an_error_is_wrong_whatever_was_predicted() -> None:
    assert scored("x", "x", error="timed\nout") == (False, False, "timed out")
    assert scored("x", "x", error="") == (False, False, "no answer")
    verdict = scored("x", "x", error="e" * 500)[2]
    assert len(verdict) == 80
    assert verdict.endswith("…")


def test_normalizing_twice_changes_nothing() -> None:
    for text in ("A  b. ; .", "ΐ", "ẞﬀİ", "x;;", "½ Straße…"):
        assert normalize_text(normalize_text(text)) == normalize_text(text)


def test_results_come_one_by_one_and_in_order() -> None:
    taken: list[str] = []

    def rows() -> object:
        for id in "abc":
            taken.append(id)
            yield ScoringInput(id, "x", "x")

    results = score_rows(rows(), Options())  # type: ignore[arg-type]
    assert next(results).id == "a"
    assert taken == ["a"]
    assert [row.id for row in results] == ["b", "c"]
