"""Several scorers as one: the task's own, and the metrics that a bake-off file adds to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import tee
from typing import Any, cast

from tuneoff.errors import ConfigError
from tuneoff.records import ScoredRow
from tuneoff.scoring.rows import Kind, Options, Row, Scorer, find_reason_left_out


class Combined:
    """A scorer with the metrics of all of them; verdicts are the first one's."""

    def __init__(self, scorers: Sequence[Scorer]) -> None:
        first = scorers[0]
        self._scorers = scorers
        self.PRIMARY = first.PRIMARY
        self.METRICS: Mapping[str, Kind] = {
            name: kind for scorer in scorers for name, kind in scorer.METRICS.items()
        }
        self.ERROR_CLASSES: Mapping[str, str] = getattr(first, "ERROR_CLASSES", {})
        self._primary: Callable[[Options], str] | None = getattr(first, "primary", None)
        self._groups: Any = getattr(first, "groups", None)

    def primary(self, options: Options) -> str:
        return self._primary(options) if self._primary else self.PRIMARY

    def groups(self, row: Row, options: Options) -> dict[str, str]:
        return dict(self._groups(row, options)) if self._groups else {}

    def failing(self, rows: Iterable[Row], options: Options) -> Iterator[tuple[str, str]]:
        """Yield what any of the scorers says of references that it cannot use."""
        scorers = [scorer for scorer in self._scorers if hasattr(scorer, "failing")]
        for scorer, own in zip(scorers, tee(rows, len(scorers)), strict=True):
            yield from cast("Any", scorer).failing(own, options)

    def doubts(self, rows: Sequence[Row]) -> list[str]:
        """Yield what any of the scorers says of references that it thinks little of."""
        scorers = [scorer for scorer in self._scorers if hasattr(scorer, "doubts")]
        return [line for scorer in scorers for line in cast("Any", scorer).doubts(rows)]

    def score_rows(self, rows: Iterable[Row], options: Options) -> Iterator[ScoredRow]:
        """Every metric of each row, in order; all scorers go through the rows together."""
        with ExitStack() as open_streams:
            streams = []
            for scorer, own in zip(self._scorers, tee(rows, len(self._scorers)), strict=True):
                stream = cast("Any", scorer.score_rows(own, options))
                streams.append(open_streams.enter_context(closing(stream)))
            for scored in zip(*streams, strict=True):
                without = next(
                    (row for row in scored if find_reason_left_out(row) is not None), None
                )
                if without is not None:  # for all metrics alike
                    yield replace(without, scores={})
                    continue
                scores = {name: value for row in scored for name, value in row.scores.items()}
                yield ScoredRow(scored[0].id, scores, scored[0].verdict)


def combined(first: Scorer, others: Sequence[Scorer]) -> Scorer:
    """One scorer of several.

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
    return Combined([first, *others]) if others else first
