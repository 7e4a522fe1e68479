"""Combines several scorers into one: the task's own, and the metrics that a bake-off file adds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import tee
from typing import Any, cast

from tuneoff.errors import ConfigError
from tuneoff.records import ScoredRow
from tuneoff.scoring.base import MetricKind, Options, Scorer, ScoringInput, find_reason_left_out


class CombinedScorer:
    """A scorer with the metrics of several scorers; the first one gives the verdicts."""

    def __init__(self, scorers: Sequence[Scorer]) -> None:
        first = scorers[0]
        self._scorers = scorers
        self.PRIMARY = first.PRIMARY
        self.METRICS: Mapping[str, MetricKind] = {
            name: kind for scorer in scorers for name, kind in scorer.METRICS.items()
        }
        self.ERROR_CLASSES: Mapping[str, str] = getattr(first, "ERROR_CLASSES", {})
        self._primary: Callable[[Options], str] | None = getattr(first, "primary", None)
        self._groups: Any = getattr(first, "groups", None)

    def primary(self, options: Options) -> str:
        return self._primary(options) if self._primary else self.PRIMARY

    def groups(self, row: ScoringInput, options: Options) -> dict[str, str]:
        return dict(self._groups(row, options)) if self._groups else {}

    def failing(self, rows: Iterable[ScoringInput], options: Options) -> Iterator[tuple[str, str]]:
        """Yield the unusable references that any of the scorers reports."""
        scorers = [scorer for scorer in self._scorers if hasattr(scorer, "failing")]
        for scorer, own in zip(scorers, tee(rows, len(scorers)), strict=True):
            yield from cast("Any", scorer).failing(own, options)

    def doubts(self, rows: Sequence[ScoringInput]) -> list[str]:
        """Return the doubts of all scorers about the references."""
        scorers = [scorer for scorer in self._scorers if hasattr(scorer, "doubts")]
        return [line for scorer in scorers for line in cast("Any", scorer).doubts(rows)]

    def score_rows(self, rows: Iterable[ScoringInput], options: Options) -> Iterator[ScoredRow]:
        """Yield every metric of each row, in order; all scorers read the rows in step."""
        with ExitStack() as open_streams:
            streams = []
            for scorer, own in zip(self._scorers, tee(rows, len(self._scorers)), strict=True):
                stream = cast("Any", scorer.score_rows(own, options))
                streams.append(open_streams.enter_context(closing(stream)))
            for scored in zip(*streams, strict=True):
                without = next(
                    (row for row in scored if find_reason_left_out(row) is not None), None
                )
                if without is not None:  # left out by all metrics alike
                    yield replace(without, scores={})
                    continue
                scores = {name: value for row in scored for name, value in row.scores.items()}
                yield ScoredRow(scored[0].id, scores, scored[0].verdict)


def combine_scorers(first: Scorer, others: Sequence[Scorer]) -> Scorer:
    """Return one scorer with the metrics of several.

    Raises:
        ConfigError: two of them have a metric of the same name.
    """
    names = list(first.METRICS)
    for other in others:
        for name in other.METRICS:
            if name in names:
                raise ConfigError(
                    f"task.metrics: there is a metric {name} already; give yours another name."
                )
            names.append(name)
    return CombinedScorer([first, *others]) if others else first
