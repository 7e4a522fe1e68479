"""Classifies a wrong query by the first part that differs from the reference."""

from __future__ import annotations

from tuneoff.scoring.sql.normal_form import NormalForm

PARTS = (
    ("tables", "wrong tables"),
    ("columns", "wrong columns"),
    ("conditions", "wrong condition"),
    ("grouping", "wrong aggregation or grouping"),
    ("ordering", "wrong order or limit"),
)


def classify_difference(reference: NormalForm, answer: NormalForm) -> str | None:
    """Return the error class of the first part that differs.

    None if only the whole differs, for example by a set operator or the order of selected columns.
    """
    for part, name in PARTS:
        if getattr(reference, part) != getattr(answer, part):
            return name
    return None
