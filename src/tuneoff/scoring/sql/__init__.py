"""The scorer `sql`; `scorer.py` has its metrics, and says how a query is judged."""

from tuneoff.scoring.sql.scorer import (
    ERROR_CLASSES,
    METRICS,
    PRIMARY,
    failing,
    groups,
    primary,
    score_rows,
)

__all__ = ["ERROR_CLASSES", "METRICS", "PRIMARY", "failing", "groups", "primary", "score_rows"]
