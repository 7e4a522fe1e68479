"""Answers compared as text: the metrics that suit every task.

`exact_match` is the seed experiment's own comparison (Sam L'Huillier, 2023): every
character counts, only blanks around the whole answer do not.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping

from tuneoff.records import ScoredRow
from tuneoff.scoring.rows import Kind, Options, Row, no_answer, unanswered

METRICS: Mapping[str, Kind] = {"exact_match": "yes/no", "normalized_match": "yes/no"}
PRIMARY = "exact_match"

FENCED = re.compile(r"```(?:[\w+.-]*[ \t]*\n)?(.*?)```", re.DOTALL)


def score_rows(rows: Iterable[Row], options: Options) -> Iterator[ScoredRow]:
    """Exact and normalized match of each row, in order. No option has an effect."""
    for row in rows:
        yield _score(row)


def _score(row: Row) -> ScoredRow:
    missing = no_answer(row)
    if missing is not None:
        return unanswered(row, missing, METRICS)
    scores = matches(row)
    if scores["exact_match"]:
        verdict = "right"
    else:
        verdict = "right but for form" if scores["normalized_match"] else "wrong"
    return ScoredRow(row.id, scores, verdict)


def matches(row: Row) -> dict[str, bool | float]:
    """`exact_match` and `normalized_match` of a row that has an answer."""
    return {
        "exact_match": row.prediction.strip() == row.reference.strip(),
        "normalized_match": normalized(row.prediction) == normalized(row.reference),
    }


def without_fence(text: str) -> str:
    """Text without blanks around it, and without a code fence around the whole of it.

    >>> without_fence("```sql\\nSELECT 1\\n```")
    'SELECT 1'
    """
    fenced = FENCED.fullmatch(text.strip())
    return (fenced[1] if fenced else text).strip()


def normalized(text: str) -> str:
    """The form in which `normalized_match` compares.

    In this order: a code fence around the answer is removed; Unicode form NFKC; case
    folded; every run of blanks becomes one blank; full stops and semicolons at the end
    are dropped.
    """
    # Folding can undo NFKC (and NFKC can bring up letters that fold), so it comes twice.
    folded = unicodedata.normalize("NFKC", without_fence(text)).casefold()
    line = " ".join(unicodedata.normalize("NFKC", folded).split())
    return line.rstrip(".; ")
