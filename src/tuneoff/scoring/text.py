"""Metrics that compare answers as text; they suit every task.

`exact_match` is the seed experiment's own comparison (Sam L'Huillier, 2023): every character
counts, except blanks around the whole answer.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping

from tuneoff.records import ScoredRow
from tuneoff.scoring.answer_text import strip_fence
from tuneoff.scoring.base import (
    MetricKind,
    Options,
    ScoringInput,
    build_unanswered,
    explain_no_answer,
)

METRICS: Mapping[str, MetricKind] = {"exact_match": "yes/no", "normalized_match": "yes/no"}
PRIMARY = "exact_match"


def score_rows(rows: Iterable[ScoringInput], options: Options) -> Iterator[ScoredRow]:
    """Yield exact and normalized match of each row, in order; no option has an effect."""
    for row in rows:
        yield _score_row(row)


def _score_row(row: ScoringInput) -> ScoredRow:
    missing = explain_no_answer(row)
    if missing is not None:
        return build_unanswered(row, missing, METRICS)
    scores = compute_matches(row, strip_fence(row.prediction, row.reference))
    if scores["exact_match"]:
        verdict = "right"
    else:
        verdict = "right but for form" if scores["normalized_match"] else "wrong"
    return ScoredRow(row.id, scores, verdict)


def compute_matches(row: ScoringInput, unfenced: str) -> dict[str, bool | float]:
    """Return `exact_match` and `normalized_match` of a row with an answer.

    Args:
        unfenced: the answer without its fence.
    """
    return {
        "exact_match": row.prediction.strip() == row.reference.strip(),
        "normalized_match": normalize_text(unfenced) == normalize_text(row.reference),
    }


def normalize_text(text: str) -> str:
    """Return the form of a text that `normalized_match` compares.

    In this order: Unicode form NFKC; case folded; every run of blanks becomes one blank; full stops
    and semicolons at the end are dropped. The fence is removed before (`answer_text.strip_fence`).
    """
    # Folding can undo NFKC, and NFKC can produce letters that fold, so it runs twice.
    folded = unicodedata.normalize("NFKC", text).casefold()
    line = " ".join(unicodedata.normalize("NFKC", folded).split())
    return line.rstrip(".; ")
