"""Checks the references of the test set before anything is trained or paid.

A reference query that does not run on its database, or a reference that its scorer cannot read,
tells nothing about an answer. Such a row is left out for every contender alike, with a warning. If
many references fail, something else is wrong, and the run does not start.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tuneoff.bakeoff import prepare
from tuneoff.bakeoff.prepare import ResolvedBakeOff
from tuneoff.errors import DataError
from tuneoff.records import Example
from tuneoff.scoring.base import Options, ScoringInput
from tuneoff.scoring.sql.derived_databases import derive_suites

# The share of unusable references above which the run does not start.
MAX_UNUSABLE_SHARE = 0.05
MAX_NAMED = 3
# The number of derived databases in a check; among three are one with doubled rows and one with an
# empty table.
DERIVED_TO_CHECK = 3


def find_unusable(
    parts: ResolvedBakeOff, test: Iterable[Example], options: Options
) -> dict[str, str]:
    """Return, by id, why the references of some test examples cannot be used.

    Raises:
        DataError: a database is missing, or a custom metric fails on a reference.
    """
    scorer: Any = parts.scorer
    rows = [ScoringInput(e.id, e.completion, e.completion, e.meta, None, e.inputs) for e in test]
    return dict(scorer.failing(rows, options)) if hasattr(scorer, "failing") else {}


def check_references(
    parts: ResolvedBakeOff, test: Sequence[Example]
) -> tuple[dict[str, str], list[str]]:
    """Return why some references cannot be used, by id, and warnings about metrics.

    Used before a run starts. A warning names a metric that gives a reference less than full marks.
    Generated and derived databases are temporary.

    Raises:
        DataError: too many references cannot be used (`refuse_many`), or as in `find_unusable`.
    """
    scorer: Any = parts.scorer
    with TemporaryDirectory() as made:
        folder = parts.task.databases(parts.settings, parts.place, Path(made) / "databases")
        derived = Path(made) / "derived"
        count = min(parts.settings.derived_databases, DERIVED_TO_CHECK)
        options = prepare.build_options(
            parts, folder, derive_test_databases(parts, folder, test, derived, count)
        )
        unusable = find_unusable(parts, test, options)
    refuse_many(parts, unusable, len(test))
    doubts = [e for e in test if e.id not in unusable] if hasattr(scorer, "doubts") else []
    rows = [ScoringInput(e.id, e.completion, "", e.meta, None, e.inputs) for e in doubts]
    return unusable, list(scorer.doubts(rows)) if rows else []


def derive_test_databases(
    parts: ResolvedBakeOff, folder: Path | None, test: Iterable[Example], into: Path, count: int
) -> Path | None:
    """Write databases derived from those of the test set, and return their folder; None without
    databases."""
    if folder is None or not count:
        return None
    golds = ((str(example.meta["db_id"]), example.completion) for example in test)
    derive_suites(folder, golds, into, count, parts.settings.seed)
    return into


def refuse_many(
    parts: ResolvedBakeOff, unusable: Mapping[str, str], of: int, more: str = ""
) -> None:
    """Raise DataError if more than a twentieth of the references cannot be used."""
    if len(unusable) > MAX_UNUSABLE_SHARE * of:
        raise DataError(
            f"{describe_unusable_count(unusable, of)}, more than {MAX_UNUSABLE_SHARE:.0%}: "
            f"{name_unusable(unusable)}; nothing was tuned or paid. "
            f"{_advise(parts, unusable)}{more}."
        )


def explain_left_out(
    parts: ResolvedBakeOff, unusable: Mapping[str, str], of: int, more: str = ""
) -> str:
    """Return a warning about the references that cannot be used.

    Args:
        more: further advice.
    """
    whom = "it is" if len(unusable) == 1 else "they are"
    return (
        f"{describe_unusable_count(unusable, of)}, so {whom} left out for every contender alike: "
        f"{name_unusable(unusable)}. {_advise(parts, unusable)}{more}."
    )


def describe_unusable_count(unusable: Mapping[str, str], of: int) -> str:
    """Return the start of a sentence: how many references cannot be used."""
    return f"{len(unusable)} of the {of} references of the test set cannot be used"


def name_unusable(unusable: Mapping[str, str], count: int | None = None) -> str:
    """Return the first ids with their reasons.

    Args:
        count: the number of ids in all, if `found` holds only the first ones.
    """
    shown = "; ".join(f"{id}: {why}" for id, why in list(unusable.items())[:MAX_NAMED])
    return shown + ("; …" if (count or len(unusable)) > MAX_NAMED else "")


def advise(unusable: Mapping[str, str], seconds: str, memory: str) -> str:
    """Return advice about references that cannot be used.

    Args:
        seconds: the setting to raise after a timeout.
        memory: the setting to raise where a result was too large.
    """
    raised = [
        setting
        for setting, reasons in ((seconds, ("(timeout)",)), (memory, ("(too large)", "(crashed)")))
        if any(why.endswith(reasons) for why in unusable.values())
    ]
    return "Correct them" + (f", or raise {' and '.join(raised)}" if raised else "")


def _advise(parts: ResolvedBakeOff, unusable: Mapping[str, str]) -> str:
    settings = parts.settings
    seconds, memory = (
        f"task.seconds ({settings.seconds:g})",
        f"task.memory_gb ({settings.memory_gb:g})",
    )
    return advise(unusable, seconds, memory)
