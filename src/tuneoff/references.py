"""References of the test set that cannot be used, found before anything is tuned or paid.

A query that does not run on its database, or an answer that its scorer cannot read, says nothing
about anybody's answer. Such a row is left out for every contender alike, which is said; where there
are many of them, something else is wrong, and nothing is begun.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tuneoff import prepare
from tuneoff.errors import DataError
from tuneoff.prepare import Parts
from tuneoff.records import Example
from tuneoff.scoring import Options, Row
from tuneoff.scoring.sql.derive import derive_suites

# Of the test set; beyond that it is not begun.
MOST_SHARE = 0.05
NAMED = 3
# Derived databases that a check makes: one with doubled rows and one with an empty table are
# among them.
DERIVED_TO_CHECK = 3


def find_unusable(parts: Parts, test: Iterable[Example], options: Options) -> dict[str, str]:
    """Say why the references of some test examples cannot be used; return the reasons by id.

    Raises:
        DataError: a database is missing, or a metric of one's own fails on a reference.
    """
    scorer: Any = parts.scorer
    rows = [Row(e.id, e.completion, e.completion, e.meta, None, e.inputs) for e in test]
    return dict(scorer.failing(rows, options)) if hasattr(scorer, "failing") else {}


def check_references(parts: Parts, test: Sequence[Example]) -> tuple[dict[str, str], list[str]]:
    """Check the references of a bake-off that was not begun. Return why some cannot be used, by id,
    and warnings about metrics that do not give a reference its full mark. Databases that have to be
    made are made for the moment.

    Raises:
        DataError: too many references cannot be used (`refuse_many`), or as for `unusable`.
    """
    scorer: Any = parts.scorer
    with TemporaryDirectory() as made:
        folder = parts.task.databases(parts.settings, parts.place, Path(made) / "databases")
        derived = Path(made) / "derived"
        count = min(parts.settings.derived_databases, DERIVED_TO_CHECK)
        options = prepare.build_options(parts, folder, derive(parts, folder, test, derived, count))
        found = find_unusable(parts, test, options)
    refuse_many(parts, found, len(test))
    doubts = [e for e in test if e.id not in found] if hasattr(scorer, "doubts") else []
    rows = [Row(e.id, e.completion, "", e.meta, None, e.inputs) for e in doubts]
    return found, list(scorer.doubts(rows)) if rows else []


def derive(
    parts: Parts, folder: Path | None, test: Iterable[Example], into: Path, count: int
) -> Path | None:
    """Makes derived databases of the test set's; where they are, None where there are none."""
    if folder is None or not count:
        return None
    golds = ((str(example.meta["db_id"]), example.completion) for example in test)
    derive_suites(folder, golds, into, count, parts.settings.seed)
    return into


def refuse_many(parts: Parts, found: Mapping[str, str], of: int, more: str = "") -> None:
    """Raises DataError where more than a twentieth of the references cannot be used."""
    if len(found) > MOST_SHARE * of:
        raise DataError(
            f"{count_unusable(found, of)}, more than {MOST_SHARE:.0%}: {name_unusable(found)}; "
            f"nothing was tuned or paid. {_advise(parts, found)}{more}."
        )


def explain_left_out(parts: Parts, found: Mapping[str, str], of: int, more: str = "") -> str:
    """Return a warning about the references that cannot be used; `more` is advice."""
    whom = "it is" if len(found) == 1 else "they are"
    return (
        f"{count_unusable(found, of)}, so {whom} left out for every contender alike: "
        f"{name_unusable(found)}. {_advise(parts, found)}{more}."
    )


def count_unusable(found: Mapping[str, str], of: int) -> str:
    """Begin a sentence with how many references cannot be used."""
    return f"{len(found)} of the {of} references of the test set cannot be used"


def name_unusable(found: Mapping[str, str], count: int | None = None) -> str:
    """Return the first few ids with their reasons, of `count` in all."""
    shown = "; ".join(f"{id}: {why}" for id, why in list(found.items())[:NAMED])
    return shown + ("; …" if (count or len(found)) > NAMED else "")


def advise(found: Mapping[str, str], seconds: str, memory: str) -> str:
    """Say what to do about references that cannot be used; settings are named where they matter."""
    raised = [
        setting
        for setting, reasons in ((seconds, ("(timeout)",)), (memory, ("(too large)", "(crashed)")))
        if any(why.endswith(reasons) for why in found.values())
    ]
    return "Correct them" + (f", or raise {' and '.join(raised)}" if raised else "")


def _advise(parts: Parts, found: Mapping[str, str]) -> str:
    settings = parts.settings
    seconds, memory = (
        f"task.seconds ({settings.seconds:g})",
        f"task.memory_gb ({settings.memory_gb:g})",
    )
    return advise(found, seconds, memory)
