"""What is wrong with a query: in which part it first differs from the reference."""

from __future__ import annotations

from tuneoff.scoring.sql.normal_form import NormalForm

PARTS = (
    ("tables", "wrong tables"),
    ("columns", "wrong columns"),
    ("conditions", "wrong condition"),
    ("grouping", "wrong aggregation or grouping"),
    ("ordering", "wrong order or limit"),
)


def class_of_error(reference: NormalForm, answer: NormalForm) -> str | None:
    """The class of the first part that differs; None when only the whole does (a set
    operator, say, or the order of what is selected)."""
    for part, name in PARTS:
        if getattr(reference, part) != getattr(answer, part):
            return name
    return None
