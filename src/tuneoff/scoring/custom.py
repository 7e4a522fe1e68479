"""A custom metric: a Python file with `score(example, prediction) -> bool | float`.

    def score(example, prediction):
        return prediction.strip().endswith(example.completion.strip())

`example` is a `records.Example` (`id`, `inputs`, `completion`, `meta`). `prediction` is the text of
the answer without its thoughts (`answer_text.py`). Fences stay, because a metric may want them;
blanks around answer and completion are stripped, as in every comparison. The metric is named like
the file. The file is the user's code: it runs in this process, without limits. It is not called for
a row without an answer, which scores 0.

`CombinedScorer` joins the task's own scorer and the metrics that a bake-off file adds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import tee
from pathlib import Path
from typing import Any, cast

from tuneoff import plugins
from tuneoff.errors import ConfigError, DataError
from tuneoff.records import Example, ScoredRow
from tuneoff.scoring.base import (
    MetricKind,
    Options,
    Scorer,
    ScoringInput,
    build_unanswered,
    explain_no_answer,
    find_reason_left_out,
)

# The number of references that are scored as answers before there are any.
MAX_TRIED = 20


class FileMetric:
    """The scorer of a metric file; its one metric may be a share, a number, or yes/no."""

    def __init__(self, path: Path) -> None:
        module = plugins.find(__name__, str(path), "metric", ("score",))
        self.PRIMARY = path.stem
        self.METRICS: Mapping[str, MetricKind] = {path.stem: "yes/no"}
        self._path = path
        self._score: Any = module.score
        if not callable(self._score):
            raise ConfigError(f"metric {str(path)!r}: score is not a function; make it one.")

    def score_rows(self, rows: Iterable[ScoringInput], options: Options) -> Iterator[ScoredRow]:
        """Yield the metric of each row, in order.

        Raises:
            DataError: the function failed, or returned anything but a number.
        """
        for row in rows:
            missing = explain_no_answer(row)
            if missing is not None:
                yield build_unanswered(row, missing, self.METRICS)
                continue
            value = self._value(row)
            yield ScoredRow(row.id, {self.PRIMARY: value}, "right" if value == 1 else "wrong")

    def doubts(self, rows: Sequence[ScoringInput]) -> list[str]:
        """Return a warning if the metric gives some references less than full marks.

        Raises:
            DataError: as in `score_rows`, before any answer is paid for.
        """
        tried = rows[:MAX_TRIED]
        less = [row.id for row in tried if self._value(replace(row, prediction=row.reference)) < 1]
        if not less:
            return []
        return [
            f"{self._path.name}: score() gives {len(less)} of {len(tried)} references themselves "
            f"less than 1, {less[0]} for one; an answer that is the reference should be right."
        ]

    def _value(self, row: ScoringInput) -> bool | float:
        example = Example(row.id, row.inputs, row.reference.strip(), row.meta)
        try:
            value = self._score(example, row.prediction.strip())
        except Exception as error:
            first = (str(error) or "no message").splitlines()[0]
            raise DataError(
                f"{self._path}: score() failed on example {row.id!r} "
                f"({type(error).__name__}: {first}); correct it and score again."
            ) from error
        if not isinstance(value, (bool, int, float)) or not math.isfinite(value):
            raise DataError(
                f"{self._path}: score() gave {value!r:.40} for example {row.id!r}; "
                "it must give True, False or a finite number."
            )
        return value if isinstance(value, bool) else float(value)


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
