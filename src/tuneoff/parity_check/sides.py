"""What is held against each other: a file of answers, or a contender of a finished run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tuneoff.errors import ConfigError, DataError, unknown
from tuneoff.records import Example, ScoredRow
from tuneoff.rundir import RunDir
from tuneoff.scoring.equivalence import MARGIN
from tuneoff.scoring.paired import KnownSeeds
from tuneoff.scoring.rows import Kind

NAMED = 3


@dataclass(frozen=True, slots=True)
class How:
    """How two or more sets of answers are compared; None: as the runs, or the task, have it.

    `metrics` are a task's, or Python files; the first decides, or the judge where there is none.
    `references` stand for the rows' own. `margin` is a share of 1. `contenders` are names of runs'
    contenders, one for all runs or one for each. The others are those of `tuneoff score`.
    """

    task: str | None = None
    source: str | None = None
    metrics: tuple[str, ...] = ()
    judge: Path | None = None
    budget_usd: float | None = None
    yes: bool = False
    references: Path | None = None
    databases: Path | None = None
    mode: str | None = None
    workers: int | None = None
    seconds: float = 5.0
    memory_bytes: int = 1_000_000_000
    cluster: str | None = None
    margin: float = MARGIN
    contenders: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Chosen:
    """A contender of a finished run."""

    folder: Path
    contender: str

    @property
    def name(self) -> str:
        """Return how it is named here and on the command line."""
        return f"{self.folder}:{self.contender}"


@dataclass(frozen=True, slots=True)
class Side:
    """Answers and their scores.

    `ids` are all that were answered, `answers` the first ones, to be shown. `scored` are the rows
    by example id, of each training (one, but of a contender with seeds), means over `samples`
    answers; `errors` the ids without an answer; `left_out` those whose reference cannot be used,
    and why; `incomplete` counts the examples with fewer answers than `samples`.
    """

    name: str
    ids: Collection[str]
    answers: Mapping[str, str]
    scored: Sequence[Mapping[str, ScoredRow]]
    samples: int = 1
    errors: Collection[str] = ()
    between: KnownSeeds = None
    left_out: Mapping[str, str] = field(default_factory=dict)
    incomplete: int = 0


@dataclass(frozen=True, slots=True)
class Scored:
    """Sides with their scores, what their ids stand for, and by what they were scored."""

    sides: list[Side]
    examples: Mapping[str, Example]
    metric: str
    kinds: Mapping[str, Kind]
    cluster: str | None
    warnings: list[str]


Place = Path | Chosen


def find_places(given: Sequence[Path | str], contenders: Sequence[str]) -> list[Place]:
    """Return the files and contenders that are meant, in order.

    Raises:
        ConfigError: a contender is not there or not clear, or a thing is named twice.
    """
    runs = [place for place, each in enumerate(given) if _split_run(str(each)) is not None]
    if contenders and not runs:
        raise ConfigError("--contender: it names a contender of a run, and no run is given.")
    if len(contenders) > 1 and len(contenders) != len(runs):
        raise ConfigError(
            f"--contender: {len(contenders)} names for {len(runs)} runs; give one for all of them, "
            "or one for each."
        )
    names = iter(list(contenders) * len(runs) if len(contenders) == 1 else contenders)
    found: list[Place] = []
    for each in given:
        run = _split_run(str(each))
        found.append(Path(each) if run is None else _choose(*run, next(names, None)))
    for number, place in enumerate(found):
        if any(_is_same(place, other) for other in found[:number]):
            raise ConfigError(
                f"{place.name if isinstance(place, Chosen) else place} is given twice, and nothing "
                "can differ; give another file, or another contender (RUN:NAME)."
            )
    return found


def _split_run(given: str) -> tuple[Path, str] | None:
    """Return a run's folder, and the contender named behind it; None where it is a file."""
    if Path(given).is_dir():
        return Path(given), ""
    folder, colon, name = given.rpartition(":")
    if colon and name and Path(folder).is_dir() and not Path(given).exists():
        return Path(folder), name
    return None


def _choose(folder: Path, written: str, named: str | None) -> Chosen:
    results = RunDir(folder).results()
    names = [each.name for each in results.contenders if not each.error]
    choice = written or named or results.recommendation.choice
    if choice is None:
        raise ConfigError(
            f"{folder}: the run recommends nobody; name one of its contenders (RUN:NAME): "
            f"{', '.join(names)}."
        )
    if choice not in names:
        failed = next((each.error for each in results.contenders if each.name == choice), None)
        what = f"contender {choice} failed: {failed}" if failed else None
        raise ConfigError(f"{folder}: {what or unknown('contender', choice, names)}.")
    return Chosen(folder, choice)


def _is_same(a: Place, b: Place) -> bool:
    if isinstance(a, Chosen) or isinstance(b, Chosen):
        both = isinstance(a, Chosen) and isinstance(b, Chosen)
        return both and a.contender == b.contender and a.folder.resolve() == b.folder.resolve()  # type: ignore[union-attr]
    return a.exists() and b.exists() and a.samefile(b)


def refuse_differing(first: str, second: str, ids: Sequence[str], what: str, advice: str) -> None:
    """Raises DataError where some ids mean something else on both sides."""
    if ids:
        raise DataError(
            f"{first} and {second} have another {what} for {len(ids)} of their common ids "
            f"({name_first(ids)}), so these are not answers to the same; {advice}."
        )


def name_first(ids: Sequence[str]) -> str:
    """Return the first few ids, in quotes."""
    return ", ".join(map(repr, ids[:NAMED])) + (", …" if len(ids) > NAMED else "")


def find_clusters(
    examples: Mapping[str, Example], key: str | None, is_asked: bool
) -> dict[str, str] | None:
    """Return what each example belongs to; None where nothing says so.

    Args:
        key: of the examples' meta.
        is_asked: whether that key was asked for; otherwise it is the task's.

    Raises:
        DataError: an example has no such key, which was asked for.
    """
    if key is None:
        return None
    without = [each for each in examples.values() if key not in each.meta]
    if without and is_asked:
        known = ", ".join(sorted(without[0].meta)) or "nothing"
        raise DataError(
            f"--cluster: {without[0].id!r} has no {key!r} in its meta (it has: {known}); name a "
            "key that every row has."
        )
    if len(without) == len(examples):
        return None
    return {e.id: str(e.meta.get(key, f"id {e.id}")) for e in examples.values()}
