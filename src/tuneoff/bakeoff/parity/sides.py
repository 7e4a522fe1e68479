"""Finds what is compared: files of answers, and contenders of finished runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tuneoff.errors import ConfigError, DataError, explain_unknown
from tuneoff.records import Example, ScoredRow
from tuneoff.scoring.base import MetricKind
from tuneoff.scoring.equivalence import DEFAULT_MARGIN
from tuneoff.scoring.paired import KnownSeeds
from tuneoff.storage.run_dir import RunDir

MAX_NAMED = 3


@dataclass(frozen=True, slots=True)
class ParityOptions:
    """How two or more sets of answers are compared. None: as the runs, or the task, have it.

    Fields without a docstring are those of `tuneoff score`.
    """

    task: str | None = None
    source: str | None = None
    metrics: tuple[str, ...] = ()
    """A task's metrics, or Python files. The first decides; without any, the judge."""
    judge: Path | None = None
    """A judge's file."""
    budget_usd: float | None = None
    """Max money that the judge may ever cost, in USD."""
    yes: bool = False
    """Whether to ask a judge without a price."""
    references: Path | None = None
    """A file of references, in place of the rows' own."""
    databases: Path | None = None
    mode: str | None = None
    workers: int | None = None
    seconds: float = 5.0
    memory_bytes: int = 1_000_000_000
    cluster: str | None = None
    margin: float = DEFAULT_MARGIN
    """The equivalence margin, as a share of 1."""
    contenders: tuple[str, ...] = ()
    """Names of contenders: one for all runs, or one for each."""


@dataclass(frozen=True, slots=True)
class RunContender:
    """A contender of a finished run."""

    folder: Path
    contender: str

    @property
    def name(self) -> str:
        """Return its name, as on the command line."""
        return f"{self.folder}:{self.contender}"


@dataclass(frozen=True, slots=True)
class AnswerSet:
    """Answers and their scores."""

    name: str
    ids: Collection[str]
    """All ids that were answered."""
    answers: Mapping[str, str]
    """The first answer of each id, to be shown."""
    scored: Sequence[Mapping[str, ScoredRow]]
    """The rows of each training by example id, as means over `samples` answers. There is one
    training, but for a contender with seeds."""
    samples: int = 1
    """The number of answers per example."""
    errors: Collection[str] = ()
    """The ids without an answer."""
    between: KnownSeeds = None
    """What is known of the variation between trainings."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Why the references of some ids cannot be used."""
    incomplete: int = 0
    """The number of examples with fewer answers than `samples`."""


@dataclass(frozen=True, slots=True)
class ScoredAnswers:
    """Sides with their scores, their examples, and the metrics that they were scored by."""

    sides: list[AnswerSet]
    examples: Mapping[str, Example]
    metric: str
    kinds: Mapping[str, MetricKind]
    cluster: str | None
    warnings: list[str]


AnswerSource = Path | RunContender


def resolve_sources(given: Sequence[Path | str], contenders: Sequence[str]) -> list[AnswerSource]:
    """Return the files and contenders that the arguments name, in order.

    Raises:
        ConfigError: a contender does not exist or is ambiguous, or one is named twice.
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
    places: list[AnswerSource] = []
    for each in given:
        run = _split_run(str(each))
        places.append(Path(each) if run is None else _choose_contender(*run, next(names, None)))
    for number, place in enumerate(places):
        if any(_is_same(place, other) for other in places[:number]):
            raise ConfigError(
                f"{place.name if isinstance(place, RunContender) else place} is given twice, and "
                "nothing "
                "can differ; give another file, or another contender (RUN:NAME)."
            )
    return places


def _split_run(given: str) -> tuple[Path, str] | None:
    """Return a run's folder, and the contender named behind it; None for a file."""
    if Path(given).is_dir():
        return Path(given), ""
    folder, colon, name = given.rpartition(":")
    if colon and name and Path(folder).is_dir() and not Path(given).exists():
        return Path(folder), name
    return None


def _choose_contender(folder: Path, written: str, named: str | None) -> RunContender:
    """Return the contender of a run that is named, or else recommended.

    Raises:
        ConfigError: it does not exist, or it failed, or none is recommended.
    """
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
        raise ConfigError(f"{folder}: {what or explain_unknown('contender', choice, names)}.")
    return RunContender(folder, choice)


def _is_same(a: AnswerSource, b: AnswerSource) -> bool:
    """Return whether two places are the same file or contender."""
    if isinstance(a, RunContender) or isinstance(b, RunContender):
        both = isinstance(a, RunContender) and isinstance(b, RunContender)
        return both and a.contender == b.contender and a.folder.resolve() == b.folder.resolve()  # type: ignore[union-attr]
    return a.exists() and b.exists() and a.samefile(b)


def refuse_differing(first: str, second: str, ids: Sequence[str], what: str, advice: str) -> None:
    """Raise DataError if some ids stand for different examples on both sides."""
    if ids:
        raise DataError(
            f"{first} and {second} have another {what} for {len(ids)} of their common ids "
            f"({format_first_ids(ids)}), so these are not answers to the same; {advice}."
        )


def format_first_ids(ids: Sequence[str]) -> str:
    """Return the first few ids, in quotes."""
    return ", ".join(map(repr, ids[:MAX_NAMED])) + (", …" if len(ids) > MAX_NAMED else "")


def find_clusters(
    examples: Mapping[str, Example], key: str | None, is_asked: bool
) -> dict[str, str] | None:
    """Return the cluster of each example; None without clusters.

    Args:
        key: a key of the examples' meta.
        is_asked: whether the user chose this key; otherwise it is the task's.

    Raises:
        DataError: an example lacks a key that the user chose.
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
