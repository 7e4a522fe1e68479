"""Metrics: from predictions and references to scores, with intervals and paired tests.

A scorer is a module with `METRICS`, `PRIMARY` and `score_rows`. Its id is its name (`text`,
`functional`, `sql`), the name of an installed module, or a Python file. There is no list of
scorers: a new one is one new file here. See `rows.Scorer`.
"""

from __future__ import annotations

from typing import cast

from tuneoff import plugins
from tuneoff.scoring.base import Options, Scorer, ScoringInput

__all__ = [
    "RULES",
    "Options",
    "Scorer",
    "ScoringInput",
    "get_primary_metric",
    "list_scorer_ids",
    "load_scorer",
]

# A version grows when the rule may score the same answer differently. docs/scoring.md lists the
# changes. Stored scores without versions are of version 1.
RULES = {"answer_text": 2, "valid_format": 2, "set_match": 2, "real_numbers": 2, "ties": 2}
NEEDS = ("METRICS", "PRIMARY", "score_rows")


def list_scorer_ids() -> tuple[str, ...]:
    """Return the ids of tuneoff's own scorers, sorted."""
    return tuple(plugins.list_ids(__name__, NEEDS))


def load_scorer(id: str) -> Scorer:
    """Return the scorer with this id.

    Raises:
        ConfigError: there is no such scorer, or it lacks a required name.
    """
    return cast("Scorer", plugins.find(__name__, id, "scorer", NEEDS))


def get_primary_metric(scorer: Scorer, options: Options) -> str:
    """Return the primary metric under these options.

    This is `PRIMARY`, unless the scorer has a function `primary(options)`, because its primary
    metric needs something that may be missing (SQL without databases).
    """
    chosen = getattr(scorer, "primary", None)
    return str(chosen(options)) if chosen is not None else scorer.PRIMARY
