"""A custom metric: a Python file with `score(example, prediction) -> bool | float`.

    def score(example, prediction):
        return prediction.strip().endswith(example.completion.strip())

`example` is a `records.Example` (`id`, `inputs`, `completion`, `meta`). `prediction` is the text of
the answer without its thoughts (`answer_text.py`). Fences stay, because a metric may want them;
blanks around answer and completion are stripped, as in every comparison. The metric is named like
the file. The file is the user's code: it runs in this process, without limits. It is not called for
a row without an answer, which scores 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tuneoff import plugins
from tuneoff.errors import ConfigError, DataError
from tuneoff.records import Example, ScoredRow
from tuneoff.scoring.base import (
    MetricKind,
    Options,
    ScoringInput,
    build_unanswered,
    explain_no_answer,
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
