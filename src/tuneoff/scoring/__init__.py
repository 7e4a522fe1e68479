"""Metrics: from predictions and references to scores, with intervals and a paired test.

A scorer is a module with `METRICS`, `PRIMARY` and `score_rows`; its id is its name
(`text`, `functional`, `sql`), the name of an installed module, or a Python file. There is
no list of them: a new scorer is one new file here. See `rows.Scorer`.
"""

from __future__ import annotations

from typing import cast

from tuneoff import discovery
from tuneoff.scoring.rows import Options, Row, Scorer

__all__ = ["RULES", "Options", "Row", "Scorer", "load_scorer", "primary_metric", "scorer_ids"]

# A rule's version grows when the same answer may get another score than before. docs/scoring.md
# says what changed. Scores without versions are of version 1.
RULES = {"answer_text": 2, "valid_format": 2, "set_match": 2, "real_numbers": 2, "ties": 2}
NEEDS = ("METRICS", "PRIMARY", "score_rows")


def scorer_ids() -> tuple[str, ...]:
    """The ids of the scorers that tuneoff has, sorted."""
    return tuple(discovery.ids(__name__, NEEDS))


def load_scorer(id: str) -> Scorer:
    """The scorer of an id.

    Raises:
        ConfigError: there is none of that id, or it lacks what a scorer needs.
    """
    return cast("Scorer", discovery.find(__name__, id, "scorer", NEEDS))


def primary_metric(scorer: Scorer, options: Options) -> str:
    """The metric that decides under these options.

    This is `PRIMARY`, unless the scorer has a function `primary(options)` because its
    primary metric needs something that may be missing (SQL without databases).
    """
    chosen = getattr(scorer, "primary", None)
    return str(chosen(options)) if chosen is not None else scorer.PRIMARY
